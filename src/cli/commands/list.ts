import { readShipProgress, type ShipStatus } from '../../archive/shipping/read-ship-progress.js';
import type { ArchiveList, ListedRange, ListedTimeline } from '../../list/list.js';
import { formatLsn } from '../../lsn.js';
import { parsePlace } from '../../store/place.js';
import { formatBinaryBytes, formatSeconds } from '../../units.js';
import { formatIsoTimestamp, formatTimestamp } from '../../wal/records/timestamp.js';
import { ARCHIVE_OPTIONS, directoryOperand } from '../archive-options.js';
import type { Command } from '../command.js';
import { jsonLine } from '../json.js';
import type { Output } from '../output.js';
import { KEY_OPTIONS, keysOf } from '../place-options.js';
import { stopOnSignals } from '../signals.js';

/** `walkeep list` */
export const command: Command = {
  takesPlace: true,
  usage: 'list [OPTION]... PLACE',
  description:
    'Shows what WAL an archive holds: timelines, where they branch, contiguous ranges of LSNs, ' +
    'segments, sizes on disk, first and last commit time (UTC), and what is missing.',
  options: () => [...KEY_OPTIONS, ...ARCHIVE_OPTIONS],
  async run(values, operands, { output, tryHelp }) {
    const directory = directoryOperand(operands, tryHelp);
    const { listArchive } = await import('../../list/list.js');
    const { signal, release } = stopOnSignals(output);
    try {
      const list = await listArchive(directory, signal, keysOf(values));
      const place = parsePlace(directory);
      const shipping = place.kind === 'directory' ? await readShipProgress(place.path) : [];
      if (values.json === true) printJson(output, list, shipping);
      else printTable(output, list, shipping);
      return 0;
    } catch (error) {
      if (!signal.aborted) throw error;
      output.error('interrupted');
      return 1;
    } finally {
      release();
    }
  },
};

/** One object for the archive, then one for each timeline and each gap. */
function printJson(output: Output, list: ArchiveList, shipping: readonly ShipStatus[]): void {
  const { timelines, gaps, acceptedGaps, ...archive } = list;
  const range = ({ firstCommit, lastCommit, ...rest }: ListedRange) => ({
    ...rest,
    ...(firstCommit === undefined ? {} : { firstCommit: formatIsoTimestamp(firstCommit) }),
    ...(lastCommit === undefined ? {} : { lastCommit: formatIsoTimestamp(lastCommit) }),
  });
  const objects = [
    { type: 'archive', ...archive },
    ...timelines.map((t) => ({ type: 'timeline', ...t, ranges: t.ranges.map(range) })),
    ...gaps.map((gap) => ({ ...gap, type: 'gap' })),
    ...acceptedGaps.map((gap) => ({ ...gap, type: 'accepted-gap' })),
    ...shipping.map((status) => ({ type: 'shipping', ...status })),
  ];
  output.print(objects.map(jsonLine).join('\n'));
}

function printTable(output: Output, list: ArchiveList, shipping: readonly ShipStatus[]): void {
  const server = list.serverMajor === undefined ? '' : `PostgreSQL ${list.serverMajor}, `;
  const lines = [
    `${list.directory}`,
    `system identifier ${list.systemId ?? 'unknown'}, ${server}` +
      `segments of ${list.segmentSize / 1024 / 1024} MiB`,
    '',
  ];
  for (const t of list.timelines.filter((one) => !hasParent(list, one))) {
    lines.push(...tree(list, t, '', ''));
  }
  for (const { timeline, from, to, beside } of list.gaps) {
    const on = beside ? `, on a way that is ${STANDING[beside]}` : '';
    lines.push(`missing: timeline ${timeline}, ${formatLsn(from)} - ${formatLsn(to)}${on}`);
  }
  for (const { timeline, from, to, why } of list.acceptedGaps) {
    const place = `timeline ${timeline}, ${formatLsn(from)} - ${formatLsn(to)}`;
    lines.push(`accepted gap: ${place} (${why})`);
  }
  const [unread] = list.unread;
  if (unread !== undefined) {
    const more = list.unread.length > 1 ? ` and ${list.unread.length - 1} more` : '';
    lines.push(`cannot be read, not counted: ${unread}${more}`);
  }
  if (list.flushed) {
    const { lsn, timeline } = list.flushed;
    lines.push(`acknowledged to the server: ${formatLsn(lsn)} on timeline ${timeline}`);
  }
  lines.push(...shipping.map(shippingLine));
  output.print(
    [...lines, `${count(list.segments)}, ${formatBinaryBytes(list.size)} on disk`].join('\n'),
  );
}

function shippingLine({ place, position, lag, state, trouble }: ShipStatus): string {
  const at = position
    ? `up to ${formatLsn(position.lsn)} on timeline ${position.timeline}`
    : 'nothing yet';
  const behind =
    lag.segments === 0
      ? ''
      : `, ${formatBinaryBytes(lag.bytes)} and ${formatSeconds(lag.seconds)} behind`;
  const why = state === 'ok' || !trouble ? '' : ` (${trouble.message})`;
  return `shipped to ${place}: ${at}${behind}${why}`;
}

const STANDING = { abandoned: 'abandoned', unfollowed: 'never received' };

const count = (n: number) => `${n} segment${n === 1 ? '' : 's'}`;

const hasParent = (list: ArchiveList, t: ListedTimeline) =>
  list.timelines.some((other) => other.timeline === t.parent);

/** A timeline and below it those that branched off it. */
function tree(list: ArchiveList, t: ListedTimeline, first: string, rest: string): string[] {
  const lines: string[] = [];
  const branch =
    t.branch === undefined ? '' : `, branched off ${t.parent} at ${formatLsn(t.branch)}`;
  const reason = t.reason ? ` (${t.reason})` : '';
  const standing = t.beside ? `, ${STANDING[t.beside]}` : '';
  lines.push(clip(`${first}timeline ${t.timeline}${branch}${standing}${reason}`));
  const children = list.timelines.filter((other) => other.parent === t.timeline);
  const bar = `${rest}${children.length > 0 ? '│ ' : '  '}`;
  if (t.ranges.length === 0) lines.push(`${bar}no segments`);
  for (const [i, range] of t.ranges.entries()) {
    if (i > 0) {
      lines.push(
        `${bar}-- ${formatLsn(t.ranges[i - 1]!.to)} - ${formatLsn(range.from)} is not here`,
      );
    }
    lines.push(...rangeLines(range).map((line) => clip(`${bar}${line}`)));
  }
  if (children.length === 0) lines.push('');
  for (const [i, child] of children.entries()) {
    const last = i === children.length - 1;
    lines.push(
      ...tree(list, child, `${rest}${last ? '└ ' : '├ '}`, `${rest}${last ? '  ' : '│ '}`),
    );
  }
  return lines;
}

function rangeLines(range: ListedRange): string[] {
  const place = `${formatLsn(range.from)} - ${formatLsn(range.to)}`;
  const lines = [
    `${place.padEnd(36)} ${count(range.segments).padStart(15)} ${formatBinaryBytes(range.size).padStart(11)}`,
  ];
  const { firstCommit, lastCommit, partial } = range;
  if (firstCommit !== undefined && lastCommit !== undefined) {
    lines.push(`  commits ${formatTimestamp(firstCommit)} to ${formatTimestamp(lastCommit)}`);
  }
  if (partial !== undefined) lines.push(`  the last one is ${partial}`);
  return lines;
}

const WIDTH = 100;

const clip = (line: string) => (line.length > WIDTH ? `${line.slice(0, WIDTH - 1)}…` : line);
