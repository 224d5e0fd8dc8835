import { chmodSync, chownSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { type CliOptions, runCli } from '../support/cli.js';
import { PostgresServer } from '../support/postgres.js';
import { writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const isRoot = process.getuid?.() === 0;

/** As a unit with UMask=0077 runs it. */
const STRICT = { nodeArgs: ['--import', 'data:text/javascript,process.umask(0o077)'] };
const GROUP = 65_510;
const RECEIVER: CliOptions = { ...STRICT, uid: 65_501, gid: GROUP };
const SERVER: CliOptions = { ...STRICT, uid: 65_502, gid: GROUP };
const STRANGER: CliOptions = { ...STRICT, uid: 65_503, gid: 65_503 };

async function as(user: CliOptions, ...args: string[]) {
  const run = keep(runCli(args, user));
  const { code } = await run.exit;
  return { code, stdout: run.stdout, stderr: run.stderr };
}

/** Everything below a directory, with the mode that it has. */
function modesOf(directory: string, under = ''): [string, string][] {
  return readdirSync(join(directory, under), { withFileTypes: true }).flatMap((entry) => {
    const path = join(under, entry.name);
    const mode = (lstatSync(join(directory, path)).mode & 0o777).toString(8);
    const below = entry.isDirectory() ? modesOf(directory, path) : [];
    return [[path, mode] as [string, string], ...below];
  });
}

function ownedBy(user: CliOptions, label: string, mode: number): string {
  const directory = scratchDir(label);
  chmodSync(join(directory, '..'), 0o755);
  chownSync(directory, user.uid!, user.gid!);
  chmodSync(directory, mode);
  return directory;
}

test.skipIf(!isRoot)(
  'what one user receives, another of its group restores (needs root)',
  async () => {
    const server = keep(await PostgresServer.create({ major: 18 }));
    const conninfo = server.conninfo();
    const directory = ownedBy(RECEIVER, 'wal', 0o750);
    const receive = (...options: string[]) =>
      keep(runCli(['receive', '-v', '-D', directory, '-d', conninfo, ...options], RECEIVER));

    // As it is without: what was begun so is gone on with.
    const before = receive();
    await before.waitForOutput(/starting log streaming/);
    await writeWal(server, 10_000);
    await waitFor(() => readdirSync(directory).some((name) => name.endsWith('.partial')), {
      what: 'a partial',
    });
    expect(await before.stop()).toMatchObject({ code: 0 });
    const own = modesOf(directory).filter(([name]) => name !== '.walkeep-lock');
    expect(own.map(([, mode]) => mode)).toEqual(own.map(() => '600'));

    const run = receive('--allow-group-access', '--compress=gzip');
    await run.waitForOutput(/starting log streaming/);
    const segment = await server.switchWal();
    await waitFor(() => readdirSync(directory).includes(`${segment}.gz`), { what: 'the segment' });
    const backup = await as(RECEIVER, 'backup', directory, '-d', conninfo);
    expect(backup).toMatchObject({ code: 0 });
    await writeWal(server, 100_000);
    const last = await server.switchWal();
    await waitFor(() => readdirSync(directory).includes(`${last}.gz`), {
      what: 'the last segment',
    });
    expect(await as(RECEIVER, 'index', directory)).toMatchObject({ code: 0 });
    // Also while it runs, with what is under way.
    const closed = modesOf(directory)
      // They tell the receiver's own user, and nobody else, that it lives.
      .filter(([name]) => !name.startsWith('.walkeep-lock'))
      .filter(([, mode]) => mode !== '640' && mode !== '750');
    expect(closed).toEqual([]);

    const out = ownedBy(SERVER, 'out', 0o700);
    const target = join(out, 'restored');
    expect(await as(SERVER, 'fetch', directory, segment, target)).toMatchObject({ code: 0 });
    expect(readFileSync(target).length).toBe(server.segmentSize);
    expect(await as(SERVER, 'fetch', directory, '00000002.history', target)).toMatchObject({
      code: 1,
    });
    for (const command of ['list', 'verify', 'backups', 'find']) {
      const { code, stderr } = await as(SERVER, command, directory);
      expect([command, code, stderr]).toEqual([command, 0, stderr]);
    }
    const restored = await as(SERVER, 'restore', directory, join(out, 'data'));
    expect([restored.code, restored.stderr]).toEqual([0, restored.stderr]);
    expect(await as(STRANGER, 'fetch', directory, segment, target)).toMatchObject({ code: 205 });
    expect(await run.stop()).toMatchObject({ code: 0 });
    // The ledger says so to who stores here later, whatever the server's files are.
    await writeWal(server, 10_000);
    const next = await server.switchWal();
    const source = join(server.dataDir, 'pg_wal', next);
    expect(lstatSync(source).mode & 0o777).toBe(0o600);
    expect(await as({}, 'push', directory, source)).toMatchObject({ code: 0 });
    expect(lstatSync(join(directory, next)).mode & 0o777).toBe(0o640);
  },
);
