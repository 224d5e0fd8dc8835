import { randomBytes } from 'node:crypto';
import { expect, it } from 'vitest';
import { contentOf } from '../../../src/store/content.js';
import { sharedRgw } from '../../support/rgw-setup.js';
import { bytesOf, openStore } from './stores.js';

const rgw = sharedRgw();
/** All of them: `WALKEEP_RACES=1000`. */
const ROUNDS = Number(process.env.WALKEEP_RACES ?? 20);
const RACERS = 32;
/** Each with connections of its own, as so many processes would have. */
const STORES = 4;

it.skipIf(!rgw)(
  `of ${RACERS} creators one wins, ${ROUNDS} times, and nothing is overwritten`,
  { timeout: 3_600_000 },
  async () => {
    if (!rgw) return;
    const bucket = await rgw.createBucket();
    const stores = Array.from({ length: STORES }, () => openStore(rgw, bucket));
    const won = new Map<string, Buffer>();
    for (let round = 0; round < ROUNDS; round++) {
      const key = `race/${round}`;
      // From nothing to the size of a small segment, each its own.
      const bodies = Array.from({ length: RACERS }, () => randomBytes(1 + 4 ** (round % 9)));
      const results = await Promise.all(
        bodies.map((body, i) => stores[i % STORES]!.create(key, contentOf(body))),
      );
      const winners = results.flatMap(({ created }, i) => (created ? [i] : []));
      expect(winners, key).toHaveLength(1);
      const body = bodies[winners[0] as number] as Buffer;
      const { sha256 } = contentOf(body);
      for (const result of results) {
        if (!result.created) expect(result.found.sha256, key).toBe(sha256);
      }
      won.set(key, body);
    }
    for (const [key, body] of won) {
      expect((await bytesOf(stores[0]!, key))?.equals(body), key).toBe(true);
    }
    await Promise.all(stores.map((store) => store.close()));
  },
);
