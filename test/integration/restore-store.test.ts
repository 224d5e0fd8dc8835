import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, test, vi } from 'vitest';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { bytesOf } from '../../src/store/content.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { copyPackage } from '../support/package-copy.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { scratchDir, serverUser } from '../support/scratch.js';
import { put } from '../support/store-archive.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

vi.setConfig({ testTimeout: 180_000 });

const keep = disposer();

async function rows(server: PostgresServer): Promise<string> {
  const [row] = await server.sql<{ digest: string }>(
    `SELECT (SELECT count(*) || ' ' || coalesce(max(id), 0) FROM committed) || ' ' ||
       (SELECT md5(coalesce(string_agg(w::text, '' ORDER BY id, n), '')) FROM work w) AS digest`,
  );
  return row?.digest as string;
}

/** Puts what is encrypted in the place of all WAL of a store. */
async function encrypt(place: string, recipient: string): Promise<void> {
  const recipients = await parseRecipients([recipient]);
  await using store = await openFileStore(place);
  const keys: string[] = [];
  for await (const { key } of store.list('systems/')) keys.push(key);
  for (const key of keys.filter((name) => /\/(wal|partial)\//.test(name))) {
    const got = await store.get(key);
    const bytes = await encodeBytes(await bytesOf(got!.body), { recipients });
    await store.remove([key]);
    await put(store, key, bytes);
  }
}

/** How each major's WAL is stored, and with what it is read. */
const WAYS = [
  { major: 14, encrypted: false, options: '' },
  { major: 18, encrypted: true, options: '--prefetch=4' },
] as const;

test.for(WAYS)(
  'PostgreSQL $major recovers every commit from a store (encrypted: $encrypted)',
  async ({ major, encrypted, options }) => {
    const primary = keep(await PostgresServer.create({ major, archive: true }));
    const archive = archiveDirectory();
    const run = keep(receive(archive, primary.conninfo(), []));
    await run.waitForOutput(/starting log streaming/);
    await workload(primary, { transactions: 2 });
    const backup = await primary.baseBackup();
    await workload(primary, { transactions: 12, switchEvery: 5, messageBytes: 400_000 });
    const [moment] = await primary.sql<{ time: string }>('SELECT clock_timestamp()::text AS time');
    const then = await rows(primary);
    await workload(primary, { transactions: 6, switchEvery: 4, messageBytes: 300_000 });
    // Without a switch: the last commits are in a partial file only.
    await workload(primary, { transactions: 3 });
    await waitEqual(archive, primary);
    const now = await rows(primary);
    await primary.kill9();
    await run.stop();

    const root = scratchDir('store');
    const place = join(root, 'archive');
    const identity = join(root, 'identity');
    const secret = await generateX25519Identity();
    writeFileSync(identity, secret);
    expect((await runCli(['store', '--init', place]).exit).code).toBe(0);
    const ship = runCli(['ship', '--once', archive, `file://${place}`]);
    expect((await ship.exit).code, ship.stderr).toBe(0);
    if (encrypted) await encrypt(place, await identityToRecipient(secret));
    const { uid, gid } = serverUser;
    if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, root]);

    const keys = encrypted ? `--identity ${identity}` : '';
    const bin = join(copyPackage(), 'bin', 'walkeep');
    const path = `PATH=${dirname(process.execPath)}:$PATH`;
    const restoreCommand = `${path} ${bin} fetch ${options} ${keys} ${place} %f %p`;
    const recover = async (settings: Record<string, string>): Promise<PostgresServer> => {
      const targetSettings = { recovery_target_action: 'promote', ...settings };
      const server = keep(await primary.recoverFrom({ backup, restoreCommand, targetSettings }));
      await waitFor(
        async () => (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
        {
          what: 'the end of recovery',
        },
      );
      return server;
    };
    const latest = await recover({});
    expect(await rows(latest)).toBe(now);
    await latest.destroy();
    const past = await recover({ recovery_target_time: moment?.time as string });
    expect(await rows(past)).toBe(then);
  },
);
