import type { TimestampTz } from '../wal/records/timestamp.js';
import type { ListedBackup } from './list-backups.js';

/** 2000-01-01, in milliseconds since 1970. */
const EPOCH_2000 = 946_684_800_000;

/** Milliseconds since 1970, rounded down. */
export function millisOf(time: TimestampTz): number {
  return Number(time / 1000n) + EPOCH_2000;
}

/** `2026-11-20 22:04` in UTC. */
export function minuteOf(millis: number): string {
  return new Date(millis).toISOString().slice(0, 16).replace('T', ' ');
}

interface Span {
  timeline: number;
  from: number;
  to: number;
  /** It ends since WAL is missing or bad. */
  broken: boolean;
}

const REACHED = '━';
const BROKEN = '×';

/**
 * What can be restored to, on one axis of time: a row for each timeline, with its backups and every
 * moment that one of them and the WAL behind it lead to. Empty where nothing can.
 * @param width of a line
 */
export function pictureOf(backups: readonly ListedBackup[], width = 80): string[] {
  const spans = backups.flatMap(spansOf);
  if (spans.length === 0) return [];
  const marks = backups.flatMap((b) =>
    b.record ? [{ b, timeline: b.record.end.timeline, at: Date.parse(b.record.end.time) }] : [],
  );
  const times = [...spans.flatMap(({ from, to }) => [from, to]), ...marks.map((m) => m.at)];
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const rows = [...new Set([...spans, ...marks].map((one) => one.timeline))].sort((a, b) => a - b);
  const label = (timeline: number | string) => `timeline ${timeline}`;
  const indent = Math.max(...rows.map((row) => label(row).length)) + 2;
  const columns = Math.max(20, width - indent);
  const column = (time: number): number =>
    last === first ? 0 : Math.round(((time - first) / (last - first)) * (columns - 1));
  const lines = rows.map((row) => {
    const cells = Array.from({ length: columns }, () => ' ');
    for (const { from, to } of spans.filter((span) => span.timeline === row)) {
      cells.fill(REACHED, column(from), column(to) + 1);
    }
    for (const { to, broken } of spans.filter((span) => span.timeline === row)) {
      if (broken) cells[column(to)] = BROKEN;
    }
    for (const { b, at } of marks.filter((mark) => mark.timeline === row)) {
      const letter = b.kind === 'full' ? 'F' : 'I';
      cells[column(at)] = b.state === 'complete' ? letter : letter.toLowerCase();
    }
    return `${label(row).padEnd(indent)}${cells.join('').trimEnd()}`;
  });
  const [left, right] = [minuteOf(first), `${minuteOf(last)} UTC`];
  const gap = Math.max(1, columns - left.length - right.length);
  return [
    `${' '.repeat(indent)}${left}${' '.repeat(gap)}${right}`,
    ...lines,
    `${REACHED} can be restored to, ${BROKEN} WAL missing; F full, I incremental; f, i of no use`,
  ];
}

function spansOf({ record, windows }: ListedBackup): Span[] {
  if (!record) return [];
  const from = Date.parse(record.end.time);
  return windows.flatMap(({ timeline, to, ends }) => {
    if (!to) return [];
    // Nothing was committed behind the end of the backup: that one moment is all there is.
    const until = to.time === undefined ? from : Math.max(from, millisOf(to.time));
    return [{ timeline, from, to: until, broken: ends !== 'archive' }];
  });
}
