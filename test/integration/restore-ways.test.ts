import { execFile, execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, test, vi } from 'vitest';
import { backupKey } from '../../src/archive/backups/keys.js';
import { systemPrefix } from '../../src/archive/store-keys.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { copyPackage } from '../support/package-copy.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { giveToServer, scratchDir, serverUser } from '../support/scratch.js';
import { put } from '../support/store-archive.js';
import { backupOf } from '../support/taken-backup.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();

let shared: string | undefined;

function walkeep(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  shared ??= copyPackage();
  const env = { PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
  return new Promise((resolve) => {
    execFile(join(shared!, 'bin', 'walkeep'), args, { env }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code ?? -1) : 0, stdout, stderr }),
    );
  });
}

async function digestOf(server: PostgresServer): Promise<string> {
  const [row] = await server.sql<{ digest: string }>(
    `SELECT (SELECT count(*) || ' ' || coalesce(max(id), 0) FROM committed) || ' ' ||
      (SELECT md5(coalesce(string_agg(w::text, '' ORDER BY id, n), '')) FROM work w) AS digest`,
  );
  return row?.digest as string;
}

async function recovered(server: PostgresServer): Promise<void> {
  await waitFor(async () => (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false, {
    what: 'the end of recovery',
  });
}

function handOver(...paths: string[]): void {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, ...paths]);
}

async function restored(
  origin: PostgresServer,
  args: (dataDir: string) => string[],
  settings: Record<string, string> = {},
): Promise<PostgresServer> {
  const server = keep(
    await origin.createRestored(async (dataDir) => {
      const { code, stderr } = await walkeep('restore', ...args(dataDir), dataDir);
      expect(code, stderr).toBe(0);
    }, settings),
  );
  await server.start();
  return server;
}

test('from an encrypted store, on a machine that never saw the receiver', async () => {
  const primary = keep(await PostgresServer.create({ major: 17 }));
  const archive = archiveDirectory();
  const run = keep(receive(archive, primary.conninfo(), []));
  await run.waitForOutput(/starting log streaming/);
  await workload(primary, { transactions: 4 });
  const root = scratchDir('store');
  const place = join(root, 'archive');
  const identity = join(root, 'identity');
  const secret = await generateX25519Identity();
  const recipient = await identityToRecipient(secret);
  writeFileSync(identity, secret);
  giveToServer(identity);
  expect((await runCli(['store', '--init', place]).exit).code).toBe(0);
  const { record } = await backupOf(primary, archive, {
    ...{ recipients: [recipient], compression: { method: 'gzip' } },
  });
  expect(record.encrypted).toBe(true);
  await workload(primary, { transactions: 5, switchEvery: 2, messageBytes: 300_000 });
  const digest = await digestOf(primary);
  await waitEqual(archive, primary);
  await primary.kill9();
  await run.stop();
  const ship = runCli(['ship', '--once', '--recipient', recipient, archive, `file://${place}`]);
  expect((await ship.exit).code, ship.stderr).toBe(0);
  await using store = await openFileStore(place);
  const below = join(archive, 'backups', record.id);
  for (const name of readdirSync(below)) {
    const key = backupKey(systemPrefix(record.systemId), record.id, name);
    await put(store, key, readFileSync(join(below, name)));
  }
  rmSync(archive, { recursive: true });
  handOver(root);
  const without = await walkeep('restore', '-n', `file://${place}`, join(primary.dir, 'none'));
  expect(without.code).toBe(1);
  expect(without.stderr).toMatch(/encrypted/);
  const server = await restored(primary, () => ['--identity', identity, `file://${place}`]);
  await recovered(server);
  expect(await digestOf(server)).toBe(digest);
});

test('on two timelines of one archive, and as a standby', async () => {
  const primary = keep(await PostgresServer.create({ major: 16 }));
  const archive = archiveDirectory();
  const first = keep(receive(archive, primary.conninfo(), []));
  await first.waitForOutput(/starting log streaming/);
  await workload(primary, { transactions: 4 });
  await backupOf(primary, archive, { compression: { method: 'gzip', level: 1 } });
  await workload(primary, { transactions: 3, switchEvery: 2 });
  const then = await digestOf(primary);
  const [{ now } = { now: '' }] = await primary.sql<{ now: string }>(
    'SELECT clock_timestamp()::text AS now',
  );
  await workload(primary, { transactions: 3, switchEvery: 2 });
  const old = await digestOf(primary);
  await waitEqual(archive, primary);
  await primary.kill9();
  await first.stop();
  handOver(archive);

  const second = await restored(primary, () => ['--to', now, '--action', 'promote', archive]);
  await recovered(second);
  expect(await digestOf(second)).toBe(then);
  const receiver = keep(receive(archive, second.conninfo(), []));
  await receiver.waitForOutput(/starting log streaming/);
  await workload(second, { transactions: 4, switchEvery: 2 });
  const newest = await digestOf(second);
  await waitEqual(archive, second, { timeline: 2, others: [primary] }).catch(() => {});
  await waitFor(() => existsSync(join(archive, '00000002.history')), {
    what: 'timeline 2 in the archive',
  });
  handOver(archive);

  // While the promoted one runs: a standby from the same archive, which then follows it.
  const conninfo = second.conninfo({ application_name: 'restored' });
  const standby = await restored(second, () => [
    ...['--standby', '--primary-conninfo', conninfo, archive],
  ]);
  await workload(second, { transactions: 1 });
  const now2 = await digestOf(second);
  await waitFor(async () => (await digestOf(standby)) === now2, { what: 'the standby to follow' });
  expect((await standby.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r).toBe(true);
  expect(newest).not.toBe(then);
  await standby.destroy();

  await waitEqual(archive, second, { timeline: 2, others: [primary] }).catch(() => {});
  await second.kill9();
  await receiver.stop();
  handOver(archive);
  const third = await restored(primary, () => [archive]);
  await recovered(third);
  expect(await digestOf(third)).toBe(now2);
  const fourth = await restored(primary, () => ['--timeline', '1', archive]);
  await recovered(fourth);
  expect(await digestOf(fourth)).toBe(old);
});
