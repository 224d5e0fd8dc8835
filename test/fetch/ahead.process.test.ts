import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test, vi } from 'vitest';
import { readAhead } from '../../src/fetch/ahead.js';
import { runCli } from '../support/cli.js';
import { RandomKills } from '../support/kill-times.js';
import { copyPackage } from '../support/package-copy.js';
import { delay, waitFor } from '../support/wait.js';
import {
  archiveOf,
  flip,
  SEGMENT,
  SYSTEM_ID,
  segmentOf,
  writeControl,
  writeLedger,
} from '../support/wal-archive.js';
import { makeWal } from '../wal/synthetic.js';

vi.setConfig({ testTimeout: 60_000 });

const seg = (n: number, timeline = 1) =>
  `0000000${timeline}00000000${n.toString(16).toUpperCase().padStart(8, '0')}`;

/** Runs the built command in the data directory, as PostgreSQL does. */
async function fetch(archive: { dir: string; data: string }, args: string[]) {
  const run = runCli(['fetch', ...args], { cwd: archive.data });
  const { code, signal } = await run.exit;
  return { code, signal, stdout: run.stdout, stderr: run.stderr };
}

const TARGET = 'pg_wal/RECOVERYXLOG';

describe('exit codes of the command', () => {
  test('each cause has its own', async () => {
    const archive = archiveOf('switch');
    const { dir } = archive;
    const is = async (code: number, text: RegExp, ...args: string[]) => {
      const result = await fetch(archive, args);
      expect(result).toMatchObject({ code, signal: null, stdout: '' });
      expect(result.stderr).toMatch(text);
    };
    await is(0, /^$/, dir, seg(6), TARGET);
    await is(0, /good up to 0\/C000D8/, dir, seg(12), TARGET);
    await is(1, /^$/, dir, seg(13), TARGET);
    await is(1, /^$/, dir, '00000002.history', TARGET);
    await is(205, /could not open directory/, join(dir, 'x'), seg(6), TARGET);
    rmSync(join(dir, seg(8)));
    await is(203, /lacks/, dir, seg(8), TARGET);
    flip(join(dir, seg(7)), 200);
    await is(201, /is damaged/, dir, seg(7), TARGET);
    await is(0, /^$/, '--no-verify', dir, seg(7), TARGET);
    await is(204, /could not/, dir, seg(6), 'nowhere/x');
    writeControl(archive.data, 1n);
    await is(202, /another cluster/, dir, seg(6), TARGET);
  });

  test.each([
    [[]],
    [['dir']],
    [['dir', seg(6)]],
    [['dir', seg(6), 'x', 'y']],
    [['dir', 'no-name', 'x']],
    [['--no-such-option']],
    [['--wait', '301', 'dir', seg(6), 'x']],
    [['--wait', 'x', 'dir', seg(6), 'x']],
    [['--prefetch', '65', 'dir', seg(6), 'x']],
  ])('wrong arguments %j', async (args) => {
    const { code, stderr } = await fetch(archiveOf('switch'), args);
    expect(code).toBe(args[0] === 'dir' && args.length === 3 && args[1] !== 'no-name' ? 205 : 200);
    expect(stderr).not.toBe('');
  });

  test('help and version', async () => {
    const help = await fetch(archiveOf('switch'), ['--help']);
    expect(help).toMatchObject({ code: 0, stderr: '' });
    expect(help.stdout).toContain('--prefetch');
  });

  test('in a standby an outage is "not there", damage is not', async () => {
    const archive = archiveOf('switch');
    writeFileSync(join(archive.data, 'standby.signal'), '');
    flip(join(archive.dir, seg(7)), 200);
    expect(await fetch(archive, [archive.dir, seg(7), TARGET])).toMatchObject({ code: 201 });
    renameSync(archive.dir, `${archive.dir}.away`);
    const { code, stderr } = await fetch(archive, [archive.dir, seg(6), TARGET]);
    expect(code).toBe(1);
    expect(stderr).toContain('could not open directory');
  });

  test('whatever part of the program is missing or broken', async () => {
    const archive = archiveOf('switch');
    await writeLedger(archive.dir, [[1, '0/600000']]);
    const root = copyPackage();
    const bin = join(root, 'bin', 'walkeep');
    const args = [bin, 'fetch', archive.dir, seg(6), TARGET];
    const run = () => spawnSync(process.execPath, args, { cwd: archive.data, encoding: 'utf8' });
    expect(run()).toMatchObject({ status: 0, stderr: '' });
    rmSync(join(archive.data, TARGET));
    const path = join(root, 'dist', 'fetch.cjs');
    const text = readFileSync(path, 'utf8');
    const half = text.slice(0, text.length / 2);
    for (const broken of [undefined, half, 'const x = ;', 'throw new Error("x");', '']) {
      if (broken === undefined) rmSync(path);
      else writeFileSync(path, broken);
      const { status, stderr } = run();
      expect([broken, status]).toEqual([broken, 127]);
      expect(stderr).toMatch(/^walkeep: error: .*\n$/);
      expect(readdirSync(join(archive.data, 'pg_wal'))).toEqual([]);
    }
    rmSync(join(root, 'dist'), { recursive: true });
    expect(run().status).toBe(127);
  });

  test('out of memory', () => {
    const archive = archiveOf('switch');
    const bin = join(copyPackage(), 'bin', 'walkeep');
    const args = ['--max-old-space-size=1', '--max-semi-space-size=1', bin, 'fetch'];
    const { status } = spawnSync(process.execPath, [...args, archive.dir, seg(6), TARGET], {
      cwd: archive.data,
    });
    // Killed by a signal, or enough after all.
    expect(status === null || status === 0 || status > 125).toBe(true);
  });

  test.each(['SIGTERM', 'SIGINT'] as const)('%s ends it as that signal does', async (signal) => {
    const archive = archiveOf('switch');
    const run = runCli(['fetch', '--wait=60', archive.dir, seg(13), TARGET], { cwd: archive.data });
    await delay(300);
    expect(run.running).toBe(true);
    expect(await run.stop(signal)).toEqual({ code: null, signal });
  });

  test('--wait finds what comes', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, seg(11));
    renameSync(path, `${archive.data}/away`);
    rmSync(join(archive.dir, `${seg(12)}.partial`));
    const run = runCli(['fetch', '--wait=60', archive.dir, seg(11), TARGET], { cwd: archive.data });
    await delay(300);
    renameSync(`${archive.data}/away`, path);
    expect(await run.exit).toEqual({ code: 0, signal: null });
  });
});

describe('kill -9', () => {
  test.each(['plain', 'gzip', 'partial'])(
    '%s: only the right file ever has the name',
    async (how) => {
      const archive = archiveOf('switch');
      const path = join(archive.dir, seg(6));
      const content = segmentOf('switch', seg(6));
      if (how !== 'plain') rmSync(path);
      if (how === 'gzip') writeFileSync(`${path}.gz`, gzipSync(content));
      if (how === 'partial') writeFileSync(`${path}.partial`, content);
      const target = join(archive.data, TARGET);
      const kills = new RandomKills();
      for (let i = 0; i < 16 || kills.killed === 0; i++) {
        rmSync(target, { force: true });
        const run = runCli(['fetch', archive.dir, seg(6), TARGET], { cwd: archive.data });
        // At any moment of it: the first half is node's start.
        const { code } = await kills.kill(run);
        if (code === 0) expect(existsSync(target)).toBe(true);
        if (existsSync(target)) expect(readFileSync(target).equals(content)).toBe(true);
      }
      expect(await fetch(archive, [archive.dir, seg(6), TARGET])).toMatchObject({ code: 0 });
      expect(readdirSync(join(archive.data, 'pg_wal'))).toEqual(['RECOVERYXLOG']);
    },
  );
});

describe('prefetch', () => {
  /** An archive of 12 segments, as a server in recovery sees it. */
  function longArchive() {
    const archive = archiveOf('switch');
    for (const name of readdirSync(archive.dir)) rmSync(join(archive.dir, name));
    const records = Array.from({ length: 1600 }, (_, i) => ({ body: Buffer.alloc(8000, i) }));
    const { bytes } = makeWal(records, { systemId: SYSTEM_ID });
    const content = (n: number) => bytes.subarray(n * SEGMENT, (n + 1) * SEGMENT);
    for (let n = 0; n < 12; n++) writeFileSync(join(archive.dir, name(n)), content(n));
    for (const file of ['postmaster.pid', 'recovery.signal']) {
      writeFileSync(join(archive.data, file), '');
    }
    writeControl(archive.data, SYSTEM_ID);
    return { ...archive, content };
  }
  const name = (n: number) => seg(0x50 + n);
  const spooled = (spool: string) =>
    existsSync(spool)
      ? readdirSync(spool)
          .filter((f) => /^[0-9A-F]{24}-/.test(f))
          .sort()
      : [];
  const names = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => name(from + i));

  test('serves what was read ahead, never what is stale, and leaves nothing', async () => {
    const archive = longArchive();
    const spool = join(archive.data, 'pg_wal', '.walkeep-spool');
    const target = join(archive.data, TARGET);
    const get = async (n: number) => {
      const args = ['--prefetch=3', archive.dir, name(n), TARGET];
      expect(await fetch(archive, args)).toMatchObject({ code: 0, stderr: '' });
      return readFileSync(target);
    };
    const holds = (from: number, to: number) =>
      waitFor(
        () =>
          spooled(spool)
            .map((f) => f.slice(0, 24))
            .join() === names(from, to).join(),
        { what: `segments ${from} to ${to} in the spool` },
      );
    expect((await get(0)).equals(archive.content(0))).toBe(true);
    await holds(1, 4);
    const { ino } = statSync(join(spool, spooled(spool)[0]!));
    expect((await get(1)).equals(archive.content(1))).toBe(true);
    expect(statSync(target).ino).toBe(ino);
    await holds(2, 5);
    // Back, and far ahead.
    expect((await get(0)).equals(archive.content(0))).toBe(true);
    await holds(1, 4);
    expect((await get(6)).equals(archive.content(6))).toBe(true);
    await holds(7, 10);
    // Replaced by a compressed copy, and then by something bad.
    const path = join(archive.dir, name(7));
    writeFileSync(`${path}.gz`, gzipSync(archive.content(7)));
    rmSync(path);
    expect((await get(7)).equals(archive.content(7))).toBe(true);
    await holds(8, 11);
    flip(join(archive.dir, name(8)), 1000);
    const bad = await fetch(archive, ['--prefetch=3', archive.dir, name(8), TARGET]);
    expect(bad.code).toBe(201);
    // Of another archive there is nothing in it, nor for another cluster.
    writeControl(archive.data, 4711n);
    const other = await fetch(archive, ['--prefetch=3', archive.dir, name(9), TARGET]);
    expect(other.code).toBe(202);
    writeControl(archive.data, SYSTEM_ID);
    // The end of the archive.
    expect((await get(11)).equals(archive.content(11))).toBe(true);
    await holds(12, 12);
    // Recovery has ended.
    rmSync(join(archive.data, 'recovery.signal'));
    await waitFor(() => !existsSync(spool), { what: 'the spool to be removed' });
  });

  test('a spool elsewhere; a killed reader is replaced; partials are not read ahead', async () => {
    const archive = longArchive();
    renameSync(join(archive.dir, name(2)), join(archive.dir, `${name(2)}.partial`));
    for (const n of names(3, 12)) rmSync(join(archive.dir, n));
    const spool = join(archive.data, 'spool');
    mkdirSync(spool);
    writeFileSync(join(spool, `${name(9)}-old`), 'of a reader that was killed');
    writeFileSync(join(spool, 'precious'), 'of somebody else');
    const args = ['--prefetch=4', '--spool', spool, archive.dir];
    expect(await fetch(archive, [...args, name(0), TARGET])).toMatchObject({ code: 0 });
    await waitFor(() => spooled(spool).length === 1 && spooled(spool)[0]!.startsWith(name(1)), {
      what: 'one segment in the spool',
    });
    const pid = Number(readFileSync(join(spool, 'alive'), 'utf8').split(' ')[0]);
    process.kill(pid, 'SIGKILL');
    // Its last sign of life was long ago.
    utimesSync(join(spool, 'alive'), 0, 0);
    expect(await fetch(archive, [...args, name(0), TARGET])).toMatchObject({ code: 0 });
    const next = await waitFor(() => {
      const now = Number(readFileSync(join(spool, 'alive'), 'utf8').split(' ')[0]);
      return now !== pid && now;
    });
    const partial = await fetch(archive, [...args, name(2), TARGET]);
    expect(partial.stderr).toContain('partial');
    expect(partial.code).toBe(0);
    expect(next).toBeGreaterThan(0);
    rmSync(join(archive.data, 'postmaster.pid'));
    await waitFor(() => readdirSync(spool).join() === 'precious', {
      what: 'the spool to be empty',
    });
  });

  test('the second of two that start at once does not leave the spool of the first', async () => {
    const spool = join(longArchive().data, 'spool');
    mkdirSync(spool);
    // The first has just removed its order: recovery is over.
    await readAhead(spool);
    expect(existsSync(spool)).toBe(false);
    // And if the first was faster still, there is nothing to write in.
    await expect(readAhead(spool)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('for pg_rewind nothing is read ahead', async () => {
    const archive = longArchive();
    const args = ['--prefetch=4', archive.dir, name(0), `pg_wal/${name(0)}`];
    expect(await fetch(archive, args)).toMatchObject({ code: 0, stderr: '' });
    expect(readdirSync(join(archive.data, 'pg_wal'))).toEqual([name(0)]);
  });

  test('two at once do no harm', async () => {
    const archive = longArchive();
    const spool = join(archive.data, 'pg_wal', '.walkeep-spool');
    const bin = join(copyPackage(), 'bin', 'walkeep');
    for (const i of [0, 1, 2, 3]) mkdirSync(join(archive.data, 'pg_wal', `x${i}`));
    const options = ['--prefetch=2', `--spool=${spool}`];
    const codes = await Promise.all(
      [0, 1, 0, 2].map(
        (n, i) =>
          new Promise((resolve) => {
            const args = [
              bin,
              'fetch',
              ...options,
              archive.dir,
              name(n),
              `pg_wal/x${i}/RECOVERYXLOG`,
            ];
            spawn(process.execPath, args, { cwd: archive.data, stdio: 'ignore' }).on(
              'exit',
              resolve,
            );
          }),
      ),
    );
    expect(codes).toEqual([0, 0, 0, 0]);
    for (const [i, n] of [0, 1, 0, 2].entries()) {
      const served = readFileSync(join(archive.data, 'pg_wal', `x${i}`, 'RECOVERYXLOG'));
      expect(served.equals(archive.content(n))).toBe(true);
    }
    rmSync(join(archive.data, 'recovery.signal'));
    await waitFor(() => !existsSync(spool), { what: 'the spool to be removed' });
  });
});
