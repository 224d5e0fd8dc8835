import type { TimestampTz } from '../../wal/records/timestamp.js';
import { type EndMark, isEnd, type SegmentMarks } from '../way/marks.js';
import type { Damage } from '../way/scan.js';
import type { WayMarks } from './way-marks.js';

/** So many segments of which no index tells are read in any case: then nothing is assumed. */
const FEW = 14;

/**
 * By how much clocks may have gone back, or commits overtaken each other, where segments are searched
 * by halves. Microseconds: one second. A larger step is found where a segment that is read has it.
 */
export const TIME_SLACK = 1_000_000n;

export interface FoundEnd {
  /** The first end of a transaction that recovery to the time does not replay. */
  mark?: EndMark;
  /** Before any such, WAL that cannot be read. */
  damage?: Damage;
  /** Segments that were neither read nor known from an index: clocks are taken to have gone on. */
  assumed: number;
}

/** True for the times at which recovery stops. */
export type IsLater = (time: TimestampTz) => boolean;

/**
 * The first end of a transaction with a later time, as recovery finds it that reads everything. It is
 * exact where an index or the reading of a segment says which times are in it; a stretch of more
 * segments than can be read is searched by halves, and read on where that finds clocks to go back.
 */
export async function firstLaterEnd(
  way: WayMarks,
  time: TimestampTz,
  isLater: IsLater,
): Promise<FoundEnd> {
  const known = await search(
    way,
    time,
    isLater,
    (at) => way.facts(at)?.times,
    (at) => !!way.facts(at),
  );
  // An index that promised what is not there is none.
  return (
    known ??
    (await search(
      way,
      time,
      isLater,
      () => undefined,
      () => false,
    ))!
  );
}

async function search(
  way: WayMarks,
  time: TimestampTz,
  isLater: IsLater,
  timesOf: (at: number) => { max: TimestampTz } | undefined,
  isKnown: (at: number) => boolean,
): Promise<FoundEnd | undefined> {
  const unknown: number[] = [];
  let candidate: number | undefined;
  for (let at = way.first; at < way.behind && candidate === undefined; at++) {
    const max = timesOf(at)?.max;
    if (max !== undefined && isLater(max)) candidate = at;
    else if (!isKnown(at)) unknown.push(at);
  }
  const onward = candidate === undefined ? [] : [candidate];
  const halved = unknown.length > FEW ? await halve(way, unknown, time, isLater) : undefined;
  const places = halved ? unknown.slice(halved.from) : unknown;
  const found = await readOn(way, [...places, ...onward], isLater);
  if (candidate !== undefined && !found.mark && !found.damage) return undefined;
  return { ...found, assumed: halved?.assumed ?? 0 };
}

/** Reads segments in their order up to the first that has such an end. */
async function readOn(
  way: WayMarks,
  places: readonly number[],
  isLater: IsLater,
): Promise<{ mark?: EndMark; damage?: Damage }> {
  for (const at of places) {
    const { marks, damage } = await way.at(at);
    const mark = marks.filter(isEnd).find((one) => isLater(one.time));
    if (mark) return { mark };
    if (damage) return { damage };
  }
  return {};
}

/** Searches by halves for the segment from which on is to be read. */
async function halve(
  way: WayMarks,
  places: readonly number[],
  time: TimestampTz,
  isLater: IsLater,
): Promise<{ from: number; assumed: number }> {
  const read = new Set<number>();
  const look = async (i: number): Promise<SegmentMarks> => {
    read.add(i);
    return way.at(places[i]!);
  };
  let low = 0;
  let high = places.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    let later: boolean | undefined;
    let at = middle;
    // A segment without any time says nothing: the ones behind it do.
    for (; at < high && later === undefined; at++) later = isPast(await look(at), isLater);
    if (later === false) low = at;
    else high = middle;
  }
  // What is a little later may stand before what is a little earlier.
  for (let i = low - 1; i >= 0; i--) {
    const { marks } = await look(i);
    if (marks.some((mark) => isEnd(mark) && isLater(mark.time))) low = i;
    if (marks.length > 0 && marks.every((mark) => mark.time < time - TIME_SLACK)) break;
  }
  if (await goesBack(way, places, read)) return { from: 0, assumed: 0 };
  // Recovery gets no further than damage.
  for (const i of read) if (i < low && (await look(i)).damage) low = i;
  return { from: low, assumed: low - [...read].filter((i) => i < low).length };
}

/** Whether a segment has times that are later; by its transactions, where some end in it. */
function isPast({ marks }: SegmentMarks, isLater: IsLater): boolean | undefined {
  const ends = marks.filter(isEnd);
  if (ends.length > 0) return ends.some((mark) => isLater(mark.time));
  const last = marks.at(-1);
  return last && isLater(last.time);
}

/** True if the segments that were read show that clocks went back by more than is allowed for. */
async function goesBack(
  way: WayMarks,
  places: readonly number[],
  read: ReadonlySet<number>,
): Promise<boolean> {
  let newest: TimestampTz | undefined;
  for (const i of [...read].sort((a, b) => a - b)) {
    for (const { time } of (await way.at(places[i]!)).marks.filter(isEnd)) {
      if (newest !== undefined && time < newest - TIME_SLACK) return true;
      if (newest === undefined || time > newest) newest = time;
    }
  }
  return false;
}
