import { expect, test } from 'vitest';
import { crashRound, VICTIMS } from '../support/crash-round.js';
import { MAJORS } from '../support/postgres.js';

/** `WALKEEP_CRASH_ROUNDS=50` for the full run; `WALKEEP_CRASH_SEED` repeats one. */
const ROUNDS = Number(process.env.WALKEEP_CRASH_ROUNDS ?? 3);
const SEED = Number(process.env.WALKEEP_CRASH_SEED ?? Math.floor(Math.random() * 1e9));

test.skipIf(MAJORS.length === 0)(
  `no confirmed commit is lost in ${ROUNDS} rounds of kill -9`,
  async () => {
    const sum = { rounds: 0, kills: 0, confirmed: 0, unconfirmed: 0, lost: 0 };
    for (let round = 0; round < ROUNDS; round++) {
      const seed = SEED + round;
      const first = VICTIMS[seed % VICTIMS.length]!;
      const result = await crashRound(seed, first);
      expect(result.lost, `WALKEEP_CRASH_SEED=${seed} ${result.kills}`).toEqual([]);
      expect(result.confirmed).toBeGreaterThan(20);
      sum.rounds += 1;
      sum.kills += result.kills.length;
      sum.confirmed += result.confirmed;
      sum.unconfirmed += result.unconfirmed;
      sum.lost += result.lost.length;
    }
    console.log(
      `${sum.rounds} rounds (seed ${SEED}), ${sum.kills} kills and one of all at the end of each: ` +
        `${sum.confirmed} commits confirmed, ${sum.lost} lost (${sum.unconfirmed} unconfirmed)`,
    );
  },
  ROUNDS * 60_000,
);
