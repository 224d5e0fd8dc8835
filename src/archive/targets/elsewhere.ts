import type { Lsn } from '../../lsn.js';
import { timelineAt } from '../../wal/timeline.js';
import type { BackupArea } from '../backups/area.js';
import type { Catalog } from '../catalog.js';
import { type ReadFactsOptions, readFacts } from '../index/facts.js';
import type { Mark } from '../way/marks.js';
import { type Plan, planTimeline } from '../way/plan.js';
import { isTarget, type MarkTarget } from './search-mark.js';
import type { WayStretch } from './way.js';
import { WayMarks } from './way-marks.js';

/** So many segments that no index tells of are read for what is only told. */
const FEW = 14;

/** Where a transaction or a named point is that is not on the way. */
export interface Elsewhere {
  mark: Mark;
  /** Absent: before the backup, on the way to it. */
  timeline?: number;
}

/**
 * Looks where recovery does not come by: before the backup, and on other timelines. Only an index, or
 * the reading of few segments, says that something is there.
 */
export async function findElsewhere(
  catalog: Catalog,
  { plan, first, from }: WayStretch,
  target: MarkTarget,
  area: BackupArea | undefined,
  options: ReadFactsOptions,
): Promise<Elsewhere | undefined> {
  const before = Array.from({ length: first + 1 }, (_, at) => at);
  const isBefore = (mark: Mark) => mark.lsn < from;
  const mark = await findIn(plan, before, target, isBefore, area, options);
  if (mark) return { mark };
  const ours = new Set(plan.segments.map(({ files }) => files[0]?.name));
  for (const { timeline, segments } of catalog.timelines) {
    if (timeline === plan.timeline || segments.length === 0) continue;
    const other = planTimeline(catalog, timeline);
    const places = [...other.segments.keys()].filter((at) => {
      const [best] = other.segments[at]!.files;
      return best !== undefined && !ours.has(best.name) && isOf(best.name, timeline);
    });
    // Its first segment repeats what is before it, which is on the way too.
    const isBeside = ({ lsn }: Mark) =>
      timelineAt(other.history, lsn) !== timelineAt(plan.history, lsn);
    const found = await findIn(other, places, target, isBeside, area, options);
    if (found) return { mark: found, timeline };
  }
  return undefined;
}

function isOf(name: string, timeline: number): boolean {
  return Number.parseInt(name.slice(0, 8), 16) === timeline;
}

async function findIn(
  plan: Plan,
  places: readonly number[],
  target: MarkTarget,
  counts: (mark: Mark) => boolean,
  area: BackupArea | undefined,
  options: ReadFactsOptions,
): Promise<Mark | undefined> {
  const [first, last] = [places[0], places.at(-1)];
  if (first === undefined || last === undefined) return undefined;
  const range = { from: first, to: last + 1 };
  const index = area && (await readFacts(area, plan, range, target, options));
  const told = places.filter((at) => index?.facts(at)?.holds);
  const untold = places.filter((at) => !index?.facts(at));
  const way = { from: 0n as Lsn, first, behind: last + 1 };
  const marks = new WayMarks(plan, way, undefined, options.signal);
  for (const at of [...told, ...(untold.length <= FEW ? untold : [])]) {
    const found = (await marks.at(at)).marks.find((one) => isTarget(one, target) && counts(one));
    if (found) return found;
  }
  return undefined;
}
