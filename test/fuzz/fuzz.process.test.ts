import { afterAll, describe, expect, test } from 'vitest';
import { fileTargets } from './file-targets.js';
import { LIMIT, Watch } from './harness.js';
import { protocolTargets } from './protocol-targets.js';
import { startupTargets } from './startup-targets.js';
import { streamTargets } from './stream-targets.js';
import { turn } from './target.js';
import { textTargets } from './text-targets.js';
import { walTargets } from './wal-targets.js';

/** Inputs of all targets together; another seed, other inputs. */
const TOTAL = Number(process.env.WALKEEP_FUZZ ?? 4000);
const SEED = Number(process.env.WALKEEP_FUZZ_SEED ?? 1);

const targets = [
  ...protocolTargets,
  ...startupTargets,
  ...streamTargets,
  ...textTargets,
  ...walTargets,
  ...fileTargets,
];

describe('fuzzed inputs', () => {
  const watch = new Watch();
  const counts: Record<string, number> = {};
  afterAll(() => watch.close());

  test.each(targets)('$name', { timeout: 7_200_000 }, async (target) => {
    const before = watch.inputs;
    await watch.run(target, Math.ceil((TOTAL * target.share) / 1000), SEED);
    await turn();
    counts[target.name] = watch.inputs - before;
    expect(watch.escaped).toEqual([]);
  });

  test('all of them, and nothing escaped', () => {
    const longest = `${(watch.longest / 1000).toFixed(1)} s`;
    console.log(JSON.stringify({ seed: SEED, total: watch.inputs, longest, ...counts }));
    expect(watch.escaped).toEqual([]);
    expect(watch.longest).toBeLessThan(LIMIT);
    expect(watch.inputs).toBeGreaterThanOrEqual(TOTAL);
  });
});
