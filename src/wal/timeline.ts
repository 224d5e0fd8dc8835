import { ParseError } from '../errors.js';
import { type Lsn, parseLsn } from '../lsn.js';

/** One line of a timeline history file: `timeline` ended at `end`, where its child begins. */
export interface TimelineSwitch {
  timeline: number;
  /** First LSN that is not on `timeline` any more. */
  end: Lsn;
  reason: string;
}

/**
 * The ancestors of a timeline, oldest first: `timeline` itself begins where the last one ends.
 */
export interface TimelineHistory {
  timeline: number;
  ancestors: readonly TimelineSwitch[];
}

/** The history of a timeline without ancestors (timeline 1 has no history file). */
export function rootHistory(timeline: number): TimelineHistory {
  return { timeline, ancestors: [] };
}

/**
 * Reads the text of a history file: lines `parentTLI <tab> switchpoint <tab> reason`, empty lines
 * and `#` comments ignored (access/transam/timeline.c, readTimeLineHistory).
 * @throws ParseError if a line is no such line, or timelines or switch points do not grow.
 */
export function parseTimelineHistory(timeline: number, text: string): TimelineHistory {
  const ancestors: TimelineSwitch[] = [];
  for (const line of text.split('\n')) {
    if (/^\s*(#|$)/.test(line)) continue;
    const m = /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)(?:\s+(.*?))?\s*$/.exec(line);
    if (!m) throw new ParseError(`syntax error in history file: ${line}`);
    const parent = Number(m[1]);
    const end = parseLsn(m[2] as string);
    const last = ancestors.at(-1);
    if (parent === 0 || parent > 0xffff_ffff || (last && parent <= last.timeline)) {
      throw new ParseError(`invalid data in history file: ${line}`, {
        hint: 'Timeline IDs must be in increasing sequence.',
      });
    }
    if (last && end < last.end) {
      throw new ParseError(`invalid data in history file: ${line}`, {
        hint: 'Switch points must not go back.',
      });
    }
    ancestors.push({ timeline: parent, end, reason: m[3] ?? '' });
  }
  const last = ancestors.at(-1);
  if (last && last.timeline >= timeline) {
    throw new ParseError(`invalid data in history file of timeline ${timeline}`, {
      hint: "Timeline IDs must be less than child timeline's ID.",
    });
  }
  return { timeline, ancestors };
}

/** Where `timeline` ends in this history; undefined if it is the newest or not part of it. */
export function timelineEnd(history: TimelineHistory, timeline: number): Lsn | undefined {
  return history.ancestors.find((a) => a.timeline === timeline)?.end;
}

/** True if `timeline` is the history's own or one of its ancestors. */
export function isInHistory(history: TimelineHistory, timeline: number): boolean {
  return history.timeline === timeline || history.ancestors.some((a) => a.timeline === timeline);
}

/** The timeline that follows `timeline` in this history; undefined for the newest one. */
export function childTimeline(history: TimelineHistory, timeline: number): number | undefined {
  const i = history.ancestors.findIndex((a) => a.timeline === timeline);
  if (i < 0) return undefined;
  return history.ancestors[i + 1]?.timeline ?? history.timeline;
}

/** What a timeline of this history branched off; undefined for its oldest, and what is not part of it. */
export function parentTimeline(history: TimelineHistory, timeline: number): number | undefined {
  const numbers = lineOf(history);
  return numbers[numbers.indexOf(timeline) - 1];
}

/**
 * The newest timeline that two histories have in common, with all before it. Behind its end in one of
 * them they part. Undefined if they have none, or call other WAL by the same number behind it.
 */
export function commonTimeline(a: TimelineHistory, b: TimelineHistory): number | undefined {
  const [ours, theirs] = [lineOf(a), lineOf(b)];
  let common: number | undefined;
  for (const [i, timeline] of ours.entries()) {
    if (theirs[i] !== timeline) break;
    common = timeline;
    // Where only one of them left it, or each elsewhere, they part here.
    if (timelineEnd(a, timeline) !== timelineEnd(b, timeline)) break;
  }
  const behind = ours.slice(ours.indexOf(common as number) + 1);
  return behind.some((timeline) => theirs.includes(timeline)) ? undefined : common;
}

function lineOf({ timeline, ancestors }: TimelineHistory): number[] {
  return [...ancestors.map((a) => a.timeline), timeline];
}

/** The timeline that owns the byte at `lsn` (tliOfPointInHistory). */
export function timelineAt(history: TimelineHistory, lsn: bigint): number {
  return history.ancestors.find((a) => lsn < a.end)?.timeline ?? history.timeline;
}
