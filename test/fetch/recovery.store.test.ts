import { execFileSync } from 'node:child_process';
import { cpSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { environmentOf } from '../store/s3/stores.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { copyPackage } from '../support/package-copy.js';
import { type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { scratchDir, serverUser } from '../support/scratch.js';
import { Sshd, sshMissing } from '../support/sshd.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

const keep = disposer();
const rgw = sharedRgw();
const AHEAD = '--prefetch=4';

/** Where WAL is shipped to, and how a server that recovers reaches it. */
interface Target {
  place: string;
  /** Of who ships. */
  env: Record<string, string>;
  /** Of restore_command, which runs as the servers' user. */
  serverEnv: Record<string, string>;
  /** After shipping. */
  handOver?(): void;
}

function giveAll(path: string): void {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, path]);
}

async function directory(): Promise<Target> {
  const root = scratchDir('store');
  const place = join(root, 'archive');
  expect((await runCli(['store', '--init', place]).exit).code).toBe(0);
  return { place, env: {}, serverEnv: {}, handOver: () => giveAll(root) };
}

async function bucket(secure: boolean): Promise<Target> {
  const name = await rgw!.createBucket();
  const { http, https, ca: authority } = rgw!.facts;
  const env = environmentOf(rgw!.owner);
  if (!secure) return { place: `s3://${name}/shop?endpoint=${http}`, env, serverEnv: env };
  const root = scratchDir('ca');
  const ca = join(root, 'ca.pem');
  cpSync(authority, ca);
  giveAll(root);
  return { place: `s3://${name}/shop?endpoint=${https}&ca=${ca}`, env, serverEnv: env };
}

let sshd: Sshd | undefined;
async function otherHost(): Promise<Target> {
  sshd ??= await Sshd.start();
  const path = join(scratchDir('store'), 'archive');
  expect((await runCli(['store', '--init', path]).exit).code).toBe(0);
  // A key of the servers' user, whose it must be.
  const root = scratchDir('ssh');
  const [key, knownHosts] = [join(root, 'key'), join(root, 'known_hosts')];
  cpSync(sshd.addKey(), key);
  cpSync(sshd.knownHosts, knownHosts);
  giveAll(root);
  const env = sshd.env(sshd.addKey()) as Record<string, string>;
  const { WALKEEP_RSH, WALKEEP_REMOTE_COMMAND } = sshd.env(key, { knownHosts });
  const serverEnv = { WALKEEP_RSH, WALKEEP_REMOTE_COMMAND } as Record<string, string>;
  return { place: sshd.place(path), env, serverEnv };
}
afterAll(() => sshd?.[Symbol.asyncDispose]());

interface Way {
  where: string;
  target: () => Promise<Target>;
  missing?: boolean;
  encrypted?: boolean;
  options?: string;
}
const noRgw = !rgw;
const noSsh = sshMissing !== undefined;
/** Each place with what is encrypted and what is not, and read one by one and ahead. */
const WAYS: readonly (readonly [Major, readonly Way[]])[] = [
  [
    14,
    [
      { where: 'a directory', target: directory },
      { where: 'an object store', target: () => bucket(false), missing: noRgw, options: AHEAD },
      {
        where: 'another host',
        target: otherHost,
        missing: noSsh,
        encrypted: true,
        options: AHEAD,
      },
    ],
  ],
  [
    18,
    [
      { where: 'a directory', target: directory, encrypted: true, options: AHEAD },
      {
        where: 'an object store over TLS',
        target: () => bucket(true),
        missing: noRgw,
        encrypted: true,
      },
      { where: 'another host', target: otherHost, missing: noSsh },
    ],
  ],
];

/** What a server has of the workload, in a form that shows every difference. */
async function rows(server: PostgresServer): Promise<string> {
  const [row] = await server.sql<{ digest: string }>(
    `SELECT (SELECT count(*) || ' ' || coalesce(max(id), 0) FROM committed) || ' ' ||
       (SELECT md5(coalesce(string_agg(w::text, '' ORDER BY id, n), '')) FROM work w) AS digest`,
  );
  return row?.digest as string;
}

const shellWord = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

describe.each(WAYS)('PostgreSQL %i', (major, ways) => {
  let primary: PostgresServer;
  let archive: string;
  let backup: string;
  /** What was there at the end, and at a moment before. */
  let now: string;
  let then: { time: string; rows: string };
  const packageCopy = copyPackage();

  beforeAll(async () => {
    primary = await PostgresServer.create({ major, archive: true });
    archive = archiveDirectory();
    await using run = receive(archive, primary.conninfo(), []);
    await run.waitForOutput(/starting log streaming/);
    await workload(primary, { transactions: 2 });
    backup = await primary.baseBackup();
    await workload(primary, { transactions: 12, switchEvery: 5, messageBytes: 400_000 });
    const [moment] = await primary.sql<{ time: string }>('SELECT clock_timestamp()::text AS time');
    then = { time: moment!.time, rows: await rows(primary) };
    await workload(primary, { transactions: 6, switchEvery: 4, messageBytes: 300_000 });
    // Without a switch: the last commits are in a partial file only.
    await workload(primary, { transactions: 3 });
    await waitEqual(archive, primary);
    now = await rows(primary);
    await primary.kill9();
    await run.stop();
  });
  afterAll(() => primary?.destroy());

  /** Recovers to the end of what `settings` ask for; gives what is there then. */
  async function recover(restoreCommand: string, settings: Record<string, string>) {
    const targetSettings = { recovery_target_action: 'promote', ...settings };
    const server = keep(await primary.recoverFrom({ backup, restoreCommand, targetSettings }));
    await waitFor(
      async () => (await server.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
      { what: 'the end of recovery' },
    );
    const found = await rows(server);
    await server.destroy();
    return found;
  }

  for (const { where, target, missing = false, encrypted = false, options = '' } of ways) {
    const how = encrypted ? 'encrypted' : 'plain';
    it.skipIf(missing)(`recovers every commit, and a moment, from ${where}, ${how}`, async () => {
      const { place, env, serverEnv, handOver } = await target();
      const root = scratchDir('identity');
      const identity = join(root, 'key');
      const secret = await generateX25519Identity();
      writeFileSync(identity, secret, { mode: 0o600 });
      giveAll(root);
      const recipient = await identityToRecipient(secret);
      const encrypt = encrypted ? ['--recipient', recipient] : [];
      const state = ['--state', scratchDir('state')];
      const ship = keep(runCli(['ship', '--once', ...state, ...encrypt, archive, place], { env }));
      expect((await ship.exit).code, ship.stderr).toBe(0);
      handOver?.();

      const command = [
        ...Object.entries(serverEnv).map(([name, value]) => `${name}=${shellWord(value)}`),
        `PATH=${dirname(process.execPath)}:$PATH`,
        `${join(packageCopy, 'bin', 'walkeep')} fetch ${options}`,
        encrypted ? `--identity ${identity}` : '',
        `${shellWord(place)} %f %p`,
      ].join(' ');
      expect(await recover(command, {})).toBe(now);
      expect(await recover(command, { recovery_target_time: then.time })).toBe(then.rows);
    });
  }
});
