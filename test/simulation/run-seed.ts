import { loadCodecs } from '../../src/codec/codecs.js';
import { type Mutation, type Tally, World } from './world.js';

/** Runs one seed; an error names the seed that repeats it and tells what came before. */
export async function runSeed(seed: number, crashes: number, mutation?: Mutation): Promise<Tally> {
  // From files, which takes turns that no schedule directs.
  await loadCodecs();
  const world = new World(seed, mutation);
  try {
    await world.run(crashes);
  } catch (e) {
    const error = e as Error;
    error.message += `\nrepeat with WALKEEP_SIM_SEED=${seed} WALKEEP_SIM_CRASHES=${crashes}\n${world.log.slice(process.env.WALKEEP_SIM_SEED ? 0 : -40).join('\n')}`;
    throw error;
  }
  return world.tally;
}
