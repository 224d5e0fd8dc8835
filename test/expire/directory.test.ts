import { readdirSync, renameSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Lsn } from '../../src/lsn.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { MemoryStore } from '../../src/store/memory.js';
import { run } from '../cli/run.js';
import { shipOnce } from '../ship/shipping.js';
import { SEGMENT, SYSTEM_ID, sampleArchive, writeLedger } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';
import { idOf } from './memory-place.js';

const filesOf = (directory: string) =>
  readdirSync(directory)
    .filter((name) => /^[0-9A-F]{24}/.test(name))
    .sort();

/** An archive of eight segments, one a day, with backups in the second, the fourth and the sixth. */
async function archive() {
  const made = sampleArchive(8);
  const { directory, names, segmentStart } = made;
  await writeLedger(directory);
  const store = await openFileStore(directory, { init: true });
  const ago = (path: string, days: number) => {
    const time = (Date.now() - days * 86_400_000) / 1000;
    utimesSync(join(directory, path), time, time);
  };
  for (const [n, name] of names.entries()) ago(name, 7 - n);
  for (const n of [1, 3, 5]) {
    const start = (segmentStart(n) + 40n) as Lsn;
    const end = (start + 5000n) as Lsn;
    const point = { timeline: 1, time: '2026-11-01T00:00:00Z' };
    await storeBackup({
      ...{ store, id: idOf(n) },
      tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) }],
      record: {
        ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT },
        ...{ start: { ...point, lsn: start }, end: { ...point, lsn: end } },
        walRanges: [{ timeline: 1, start, end }],
      },
    });
    ago(`backups/${idOf(n)}/backup.json`, 7 - n - 0.5);
  }
  return { ...made, store };
}

describe('walkeep expire in a directory', () => {
  it('removes what the dry run says, oldest first', async () => {
    const { directory, names } = await archive();
    const dry = await run('walkeep', 'expire', directory, '--window', '3d', '--dry-run');
    expect(dry).toMatchObject({ code: 0, stderr: '' });
    const removed = dry.stdout.split('\n').filter((line) => line.startsWith('would remove'));
    expect(removed).toHaveLength(2);
    expect(removed[0]).toContain(`backup ${idOf(1)}`);
    expect(dry.stdout).toContain(`backup ${idOf(3)} stays: the window`);
    expect(filesOf(directory)).toEqual(names);
    const real = await run('walkeep', 'expire', directory, '--window', '3d');
    expect(real.stdout.replaceAll('removing', 'would remove')).toBe(`${removed.join('\n')}\n`);
    expect(filesOf(directory)).toEqual(names.slice(3));
    expect(readdirSync(join(directory, 'backups'))).toEqual([idOf(3), idOf(5)]);
    expect(readdirSync(join(directory, 'intent'))).toEqual([]);
    const again = await run('walkeep', 'expire', directory, '--window', '3d', '--json');
    const [first, ...rest] = again.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(first).toMatchObject({ type: 'expire', dryRun: false, retained: [] });
    expect(rest.map((one) => one.type)).toEqual(['kept-backup', 'kept-backup', 'kept-wal']);
  });

  it('refuses a directory that is of no archive, as under a disk that is away', async () => {
    const directory = scratchDir('empty');
    for (const args of [
      ['expire', '--window', '7d', directory],
      ['expire', '--window', '7d', '--dry-run', directory],
      ['keep', directory, idOf(1)],
    ]) {
      const { code, stdout, stderr } = await run('walkeep', ...args);
      expect([args[0], code, stdout]).toEqual([args[0], 1, '']);
      expect(stderr).toContain('is not the archive of anything');
      expect(stderr).toContain('hint: See that its disk is mounted');
    }
    // Else it would pass for one from now on.
    expect(readdirSync(directory)).toEqual([]);
  });

  it('leaves what was not shipped to where it is shipped to', async () => {
    const { directory, names } = await archive();
    const faults = ({ key, op }: { key: string; op: string }) =>
      op === 'create' && key.endsWith(names[1]!) ? ({ kind: 'refused' } as const) : undefined;
    await shipOnce(directory, [new MemoryStore({ place: 'memory:one', faults })], {
      giveUpAfter: 1,
    });
    const { stderr } = await run('walkeep', 'expire', directory, '--redundancy', '1');
    expect(stderr).toContain('segments stay that were not shipped to memory:one');
    expect(filesOf(directory)).toEqual(expect.arrayContaining([names[1], ...names.slice(5)]));
    expect(filesOf(directory)).not.toContain(names[0]);
  });

  it('pins a backup, and lets it go', async () => {
    const { directory, names } = await archive();
    const keep = (...args: string[]) => run('walkeep', 'keep', directory, ...args);
    expect(await keep(idOf(1))).toMatchObject({ code: 0 });
    expect((await keep(idOf(1))).stderr).toContain('is kept already');
    expect((await keep(idOf(8))).stderr).toContain('has no backup');
    await run('walkeep', 'expire', directory, '--redundancy', '1');
    expect(filesOf(directory)).toEqual([names[1], ...names.slice(5)]);
    // What expire left is no loss; what was lost is.
    expect(await run('walkeep', 'verify', directory)).toMatchObject({ code: 0 });
    expect((await run('walkeep', 'list', directory)).stdout).not.toContain('missing');
    renameSync(join(directory, names[6]!), join(directory, 'aside'));
    expect((await run('walkeep', 'verify', directory)).stdout).toContain('(gap)');
    renameSync(join(directory, 'aside'), join(directory, names[6]!));
    expect(await keep(idOf(1), '--remove')).toMatchObject({ code: 0 });
    await run('walkeep', 'expire', directory, '--redundancy', '1');
    expect(filesOf(directory)).toEqual(names.slice(5));
  });

  it('refuses to guess what is to be kept', async () => {
    const { directory, names } = await archive();
    const { code, stderr } = await run('walkeep', 'expire', directory);
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining('window') });
    for (const wrong of [
      ['--window', '7'],
      ['--redundancy', '0'],
    ]) {
      expect((await run('walkeep', 'expire', directory, ...wrong)).code).toBe(1);
    }
    expect(filesOf(directory)).toEqual(names);
  });
});
