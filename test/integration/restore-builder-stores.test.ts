import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, it, vi } from 'vitest';
import { parseLsn } from '../../src/lsn.js';
import { formatTimestamp } from '../../src/wal/records/timestamp.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { NUMBERED, NumberedRows, numbersOf } from '../support/numbered-rows.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory } from '../support/receiving.js';
import { askPage, pasted } from '../support/restore-page.js';
import { handOver, recovered, walkeepDone } from '../support/restoring.js';
import { giveToServer, scratchDir } from '../support/scratch.js';
import { freePort } from '../support/server-config.js';
import { Serving } from '../support/serving.js';
import { waitFor } from '../support/wait.js';

vi.setConfig({ testTimeout: 300_000 });

const keep = disposer();

it('recovers from an encrypted store by the command of the page', async () => {
  const server = keep(await PostgresServer.create({ major: 18, settings: NUMBERED }));
  const archive = archiveDirectory();
  const root = scratchDir('store', { forServer: true });
  const vault = join(root, 'vault');
  const identity = join(root, 'identity');
  const secret = await generateX25519Identity();
  const recipient = await identityToRecipient(secret);
  writeFileSync(identity, `${secret}\n`, { mode: 0o600 });
  mkdirSync(vault);
  expect((await runCli(['store', '--init', vault]).exit).code).toBe(0);
  const port = await freePort();
  const origin = `http://127.0.0.1:${port}`;
  const store = { place: vault, recipients: [recipient], identity_file: identity };
  const serving = keep(
    await Serving.start(
      {
        shop: {
          connection: `host=127.0.0.1 port=${server.port} user=postgres`,
          ...{ directory: archive, synchronous: true, stores: { vault: {} } },
        },
      },
      { web: { listen: `127.0.0.1:${port}` }, stores: { vault: store } },
    ),
  );
  await serving.waitState('shop', 'streaming');
  const rows = new NumberedRows();
  await rows.prepare(server);
  await rows.add(server, 2);
  await walkeepDone(['backup', '--recipient', recipient, '-d', server.conninfo(), vault]);
  await rows.add(server, 6, 2);
  const [one] = rows.commits.slice(4);
  await rows.add(server, 1, 1);
  await server.switchWal();
  const size = BigInt(server.segmentSize);
  const end = ((await server.currentLsn()) / size) * size;
  // That all which was completed is there says nothing of what is still on its way here.
  await waitFor(
    async () => {
      const { stores = [] } = await serving.status('shop');
      return parseLsn(stores[0]?.shippedLsn ?? '0/0') >= end;
    },
    { what: 'all segments in the store', timeoutMs: 120_000 },
  );
  const to = formatTimestamp(one!.time);
  const { answer } = await askPage(origin, 'shop', { to, from: 'vault' });
  expect(answer).toMatchObject({
    state: 'planned',
    plan: { backup: { encrypted: true, place: vault }, last: { xid: one!.xid } },
  });
  handOver(vault);
  giveToServer(identity);
  const restored = keep(
    await server.createRestored(async (dataDir) => {
      const asked = { to, from: 'vault', pgdata: dataDir, action: 'promote' };
      const { command = '' } = await askPage(origin, 'shop', asked);
      expect(command).toContain(`--identity=${identity}`);
      await pasted(command);
    }),
  );
  await restored.start();
  await recovered(restored);
  expect((await numbersOf(restored)).at(-1)).toBe(one!.n);
});
