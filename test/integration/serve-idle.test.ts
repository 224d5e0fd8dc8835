import { expect, it } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory } from '../support/receiving.js';
import { entryOf, scraped } from '../support/scraped.js';
import { waitFor } from '../support/wait.js';

/** Seconds for which nothing happens; `WALKEEP_IDLE_SECONDS=600` for a long while. */
const IDLE = Number(process.env.WALKEEP_IDLE_SECONDS ?? 13);

const keep = disposer();

it(
  'restarts nobody and sees nothing wrong on an idle server',
  async () => {
    const server = await PostgresServer.create({ major: 18 });
    keep({ [Symbol.asyncDispose]: () => server.destroy() });
    const { serving, metric } = await scraped(keep, {
      shop: entryOf(server.port, archiveDirectory()),
    });
    await serving.waitState('shop', 'streaming');
    await waitFor(async () => (await metric('rpo_seconds', 'shop')) === 0);
    const { pid, receiver } = await serving.status('shop');
    const began = performance.now();
    let worst = 0;
    await waitFor(
      async () => {
        worst = Math.max(worst, await metric('rpo_seconds', 'shop'));
        return performance.now() - began > IDLE * 1000;
      },
      { what: 'time to pass', timeoutMs: IDLE * 1000 + 60_000, intervalMs: 200 },
    );
    expect(await serving.status('shop')).toMatchObject({
      ...{ pid, restarts: 0, state: 'streaming' },
      receiver: { connections: receiver?.connections },
    });
    for (const event of ['restart', 'stopped', 'held', 'disconnect']) {
      expect(serving.events(event)).toEqual([]);
    }
    await waitFor(async () => (await metric('rpo_seconds', 'shop')) === 0);
    if (process.env.WALKEEP_IDLE_SECONDS) console.log(`largest rpo_seconds: ${worst}`);
  },
  180_000 + IDLE * 1000,
);
