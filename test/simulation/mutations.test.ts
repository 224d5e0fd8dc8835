import { describe, expect, it } from 'vitest';
import { MUTATIONS } from './mutations.js';
import { runSeed } from './run-seed.js';

/** Seeds within which every planted bug has to be found. */
const BOUND = 200;
const CRASHES = 10;

/** The first seed that finds the bug, and how it shows. */
async function find(name: string): Promise<{ seeds: number; how: string } | undefined> {
  for (let seed = 1; seed <= BOUND; seed++) {
    try {
      await runSeed(seed, CRASHES, MUTATIONS[name]);
    } catch (e) {
      return { seeds: seed, how: (e as Error).message.split('\n')[0] as string };
    }
  }
  return undefined;
}

describe('the simulation finds planted bugs', () => {
  it.each(Object.keys(MUTATIONS))('%s', { timeout: 120_000 }, async (name) => {
    const found = await find(name);
    if (process.env.WALKEEP_SIM_VERBOSE) console.log(name, JSON.stringify(found));
    expect(found).toBeDefined();
  });
});
