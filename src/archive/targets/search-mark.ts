import { isEnd, type Mark } from '../way/marks.js';
import type { Damage } from '../way/scan.js';
import type { RecoveryTarget } from './target.js';
import type { WayMarks } from './way-marks.js';

export type MarkTarget = Extract<RecoveryTarget, { kind: 'xid' | 'name' }>;

/**
 * The first record that a transaction or a restore point is found by. Segments that an index says do
 * not have it are not read; all others are.
 */
export async function searchMark(
  way: WayMarks,
  target: MarkTarget,
): Promise<{ mark?: Mark; damage?: Damage }> {
  for (let at = way.first; at < way.behind; at++) {
    const facts = way.facts(at);
    if (facts && !facts.holds) continue;
    const { marks, damage } = await way.at(at);
    const mark = marks.find((one) => isTarget(one, target));
    if (mark) return { mark };
    if (damage) return { damage };
  }
  return {};
}

/** True for the record that a target is found by. */
export function isTarget(mark: Mark, target: MarkTarget): boolean {
  if (target.kind === 'name') return mark.kind === 'point' && mark.name === target.name;
  return isEnd(mark) && mark.xid === target.xid;
}
