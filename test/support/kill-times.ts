import type { CliRun } from './cli.js';
import { delay } from './wait.js';

/**
 * Kills processes at random instants of their run. How long that takes is found out on the way, so
 * that about every second one is killed: no machine is as fast at one time as at another.
 */
export class RandomKills {
  /** How many were killed before they had come to their end. */
  killed = 0;
  private span = 200;
  private readonly random: () => number;

  constructor(random: () => number = Math.random) {
    this.random = random;
  }

  async kill(run: CliRun): Promise<{ code: number | null }> {
    await Promise.race([delay(this.span * (0.3 + 0.7 * this.random())), run.exit]);
    const { code, signal } = await run.stop('SIGKILL');
    if (signal) this.killed += 1;
    this.span *= signal ? 1.25 : 0.75;
    return { code };
  }
}
