import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { Lsn } from '../../src/lsn.js';
import { requireFetch } from '../../src/restore/runnable.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { copyPackage } from '../support/package-copy.js';
import { handOver, installedCommand, walkeep } from '../support/restoring.js';
import { packageRoot, scratchDir, serverUser } from '../support/scratch.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';
import { waitFor } from '../support/wait.js';
import { archiveOf, SEGMENT, SYSTEM_ID } from '../support/wal-archive.js';
import { loadFixture } from '../wal/fixtures.js';
import { BASE } from './restorable.js';

const { start } = loadFixture('switch');
const isRoot = serverUser.uid !== undefined;
const hasSetpriv = spawnSync('setpriv', ['--version']).status === 0;
const tried = () =>
  [tmpdir(), '/tmp'].flatMap((dir) => readdirSync(dir).filter((n) => /^walkeep-restore-/.test(n)));

async function archive() {
  const { dir } = archiveOf('switch');
  chmodSync(dirname(dir), 0o755);
  const point = { timeline: 1, time: '2026-11-20T21:58:00.000Z' };
  await storeBackup({
    store: await openFileStore(dir, { init: true }),
    tars: [{ name: 'base.tar', bytes: tarOf(BASE) }],
    record: {
      ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT, serverVersion: 180004 },
      start: { ...point, lsn: (start + 0x28n) as Lsn },
      end: { ...point, lsn: (start + 0x80n) as Lsn },
    },
  });
  const data = join(scratchDir('target', { forServer: true }), 'data');
  const owner = isRoot ? ['--owner', `${serverUser.uid}:${serverUser.gid}`] : [];
  return { dir, data, args: ['restore', ...owner, dir, data] };
}

describe('the restore_command', () => {
  test('is tried by fetching WAL, which leaves nothing', async () => {
    const { dir, args } = await archive();
    handOver(dir);
    const before = tried();
    for (const dry of [['-n'], []]) {
      const { code, stderr } = await walkeep([...args, ...dry]);
      expect(code, stderr).toBe(0);
    }
    // Those of other restores, which may run beside, go as well.
    const more = tried().filter((name) => !before.includes(name));
    await waitFor(() => !more.some((name) => tried().includes(name)), {
      what: 'nothing to be left',
    });
  });

  test.skipIf(!isRoot)(
    'that may not read the archive is refused before anything (needs root)',
    async () => {
      const { dir, data, args } = await archive();
      chmodSync(dir, 0o700);
      for (const dry of [['-n'], []]) {
        const { code, stderr } = await walkeep([...args, ...dry]);
        expect(code, stderr).toBe(3);
        expect(stderr).toMatch(/could not fetch "0{7}1[0-9A-F]{16}" with its restore_command/);
        expect(stderr).toMatch(
          /detail: PATH=\S+ \S+ fetch --prefetch 4 .* %f %p: .*ermission denied/,
        );
        expect(stderr).toMatch(/hint: uid \d+ must be able/);
        expect(existsSync(data)).toBe(false);
      }
      expect((await walkeep([...args, '--no-try-fetch'])).code).toBe(0);
    },
  );

  test('has the environment of the server that runs it', async () => {
    const { dir } = await archive();
    handOver(dir);
    const owner = isRoot
      ? { uid: serverUser.uid as number, gid: serverUser.gid as number }
      : undefined;
    const command = `test "$SEEN" = it && test -z "$HOME" && ${installedCommand()} fetch ${dir} %f %p`;
    const names = ['000000010000000000000006'];
    const tried = { command, owner, names, included: false };
    const environment = { SEEN: 'it', PATH: process.env.PATH };
    await requireFetch({ ...tried, environment });
    await expect(requireFetch(tried)).rejects.toThrow(/could not fetch/);
  });

  test.skipIf(!isRoot || !hasSetpriv)('has no groups of root', () => {
    const out = join(scratchDir('groups', { forServer: true }), 'out');
    const module = pathToFileURL(join(packageRoot, 'dist/restore/runnable.js')).href;
    const { uid, gid } = serverUser;
    const options = {
      command: `id -G > ${out}`,
      owner: { uid, gid },
      names: ['x'],
      included: false,
    };
    const script = `import(${JSON.stringify(module)}).then(
      ({ requireFetch }) => requireFetch(${JSON.stringify(options)}))`;
    execFileSync('setpriv', ['--groups', `0,4,${gid}`, process.execPath, '-e', script]);
    expect(readFileSync(out, 'utf8').trim()).toBe(String(gid));
  });

  test('that cannot be run is refused', async () => {
    const { dir, data, args } = await archive();
    handOver(dir);
    const script = join(copyPackage(), 'bin', 'walkeep');
    chmodSync(script, 0o644);
    expect(script).not.toBe(installedCommand());
    const { code, stderr } = await walkeep(args, {}, script);
    expect(code, stderr).toBe(3);
    expect(stderr).toMatch(/ermission denied/);
    expect(existsSync(data)).toBe(false);
  });
});
