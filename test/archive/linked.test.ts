import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readStoredHistory } from '../../src/archive/history.js';
import { openDirectory } from '../../src/archive/places/directory-archive.js';
import { scanDirectory } from '../../src/archive/wal-directory.js';
import { readArchiveFacts } from '../../src/check/archive-facts.js';
import { cleanupArchive, planCleanup } from '../../src/cleanup/cleanup.js';
import type { Lsn } from '../../src/lsn.js';
import { removeShipped } from '../../src/ship/keep-local.js';
import { ShipSource } from '../../src/ship/source.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { MemoryObjects } from '../../src/store/memory.js';
import { run } from '../cli/run.js';
import { idOf } from '../expire/memory-place.js';
import { differences, keysOf, memory, shipOnce } from '../ship/shipping.js';
import {
  check,
  fixtureArchive,
  SEGMENT,
  SYSTEM_ID,
  sampleArchive,
  writeLedger,
} from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';

/** Moves files to another disk, as it were, and leaves links. */
function moveAway(directory: string, names: readonly string[]): string {
  const disk = join(scratchDir('disk'), 'mounted');
  mkdirSync(disk);
  for (const name of names) {
    renameSync(join(directory, name), join(disk, name));
    symlinkSync(join(disk, name), join(directory, name));
  }
  return disk;
}

const unmount = (disk: string): void => renameSync(disk, `${disk}-not`);

/** Without what is another each time: how long it took. */
const tame = (text: string): string => text.replace(/ in [\d.]+ s, [^)]*/g, '');

/** What commands that only read say of a directory, and a segment of it that is fetched. */
async function answers(directory: string, name: string): Promise<unknown[]> {
  const target = join(scratchDir('out'), 'restored');
  const said: unknown[] = [];
  for (const args of [
    ['list'],
    ['list', '--json'],
    ['verify', '-v'],
    ['find', '--all'],
    ['fetch'],
  ]) {
    const [command = '', ...options] = args;
    const rest = command === 'fetch' ? [directory, name, target] : [directory];
    const { code, stdout, stderr } = await run('walkeep', command, ...options, ...rest);
    said.push([args.join(' '), code, tame(`${stdout}${stderr}`.replaceAll(directory, 'DIR'))]);
  }
  said.push(existsSync(target) && readFileSync(target).toString('base64'));
  return said;
}

describe('files that lie on another disk, with links in their place', () => {
  test.each(['switch', 'promoted'])('are what they lead to: %s', async (fixture) => {
    const directory = fixtureArchive(fixture);
    const names = readdirSync(directory);
    const [first = ''] = names;
    const before = await answers(directory, first);
    // The partial too: nobody writes to it here.
    moveAway(directory, names);
    expect(await answers(directory, first)).toEqual(before);
  });

  test('are shipped, and keeping less removes the links', async () => {
    const { directory, names } = sampleArchive(6);
    await writeLedger(directory);
    const disk = moveAway(directory, names.slice(0, 4));
    const objects = new MemoryObjects();
    await shipOnce(directory, [memory(objects)]);
    expect(keysOf(objects).filter((key) => key.startsWith('wal/'))).toHaveLength(5);
    expect(differences(directory, objects)).toEqual([]);
    const source = await ShipSource.open(directory);
    const removed: string[] = [];
    await removeShipped(await source.scan(), {
      ...{ source, directory, state: directory, keep: { size: 2 * SEGMENT } },
      has: () => true,
      stillHas: async () => true,
      removed: ({ name }) => removed.push(name),
    });
    expect(removed).toEqual(names.slice(0, 2));
    expect(readdirSync(directory).filter((name) => names.includes(name))).toEqual(names.slice(2));
    expect(readdirSync(disk)).toEqual(names.slice(0, 4));
  });

  test('are as readable as what they lead to', async () => {
    const { directory, names } = sampleArchive(3);
    moveAway(directory, names.slice(0, 2));
    for (const name of names) chmodSync(join(directory, name), 0o640);
    const { local } = await readArchiveFacts(openDirectory(directory), undefined);
    expect(local?.permissions).toMatchObject({ open: [], unreadable: [] });
  });

  test('go with their links, what they lead to stays', async () => {
    const { directory, names } = sampleArchive(4);
    const disk = moveAway(directory, names.slice(0, 3));
    const plan = await planCleanup(directory, names[2]!);
    expect(plan.remove).toEqual(names.slice(0, 2));
    await cleanupArchive(plan);
    expect(readdirSync(directory)).toEqual(names.slice(2));
    expect(readdirSync(disk)).toEqual(names.slice(0, 3));
  });

  test.each([true, false])(
    'the same in expire, be the disk mounted (%s) or not',
    async (mounted) => {
      const { directory, names, segmentStart } = sampleArchive(4);
      await writeLedger(directory);
      const store = await openFileStore(directory, { init: true });
      const start = (segmentStart(2) + 40n) as Lsn;
      const end = (start + 5000n) as Lsn;
      const point = { timeline: 1, time: '2026-11-01T00:00:00Z' };
      await storeBackup({
        ...{ store, id: idOf(1) },
        tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) }],
        record: {
          ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT },
          ...{ start: { ...point, lsn: start }, end: { ...point, lsn: end } },
          walRanges: [{ timeline: 1, start, end }],
        },
      });
      await store.close();
      const disk = moveAway(directory, names.slice(0, 2));
      if (!mounted) unmount(disk);
      const dry = await run('walkeep', 'expire', '--redundancy', '1', '--dry-run', directory);
      expect(dry.stdout).toContain('would remove WAL 0/5000000 - 0/5200000');
      expect(await run('walkeep', 'expire', '--redundancy', '1', directory)).toMatchObject({
        code: 0,
        stderr: '',
      });
      expect(readdirSync(directory).filter((name) => /^0{7}1/.test(name))).toEqual(names.slice(2));
      expect(readdirSync(mounted ? disk : `${disk}-not`)).toEqual(names.slice(0, 2));
    },
  );

  test('are not pushed again', async () => {
    const { directory, names } = sampleArchive(3);
    const [first = '', second = ''] = names;
    const server = scratchDir('pg_wal');
    for (const name of [first, second]) copyFileSync(join(directory, name), join(server, name));
    const disk = moveAway(directory, [first, second]);
    const push = (name: string) => run('walkeep', 'push', directory, join(server, name));
    expect(await push(first)).toMatchObject({ code: 0 });
    expect(readdirSync(disk)).toEqual([first, second]);
    unmount(disk);
    const { code, stderr } = await push(second);
    expect([code, stderr]).toEqual([1, expect.stringContaining('is a link that leads to nothing')]);
    // The server's own file is about to be overwritten.
    rmSync(join(directory, first));
    symlinkSync(join(server, first), join(directory, first));
    expect(await push(first)).toMatchObject({ code: 1 });
    // What lies in the archive itself is there, by whatever way somebody comes to it.
    const own = sampleArchive(3);
    const [name = ''] = own.names;
    const way = join(scratchDir('way'), 'archive');
    symlinkSync(own.directory, way);
    for (const path of [join(own.directory, name), join(way, name)]) {
      expect(await run('walkeep', 'push', own.directory, path)).toMatchObject({ code: 0 });
    }
  });

  test('count where a receiver goes on; a partial that is a link does not', async () => {
    const { directory, names } = sampleArchive(4);
    moveAway(directory, names);
    const scan = await scanDirectory(directory, SEGMENT);
    expect(scan.newest?.name).toBe(names[2]);
    expect(scan.warnings).toEqual([`"${names[3]}" is not a regular file, skipping`]);
    const history = moveAway(directory, []);
    writeFileSync(join(history, '00000002.history'), '1\t0/5000000\tno recovery target\n');
    symlinkSync(join(history, '00000002.history'), join(directory, '00000002.history'));
    expect(await readStoredHistory(directory, 2)).toMatchObject({ state: 'good' });
    unmount(history);
    await expect(readStoredHistory(directory, 2)).rejects.toThrow(
      'is a link that leads to nothing',
    );
  });
});

describe('a link whose disk is not mounted', () => {
  test('is never taken for a segment that is not there', async () => {
    const { directory, names } = sampleArchive(6);
    await writeLedger(directory);
    unmount(moveAway(directory, names.slice(1, 3)));
    const found = await check(directory);
    expect(found.filter((line) => !line.startsWith('info'))).toEqual([
      `error unreadable ${names[1]}`,
      `error unreadable ${names[2]}`,
    ]);
    const find = await run('walkeep', 'find', directory);
    expect([find.code, find.stdout + find.stderr]).toEqual([
      2,
      expect.stringContaining('leads to nothing'),
    ]);
    expect(find.stdout + find.stderr).not.toContain('missing');
    const list = await run('walkeep', 'list', directory);
    expect(list.stdout).not.toContain('missing');
    const target = join(scratchDir('out'), 'restored');
    expect((await run('walkeep', 'fetch', directory, names[1]!, target)).code).toBe(205);
    const objects = new MemoryObjects();
    const { result } = await shipOnce(directory, [memory(objects)]);
    const [place] = result.places;
    expect(place?.held.map(({ name }) => name)).toEqual(names.slice(1, 3));
    expect(keysOf(objects).filter((key) => key.startsWith('wal/'))).toHaveLength(3);
  });
});
