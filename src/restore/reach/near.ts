import type { Catalog } from '../../archive/catalog.js';
import type { LocatedTarget, RecoveryTarget } from '../../archive/targets/target.js';
import { wayFrom } from '../../archive/targets/way.js';
import { WayMarks } from '../../archive/targets/way-marks.js';
import { beginOf } from '../../archive/targets/window.js';
import { UnreachableTargetError, WalkeepError } from '../../errors.js';
import type { Lsn } from '../../lsn.js';
import type { TimestampTz } from '../../wal/records/timestamp.js';
import {
  type Candidate,
  type ChooseOptions,
  chooseBackup,
  historyOf,
  isOnWay,
  timestampOf,
  wholeOf,
} from '../choose.js';

/** A target that there is a way to; tried. */
export interface NearPoint {
  target: RecoveryTarget;
  /** That `target` is meant of, where it names none: `immediate`. */
  backup?: string;
  timeline: number;
  lsn: Lsn;
  /** Of the last commit, or of the end of the backup. */
  time?: TimestampTz;
}

export interface NearPoints {
  /** The last before the target on the same way, and the first behind it. */
  before?: NearPoint;
  after?: NearPoint;
  /** Other timelines along which there is a way to the very target. */
  timelines: number[];
}

/** Timelines that are tried. */
const MOST_TIMELINES = 8;

/**
 * What can be reached near a target that cannot. All of it is tried as a target itself.
 * @throws the signal's reason; of places that cannot be asked nothing is said
 */
export async function nearPoints(choosing: ChooseOptions): Promise<NearPoints> {
  const { signal } = choosing;
  try {
    const near = await pointsOnWay(choosing);
    return { ...near, timelines: await timelinesTo(choosing) };
  } catch (e) {
    signal?.throwIfAborted();
    if (e instanceof WalkeepError) return { timelines: [] };
    throw e;
  }
}

async function pointsOnWay(choosing: ChooseOptions): Promise<Omit<NearPoints, 'timelines'>> {
  const { catalog, candidates, target, backup } = choosing;
  if (!catalog) return {};
  const isLater = comparing(target);
  if (!isLater) return {};
  const history = historyOf(choosing);
  const named = candidates.filter(({ record }) => !backup || record.id === backup);
  if (named.length === 0) return {};
  const onWay = wholeOf(named, choosing)
    .filter(({ record }) => isOnWay(record, history))
    .sort(({ record: a }, { record: b }) => (a.end.lsn < b.end.lsn ? -1 : 1));
  const wanted = { ...choosing, timeline: history.timeline };
  let before: NearPoint | undefined;
  for (const one of onWay.filter((candidate) => !isLater(endOf(candidate))).reverse()) {
    before = await lastOf(catalog, one, wanted, isLater);
    if (before) break;
  }
  let after: NearPoint | undefined;
  for (const one of onWay.filter((candidate) => isLater(endOf(candidate)))) {
    after = await tried(wanted, { kind: 'immediate' }, one);
    if (after) break;
  }
  return { ...(before ? { before } : {}), ...(after ? { after } : {}) };
}

type Place = { lsn: Lsn; time: TimestampTz };

function endOf({ record: { end } }: Candidate): Place {
  return { lsn: end.lsn, time: timestampOf(end.time) };
}

/** Whether a place is behind the target; undefined for a target that has no place unless it is found. */
function comparing(target: RecoveryTarget): ((place: Place) => boolean) | undefined {
  switch (target.kind) {
    case 'time':
      return ({ time }) => time > target.time;
    case 'lsn':
      return ({ lsn }) => lsn > target.lsn;
    case 'latest':
      return () => false;
    default:
      return undefined;
  }
}

/** The last commit that a backup's WAL leads to, or its end, if that is before the target. */
async function lastOf(
  catalog: Catalog,
  candidate: Candidate,
  choosing: ChooseOptions,
  isLater: (place: Place) => boolean,
): Promise<NearPoint | undefined> {
  const begin = beginOf(candidate.record);
  const way = wayFrom(catalog, begin, choosing.timeline);
  if ('unreachable' in way) return undefined;
  const marks = new WayMarks(way.stretch.plan, way.stretch, undefined, choosing.signal);
  const { end } = await marks.lastRecord();
  const { last } = await marks.around(end);
  if (last && last.endLsn >= begin.lsn && !isLater(last)) {
    return tried(choosing, { kind: 'lsn', lsn: last.lsn, inclusive: true });
  }
  if (last && last.endLsn >= begin.lsn) return undefined;
  return tried(choosing, { kind: 'immediate' }, candidate);
}

/** Undefined: there is no way to it, after all. */
async function tried(
  choosing: ChooseOptions,
  target: RecoveryTarget,
  candidate?: Candidate,
): Promise<NearPoint | undefined> {
  const backup = candidate?.record.id ?? choosing.backup;
  const located = await reaches({ ...choosing, target, backup });
  if (!located) return undefined;
  const time = candidate ? timestampOf(candidate.record.end.time) : located.last?.time;
  return {
    ...{ target, timeline: located.timeline, lsn: located.lsn },
    ...(candidate ? { backup: candidate.record.id } : {}),
    ...(time === undefined ? {} : { time }),
  };
}

async function timelinesTo(choosing: ChooseOptions): Promise<number[]> {
  const { catalog, target } = choosing;
  if (!catalog || target.kind === 'latest' || target.kind === 'immediate') return [];
  const asked = historyOf(choosing).timeline;
  const others = catalog.timelines.filter((t) => t.timeline !== asked && t.segments.length > 0);
  const found: number[] = [];
  for (const { timeline } of others.slice(-MOST_TIMELINES)) {
    if (await reaches({ ...choosing, timeline })) found.push(timeline);
  }
  return found;
}

async function reaches(choosing: ChooseOptions): Promise<LocatedTarget | undefined> {
  try {
    return (await chooseBackup(choosing)).located;
  } catch (e) {
    if (e instanceof UnreachableTargetError) return undefined;
    throw e;
  }
}
