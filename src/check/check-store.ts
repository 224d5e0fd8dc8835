import type { StoreFacts } from '../archive/archive.js';
import { formatSeconds } from '../units.js';
import { type CheckResult, judge } from './result.js';

/** What a store is worth as an archive, and how old the newest WAL in it is. */
export function checkStore({ capabilities, refusal, newest, now }: StoreFacts): CheckResult[] {
  const { ok, warn, unknown } = judge('store');
  const results: CheckResult[] = [];
  if (!capabilities) {
    const hint = 'Check it as a user that may write there.';
    results.push(unknown(`what the store can do was not tried: ${refusal}`, hint));
  } else if (!capabilities.conditionalCreate) {
    const hint = 'Let one process only write there, with --unfenced, or use another service.';
    const text = 'the store overwrites: two writers could destroy what the other one stored';
    results.push(warn(text, hint));
  } else {
    const { versioning, lock } = capabilities;
    const more = [
      ...(versioning === undefined ? [] : [versioning ? 'keeps versions' : 'keeps no versions']),
      ...(lock === undefined ? [] : [lock ? 'locks objects' : 'locks nothing']),
    ];
    results.push(ok(['the store never overwrites', ...more].join(', ')));
  }
  if (newest) {
    const seconds = Math.max(0, (now - newest.modified.getTime()) / 1000);
    const { ok: told } = judge('newest');
    results.push(
      told(`${newest.name} was stored ${formatSeconds(seconds)} ago, by the store's clock`),
    );
  }
  return results;
}
