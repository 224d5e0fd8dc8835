import { appendFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { runChaos } from '../chaos/run.js';
import { MAJORS, type Major } from '../support/postgres.js';

/**
 * `WALKEEP_CHAOS_EVENTS=200` for a full run, `WALKEEP_CHAOS_RUNS` for hours of them, each with the
 * next seed; `WALKEEP_CHAOS_SEED` repeats a schedule, `WALKEEP_CHAOS_MAJOR` chooses the server,
 * `WALKEEP_CHAOS_LOG` names a file that tells how it goes. With `WALKEEP_CHAOS_COMPRESS` set, half
 * of the receiver's starts compress.
 */
const EVENTS = Number(process.env.WALKEEP_CHAOS_EVENTS ?? 12);
const RUNS = Number(process.env.WALKEEP_CHAOS_RUNS ?? 1);
const SEED = Number(process.env.WALKEEP_CHAOS_SEED ?? Math.floor(Math.random() * 1e9));
const MAJOR = Number(process.env.WALKEEP_CHAOS_MAJOR ?? MAJORS.at(-1)) as Major;
const LOG = process.env.WALKEEP_CHAOS_LOG;
const compress = process.env.WALKEEP_CHAOS_COMPRESS !== undefined;

const say = (text: string) => {
  if (LOG) appendFileSync(LOG, `${new Date().toISOString()} ${text}\n`);
};

test.skipIf(MAJORS.length === 0)(
  `${EVENTS} disturbances of PostgreSQL ${MAJOR} and its receiver lose nothing and heal`,
  async () => {
    for (let run = 0; run < RUNS; run++) {
      const seed = SEED + run;
      const again = `WALKEEP_CHAOS_SEED=${seed} WALKEEP_CHAOS_EVENTS=${EVENTS} WALKEEP_CHAOS_MAJOR=${MAJOR}`;
      say(again);
      const tally = await runChaos({ seed, events: EVENTS, major: MAJOR, compress, say }).catch(
        (error) => {
          say(`FAILED ${error.message}`);
          throw new Error(`${again}: ${error.message}`, { cause: error });
        },
      );
      const text = JSON.stringify(tally);
      say(text);
      console.log(text);
      expect(tally, again).toMatchObject({
        ...{ lost: 0, differing: [], findings: [], manualSteps: 0, events: EVENTS },
      });
      expect(tally.confirmed, again).toBeGreaterThan(EVENTS * 10);
      expect(tally.segments, again).toBeGreaterThan(0);
    }
  },
  RUNS * (120_000 + EVENTS * 30_000),
);
