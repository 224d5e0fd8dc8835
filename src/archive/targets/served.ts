import { formatLsn, type Lsn } from '../../lsn.js';
import { formatTimestamp } from '../../wal/records/timestamp.js';
import type { Catalog } from '../catalog.js';
import { type LocateOptions, locateTarget, type TargetResult } from './locate.js';
import type { RecoveryTarget, UnreachableTarget } from './target.js';
import { wayFrom } from './way.js';
import { WayMarks } from './way-marks.js';

/** Bytes of WAL that a server decodes ahead unless it is told otherwise, and more. */
const READ_AHEAD = 1024n * 1024n;

/**
 * Where a recovery ends whose server is given no segment that is damaged, wherever in it: a target before
 * the damage in the same segment is not reached either.
 * @throws as `locateTarget`
 */
export async function locateServed(
  catalog: Catalog,
  target: RecoveryTarget,
  options: LocateOptions,
): Promise<TargetResult> {
  const found = await locateTarget(catalog, target, options);
  if (!('located' in found) || !found.located.setting) return found;
  const way = wayFrom(catalog, options.after, options.timeline);
  if ('unreachable' in way) return way;
  const { stretch } = way;
  const { segments } = stretch.plan;
  const marks = new WayMarks(stretch.plan, stretch, undefined, options.signal);
  const { lsn } = found.located;
  const needed = [(lsn - 1n) as Lsn, lsn].flatMap((one) => marks.placeOf(one) ?? []);
  for (const at of new Set(needed)) {
    // Of a partial one a server gets what is good.
    if (segments[at]?.files[0]?.partial) continue;
    const { damage, start } = await marks.at(at);
    if (!damage) continue;
    const message = `the segment with the target is damaged at ${formatLsn(damage.lsn)}, and no server is given it: ${damage.message}`;
    const nearest = await commitBefore(marks, start, options.after.lsn);
    const { notes, segmentsRead } = found.located;
    const unreachable: UnreachableTarget = { reason: 'damaged', message, notes, segmentsRead };
    return { unreachable: { ...unreachable, ...(nearest ? { nearest } : {}) } };
  }
  if (found.located.gap) return found;
  const next = marks.placeOf((lsn + READ_AHEAD) as Lsn);
  if (next === undefined || needed.includes(next) || !(await marks.at(next)).damage) return found;
  return { located: { ...found.located, gap: { isPartial: false } } };
}

async function commitBefore(
  marks: WayMarks,
  lsn: Lsn,
  least: Lsn,
): Promise<UnreachableTarget['nearest']> {
  const { last } = await marks.around(lsn);
  if (!last || last.endLsn > lsn || last.endLsn < least) return undefined;
  const when = `it has the commit of ${formatTimestamp(last.time)}`;
  return { lsn: last.lsn, time: last.time, hint: `Use --to ${formatLsn(last.lsn)}: ${when}.` };
}
