import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { runCli } from '../support/cli.js';
import { scratchDir } from '../support/scratch.js';
import { sshdOfSuite, sshMissing } from '../support/sshd.js';
import {
  archiveOf,
  SYSTEM_ID,
  segmentOf,
  writeControl,
  writeLedger,
} from '../support/wal-archive.js';

const seg = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, '0')}`;

describe.skipIf(sshMissing)("a receiver's own directory on another host", () => {
  const own = sshdOfSuite();

  async function command(args: string[], cwd?: string, more: Record<string, string> = {}) {
    const run = runCli(args, { env: { ...own.env, ...more }, ...(cwd && { cwd }) });
    const { code } = await run.exit;
    return { code, stdout: run.stdout, stderr: run.stderr };
  }

  /** As restore_command runs it. */
  function setUp(fixture = 'switch') {
    const flat = archiveOf(fixture);
    writeControl(flat.data, SYSTEM_ID);
    const place = own.sshd.place(flat.dir);
    const fetch = async (name: string, from = place, more: Record<string, string> = {}) =>
      (await command(['fetch', from, name, 'pg_wal/RECOVERYXLOG'], flat.data, more)).code;
    return { ...flat, place, fetch };
  }

  test('is restored from: segments in every form, histories, and what there is of the last', async () => {
    const { dir, place, target, fetch, data } = setUp();
    const path = (name: string) => join(dir, name);
    writeFileSync(path(`${seg(7)}.gz`), gzipSync(readFileSync(path(seg(7)))));
    rmSync(path(seg(7)));
    execFileSync('zstd', ['-q', '--rm', path(seg(8))]);
    execFileSync('lz4', ['-q', '--rm', path(seg(9)), path(`${seg(9)}.lz4`)]);
    for (const n of [6, 7, 8, 9]) {
      expect([n, await fetch(seg(n))]).toEqual([n, 0]);
      expect(readFileSync(target).equals(segmentOf('switch', seg(n)))).toBe(true);
    }
    // The last is a partial.
    expect(await fetch(seg(12))).toBe(0);
    expect(await fetch(seg(13))).toBe(1);
    expect(await fetch('00000002.history')).toBe(1);
    writeFileSync(path('00000002.history'), '1\t0/B80000\tno reason\n');
    const history = ['fetch', '--no-verify', place, '00000002.history', 'pg_wal/RECOVERYHISTORY'];
    expect((await command(history, data)).code).toBe(0);
    expect(readFileSync(join(data, 'pg_wal', 'RECOVERYHISTORY'))).toEqual(
      readFileSync(path('00000002.history')),
    );
  });

  test('says "not there" only where that is proven', async () => {
    const { dir, fetch, target } = setUp();
    const path = (name: string) => join(dir, name);
    renameSync(path(seg(8)), path(`${seg(8)}.xz`));
    expect(await fetch(seg(8))).toBe(205);
    rmSync(path(`${seg(8)}.xz`));
    expect(await fetch(seg(8))).toBe(203);
    symlinkSync('/nowhere', path(seg(8)));
    expect(await fetch(seg(8))).toBe(205);
    rmSync(path(seg(8)));
    const whole = gzipSync(segmentOf('switch', seg(8)));
    const cut = whole.subarray(0, whole.length / 2);
    writeFileSync(path(`${seg(8)}.gz`), cut);
    expect(await fetch(seg(8))).toBe(201);
    // What the ledger knows of was there.
    await writeLedger(dir, [[1, '0/600000']], '0/E80000');
    expect(await fetch(seg(13))).toBe(203);
    expect(await fetch(seg(7))).toBe(0);
    rmSync(target);
    const empty = scratchDir('empty');
    mkdirSync(join(empty, 'other'));
    for (const nowhere of [empty, join(empty, 'other'), join(empty, 'none')]) {
      expect([nowhere, await fetch(seg(7), own.sshd.place(nowhere))]).toEqual([nowhere, 205]);
    }
    const away = { WALKEEP_RSH: '/nowhere/ssh' };
    expect(await fetch(seg(13), undefined, away)).toBe(205);
  });

  test('is listed, verified, searched and checked as it is there', async () => {
    const { dir, place } = setUp('promoted');
    const both = async (...args: string[]) =>
      Promise.all([command([...args, dir]), command([...args, place])]);
    for (const args of [
      ['verify', '--json'],
      ['list', '--json'],
      ['find', '--json'],
    ]) {
      const [here, there] = await both(...args);
      expect([args, there!.code, there!.stderr]).toEqual([args, here!.code, here!.stderr]);
      const told = (text: string) => text.replace(/"milliseconds":[0-9.]+/g, '');
      expect(told(there!.stdout.replaceAll(place, dir))).toBe(told(here!.stdout));
    }
    const checked = await command(['check', '-w', '-D', place, '-d', 'host=/nowhere']);
    expect(checked).toMatchObject({ stdout: expect.stringContaining('no gap') });
  });

  test('is not made an archive of what is shipped or pushed', async () => {
    const { dir, place } = setUp();
    const before = execFileSync('ls', ['-A', dir], { encoding: 'utf8' });
    const from = archiveOf('switch').dir;
    const pushed = await command(['push', place, join(from, seg(7))]);
    expect(pushed).toMatchObject({ code: 1, stderr: expect.stringContaining('received into') });
    const shipped = await command(['ship', '--once', '--wait', '1', from, place]);
    expect(shipped.code).not.toBe(0);
    expect(shipped.stderr).toContain('received into');
    expect(execFileSync('ls', ['-A', dir], { encoding: 'utf8' })).toBe(before);
  });
});
