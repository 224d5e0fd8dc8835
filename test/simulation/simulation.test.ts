import { expect, it } from 'vitest';
import { runSeed } from './run-seed.js';

/** One seed again, or more of them than CI has the time for. */
const { WALKEEP_SIM_SEED, WALKEEP_SIM_SEEDS = '300', WALKEEP_SIM_FIRST = '1' } = process.env;
const CRASHES = Number(process.env.WALKEEP_SIM_CRASHES ?? 10);
/** CI stops after so many milliseconds, having run fewer seeds on a slow machine. */
const BUDGET = process.env.WALKEEP_SIM_SEEDS ? Number.POSITIVE_INFINITY : 30_000;

it('keeps its promises over crashes, faults and failovers', { timeout: 7_200_000 }, async () => {
  const first = Number(WALKEEP_SIM_SEED ?? WALKEEP_SIM_FIRST);
  const count = WALKEEP_SIM_SEED ? 1 : Number(WALKEEP_SIM_SEEDS);
  const failures: string[] = [];
  const total: Record<string, number> = { seeds: 0 };
  const began = process.hrtime.bigint();
  for (let seed = first; seed < first + count; seed++) {
    const tally = await runSeed(seed, CRASHES).catch((e) => {
      if (count === 1) throw e;
      failures.push(e.message);
    });
    if (failures.length > 4) break;
    if (!tally) continue;
    for (const [key, n] of Object.entries({ seeds: 1, ...tally })) {
      total[key] = (total[key] ?? 0) + n;
    }
    if (Number(process.hrtime.bigint() - began) / 1e6 > BUDGET) break;
  }
  console.log(JSON.stringify(total));
  expect(failures).toEqual([]);
  expect(total.crashes).toBeGreaterThan(0);
});
