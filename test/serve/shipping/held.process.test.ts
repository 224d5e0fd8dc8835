import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import type { StoreStatus } from '../../../src/serve/status.js';
import { WalShipper } from '../../../src/ship/shipper.js';
import { openFileStore } from '../../../src/store/file/file-store.js';
import { edit, sampleArchive } from '../../support/archives.js';
import { scratchDir } from '../../support/scratch.js';
import { freePort } from '../../support/server-config.js';
import { Serving } from '../../support/serving.js';
import { waitFor } from '../../support/wait.js';

const running: Serving[] = [];
afterEach(async () => {
  for (const serving of running.splice(0)) await serving.run.stop('SIGKILL');
});

async function newStore(): Promise<string> {
  const place = join(scratchDir('vault'), 'shop');
  await (await openFileStore(place, { init: true })).close();
  return place;
}

/** Serves a directory whose server is down: what is there is shipped all the same. */
async function shipping(directory: string, place: string) {
  const connection = `host=127.0.0.1 port=${await freePort()} user=nobody`;
  const shop = { connection, directory, stores: { vault: {} } };
  const serving = await Serving.start({ shop }, { stores: { vault: { place } } });
  running.push(serving);
  const waitStore = (is: (status: StoreStatus) => boolean, what: string) =>
    waitFor(
      async () => {
        const status = (await serving.status('shop')).stores?.[0];
        if (status === undefined || !is(status)) throw new Error(JSON.stringify(status));
        return status;
      },
      { timeoutMs: 150_000, what },
    );
  return { serving, waitStore };
}

it('ships all but a damaged segment, and that one when it is mended', async () => {
  const { directory, names } = sampleArchive(4);
  const good = sampleArchive(4);
  const damaged = names[1] as string;
  edit(join(directory, damaged), (bytes) => {
    bytes[300_000] = (bytes[300_000] as number) ^ 1;
    return bytes;
  });
  const { serving, waitStore } = await shipping(directory, await newStore());
  const held = await waitStore((s) => s.state === 'held' && s.queueSegments === 1, 'it to be held');
  expect(held.error?.code).toBe('WK_CORRUPT_WAL');
  expect(held.rpoSeconds).toBeGreaterThan(0);
  const told = () => serving.events('ship-held');
  await waitFor(() => told().length > 0);
  expect(told()).toMatchObject([{ server: 'shop', code: 'WK_CORRUPT_WAL' }]);
  copyFileSync(join(good.directory, damaged), join(directory, damaged));
  expect(await serving.ctl('resume', 'shop')).toMatchObject({ code: 0 });
  const well = await waitStore((s) => s.state === 'shipping' && s.rpoSeconds === 0, 'all to go');
  expect(well.queueSegments).toBe(0);
  expect(well.error).toBeUndefined();
});

it("holds a store that is another cluster's, until somebody has looked", async () => {
  const place = await newStore();
  const other = sampleArchive(3, { systemId: 78n });
  await new WalShipper({ source: other.directory, places: [place], once: true }).run();
  const { directory } = sampleArchive(3);
  const { serving, waitStore } = await shipping(directory, place);
  const held = await waitStore((s) => s.state === 'held', 'it to be held');
  expect(held).toMatchObject({ error: { code: 'WK_SYSTEM_IDENTIFIER' }, totals: { segments: 0 } });
  expect(held.pid).toBeUndefined();
  expect(held.rpoSeconds).toBeGreaterThan(0);
  const told = () => serving.events('ship-held');
  await waitFor(() => told().length > 0);
  expect(told()).toMatchObject([{ code: 'WK_SYSTEM_IDENTIFIER' }]);
  expect(told()[0]?.hint).toContain('walkeep ctl resume -c FILE shop');
  await serving.ctl('reload');
  expect(told()).toHaveLength(1);
  await serving.ctl('resume', 'shop');
  await waitFor(() => told().length === 2, { timeoutMs: 150_000 });
});
