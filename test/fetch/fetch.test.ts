import fs, {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { exitCodeOf } from '../../src/cli/commands/fetch.js';
import { compressFile } from '../../src/codec/codec.js';
import { type FetchOptions, fetchFile, fetchRetrying } from '../../src/fetch/fetch.js';
import { nodeFileSystem } from '../../src/files/file-system.js';
import { formatLsn } from '../../src/lsn.js';
import {
  archiveOf,
  flip,
  PAGE,
  SEGMENT,
  SYSTEM_ID,
  segmentOf,
  writeControl,
  writeLedger,
} from '../support/wal-archive.js';
import { makeWal } from '../wal/synthetic.js';

const isRoot = process.getuid?.() === 0;
const seg = (n: number, timeline = 1) =>
  `0000000${timeline}00000000${n.toString(16).toUpperCase().padStart(8, '0')}`;

type Archive = ReturnType<typeof archiveOf>;

/** Fetches, and tells how it went as the command would: 0, 1 or above 125. */
async function fetch(archive: Archive, name: string, more: Partial<FetchOptions> = {}) {
  const { dir, target } = archive;
  try {
    const result = await fetchFile({ places: [dir], name, target, ...more });
    if (!result.found) return { code: 1, text: result.reason, result };
    return { code: 0, text: '', result };
  } catch (error) {
    return { code: exitCodeOf(error), text: (error as Error).message };
  }
}

/** Nothing is beside the target that was not asked for. */
function expectClean(archive: Archive, ...expected: string[]): void {
  expect(readdirSync(archive.out)).toEqual(expected);
}

const code = async (archive: Archive, name: string, more: Partial<FetchOptions> = {}) =>
  (await fetch(archive, name, more)).code;

afterEach(() => vi.restoreAllMocks());

describe('complete segments', () => {
  test.each([6, 7, 8, 9, 10, 11])('segment %i is served byte for byte', async (n) => {
    const archive = archiveOf('switch');
    expect(await fetch(archive, seg(n))).toMatchObject({ code: 0 });
    expect(readFileSync(archive.target).equals(segmentOf('switch', seg(n)))).toBe(true);
    expectClean(archive, 'RECOVERYXLOG');
    expect(statSync(archive.target).mode & 0o777 & ~0o040).toBe(0o600);
  });

  test('compressed ones too, and plain before compressed, complete before partial', async () => {
    const archive = archiveOf('switch');
    const content = segmentOf('switch', seg(7));
    rmSync(join(archive.dir, seg(7)));
    writeFileSync(join(archive.dir, `${seg(7)}.gz`), gzipSync(content));
    writeFileSync(join(archive.dir, `${seg(7)}.partial`), content.subarray(0, 100));
    expect(await fetch(archive, seg(7))).toMatchObject({
      result: { path: join(archive.dir, `${seg(7)}.gz`) },
    });
    expect(readFileSync(archive.target).equals(content)).toBe(true);
    writeFileSync(join(archive.dir, seg(7)), content);
    expect(await fetch(archive, seg(7))).toMatchObject({
      result: { path: join(archive.dir, seg(7)) },
    });
  });

  test('what was at the target is replaced, leftovers of a killed fetch are removed', async () => {
    const archive = archiveOf('switch');
    writeFileSync(archive.target, 'old');
    // No process has this number.
    writeFileSync(join(archive.out, '.walkeep-fetch.999999999.abc.tmp'), 'rest');
    writeFileSync(join(archive.out, `.walkeep-fetch.${process.pid}.abc.tmp`), 'at work');
    expect(await code(archive, seg(6))).toBe(0);
    expectClean(archive, `.walkeep-fetch.${process.pid}.abc.tmp`, 'RECOVERYXLOG');
  });

  test.each([
    ['in a record', 6, 200],
    ['in the first page header', 6, 9],
    ['in the magic', 6, 1],
    ['in a later page header', 9, PAGE + 8],
  ])('a flipped bit %s is damage', async (_, n, offset) => {
    const archive = archiveOf('switch');
    flip(join(archive.dir, seg(n)), offset);
    expect(await code(archive, seg(n))).toBe(201);
    expectClean(archive);
    expect(await code(archive, seg(n), { verify: false })).toBe(0);
  });

  test('a flipped bit in the rest of a record is seen through the segments before', async () => {
    const archive = archiveOf('record-across-segments');
    flip(join(archive.dir, `${seg(8)}.partial`), 1000);
    await writeLedger(archive.dir, [[1, '0/600000']], '0/864340');
    expect(await code(archive, `${seg(8)}.partial`)).toBe(201);
    // Without them nothing tells.
    rmSync(join(archive.dir, seg(7)));
    expect(await code(archive, `${seg(8)}.partial`)).toBe(0);
  });

  test('of the segment before, only the tail is needed, wherever it is', async () => {
    // Records of 5000 bytes: one goes on from each segment into the next.
    const records = Array.from({ length: 700 }, (_, i) => ({ body: Buffer.alloc(5000, i) }));
    const { bytes } = makeWal(records, { systemId: SYSTEM_ID });
    const archive = archiveOf('switch');
    for (const name of readdirSync(archive.dir)) rmSync(join(archive.dir, name));
    const part = (n: number) => Buffer.from(bytes.subarray(n * SEGMENT, (n + 1) * SEGMENT));
    const broken = part(1);
    broken[100] = broken[100]! ^ 1;
    writeFileSync(join(archive.dir, seg(0x50)), part(0));
    writeFileSync(join(archive.dir, seg(0x51)), broken);
    expect(await code(archive, seg(0x51))).toBe(201);
    // Compressed, and beside the target.
    rmSync(join(archive.dir, seg(0x50)));
    writeFileSync(join(archive.dir, `${seg(0x50)}.gz`), gzipSync(part(0)));
    expect(await code(archive, seg(0x51))).toBe(201);
    writeFileSync(join(archive.out, seg(0x50)), part(0));
    expect(await code(archive, seg(0x51))).toBe(201);
    writeFileSync(join(archive.dir, seg(0x51)), part(1));
    expect(await code(archive, seg(0x51))).toBe(0);
    // What is beside the target accuses nobody.
    const wrong = part(0);
    wrong.fill(7, SEGMENT - 40);
    writeFileSync(join(archive.out, seg(0x50)), wrong);
    expect(await code(archive, seg(0x51))).toBe(0);
    // Nor does a bad tail of a segment that recovery may not need.
    writeFileSync(join(archive.dir, `${seg(0x50)}.gz`), gzipSync(wrong));
    rmSync(join(archive.out, seg(0x50)));
    expect([0, 201]).toContain(await code(archive, seg(0x51)));
    wrong.fill(0, SEGMENT - 3 * PAGE);
    writeFileSync(join(archive.dir, seg(0x50)), wrong);
    expect(await code(archive, seg(0x51))).toBe(0);
  });

  test.each([
    ['too short', (path: string) => truncateSync(path, SEGMENT - PAGE)],
    ['too long', (path: string) => truncateSync(path, SEGMENT + PAGE)],
    ['empty', (path: string) => truncateSync(path, 0)],
    ['zeros', (path: string) => writeFileSync(path, Buffer.alloc(SEGMENT))],
    ['another segment', (path: string) => copyFileSync(path.replace(/6$/, '7'), path)],
  ])('%s is damage', async (_, damage) => {
    const archive = archiveOf('switch');
    damage(join(archive.dir, seg(6)));
    expect(await code(archive, seg(6))).toBe(201);
    expectClean(archive);
  });

  test('a gzip file that only the careful way reads is read and checked from its beginning again', async () => {
    // What follows is no member of it, though it looks like one at first.
    const tail = Buffer.from([0x1f, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0]);
    const archive = archiveOf('switch');
    const path = join(archive.dir, seg(8));
    const content = readFileSync(path);
    rmSync(path);
    writeFileSync(`${path}.gz`, Buffer.concat([gzipSync(content), tail]));
    expect(await fetch(archive, seg(8))).toMatchObject({ code: 0 });
    expect(readFileSync(archive.target).equals(content)).toBe(true);
    content[PAGE - 100] = content[PAGE - 100]! ^ 1;
    writeFileSync(`${path}.gz`, Buffer.concat([gzipSync(content), tail]));
    expect(await code(archive, seg(8))).toBe(201);
  });

  test.each(['cut short', 'damaged', 'empty'])(
    'another form is served where the first is %s',
    async (what) => {
      const archive = archiveOf('switch');
      const path = join(archive.dir, seg(7));
      const content = readFileSync(path);
      writeFileSync(`${path}.gz`, gzipSync(content));
      if (what === 'damaged') flip(path, 5000);
      else writeFileSync(path, content.subarray(0, what === 'empty' ? 0 : 500_000));
      expect(await fetch(archive, seg(7))).toMatchObject({ code: 0 });
      expect(readFileSync(archive.target).equals(content)).toBe(true);
      expectClean(archive, 'RECOVERYXLOG');
      // Where none is good the first is told of.
      writeFileSync(`${path}.gz`, 'x');
      const { code, text } = await fetch(archive, seg(7));
      expect(code).toBe(201);
      expect(text).toContain(`"${path}"`);
    },
  );

  test('a gzip file that is cut or damaged is damage', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, seg(6));
    const packed = gzipSync(readFileSync(path));
    rmSync(path);
    writeFileSync(`${path}.gz`, packed.subarray(0, packed.length - 20));
    expect(await fetch(archive, seg(6))).toMatchObject({ code: 201 });
    packed[packed.length - 5] = packed[packed.length - 5]! ^ 1;
    writeFileSync(`${path}.gz`, packed);
    expect(await code(archive, seg(6))).toBe(201);
    expectClean(archive);
  });

  test('pages of a timeline that does not own them are damage', async () => {
    const archive = archiveOf('promoted');
    const path = join(archive.dir, seg(8, 2));
    renameSync(`${path}.partial`, join(archive.dir, `${seg(8, 3)}.partial`));
    // Timeline 3 left timeline 1, not 2.
    writeFileSync(join(archive.dir, '00000003.history'), '1\t0/82F0F8\tno\n');
    expect(await code(archive, seg(8, 3))).toBe(201);
  });
});

describe('another cluster', () => {
  test('by pg_control of the server', async () => {
    const archive = archiveOf('switch');
    writeControl(archive.data, 4711n);
    const dataDir = archive.data;
    for (const name of [seg(6), seg(12), seg(13), '00000002.history']) {
      expect(await code(archive, name, { dataDir })).toBe(202);
    }
    writeControl(archive.data, SYSTEM_ID);
    expect(await code(archive, seg(6), { dataDir })).toBe(0);
    expect(await code(archive, '00000002.history', { dataDir })).toBe(1);
  });

  test('by the ledger', async () => {
    const archive = archiveOf('switch');
    await writeLedger(archive.dir, [[1, '0/600000']], undefined, 4711n);
    expect(await code(archive, seg(6))).toBe(202);
    writeControl(archive.data, SYSTEM_ID);
    expect(await code(archive, seg(6), { dataDir: archive.data })).toBe(0);
  });
});

describe('not there', () => {
  test('behind the end and before the beginning', async () => {
    const archive = archiveOf('switch');
    rmSync(join(archive.dir, `${seg(12)}.partial`));
    expect(await code(archive, seg(12))).toBe(1);
    expect(await code(archive, seg(5))).toBe(1);
    expect(await code(archive, '00000002.history')).toBe(1);
    expect(await code(archive, `${seg(6)}.00000028.backup`)).toBe(1);
    expectClean(archive);
  });

  test('before the beginning, but the server got there by itself: it would end early', async () => {
    const archive = archiveOf('switch');
    renameSync(join(archive.dir, seg(6)), join(archive.out, seg(6)));
    rmSync(join(archive.dir, seg(7)));
    expect(await code(archive, seg(7))).toBe(203);
    expect(await code(archive, seg(7), { standby: true })).toBe(1);
    // It has that one, too.
    expect(await code(archive, seg(6))).toBe(1);
  });

  test('no archive at all', async () => {
    const archive = archiveOf('switch');
    const directory = join(archive.dir, 'nowhere');
    for (const name of [seg(6), '00000002.history']) {
      expect(await code(archive, name, { places: [directory] })).toBe(205);
      mkdirSync(directory);
      expect(await code(archive, name, { places: [directory] })).toBe(205);
      writeFileSync(join(directory, 'lost+found'), '');
      expect(await code(archive, name, { places: [directory] })).toBe(205);
      rmSync(directory, { recursive: true });
    }
    expect(await code(archive, seg(6), { places: [join(archive.dir, seg(6))] })).toBe(205);
  });

  test('a ledger makes an archive, and says what must be in it', async () => {
    const archive = archiveOf('switch');
    for (const name of readdirSync(archive.dir)) rmSync(join(archive.dir, name));
    await writeLedger(archive.dir, [[1, '0/700000']], '0/812345');
    expect(await code(archive, seg(6))).toBe(1);
    expect(await code(archive, seg(7))).toBe(203);
    expect(await code(archive, seg(8))).toBe(203);
    expect(await code(archive, seg(9))).toBe(1);
  });

  test('a damaged ledger cannot tell', async () => {
    const archive = archiveOf('switch');
    writeFileSync(join(archive.dir, '.walkeep-ledger'), '{"entries":[]}\n');
    expect(await code(archive, seg(13))).toBeGreaterThan(125);
  });

  test('a hole', async () => {
    const archive = archiveOf('switch');
    rmSync(join(archive.dir, seg(8)));
    const { code: exit, text } = await fetch(archive, seg(8));
    expect(exit).toBe(203);
    expect(text).toContain(seg(8));
    // Also where it is a standby: that does not pass.
    expect(await code(archive, seg(8), { standby: true })).toBe(203);
    // The server's own, of the right address, fills it; a recycled one does not.
    copyFileSync(join(archive.dir, seg(9)), join(archive.out, seg(8)));
    expect(await code(archive, seg(8))).toBe(203);
    const own = Buffer.from(segmentOf('switch', seg(8)));
    writeFileSync(join(archive.out, seg(8)), own);
    expect(await code(archive, seg(8))).toBe(1);
    // One that does not reach its end would be the end of recovery.
    writeFileSync(join(archive.out, seg(8)), own.fill(0, PAGE));
    expect(await code(archive, seg(8))).toBe(203);
  });

  test('timelines', async () => {
    const archive = archiveOf('promoted');
    // Before its fork a timeline has no segments.
    expect(await code(archive, seg(7, 2))).toBe(1);
    expect(await code(archive, seg(9, 2))).toBe(1);
    expect(await code(archive, '00000003.history')).toBe(1);
    // The child needs its parent up to the fork.
    rmSync(join(archive.dir, seg(7)));
    expect(await code(archive, seg(7))).toBe(203);
  });

  test('a child without its first segment', async () => {
    const archive = archiveOf('promoted');
    rmSync(join(archive.dir, `${seg(8, 2)}.partial`));
    expect(await code(archive, seg(8, 2))).toBe(203);
    expect(await code(archive, '00000002.history')).toBe(0);
    // The history can have been fetched before.
    rmSync(join(archive.dir, '00000002.history'));
    renameSync(archive.target, join(archive.out, '00000002.history'));
    expect(await code(archive, seg(8, 2))).toBe(203);
  });

  test('a timeline without its history', async () => {
    const archive = archiveOf('promoted');
    rmSync(join(archive.dir, '00000002.history'));
    expect(await code(archive, '00000002.history')).toBe(203);
    // A server that is on it already does not need it to get there.
    writeControl(archive.data, SYSTEM_ID, 2);
    expect(await code(archive, '00000002.history', { dataDir: archive.data })).toBe(1);
  });
});

describe('history files', () => {
  test('are served as they are, if they are whole', async () => {
    const archive = archiveOf('promoted');
    const path = join(archive.dir, '00000002.history');
    expect(await code(archive, '00000002.history')).toBe(0);
    expect(readFileSync(archive.target)).toEqual(readFileSync(path));
    // One that was cut within its LSN would say that the timeline begins elsewhere.
    for (const text of ['', '1\t0/82F0', 'xyz\n', '2\t0/82F0F8\tno\n']) {
      writeFileSync(path, text);
      expect(await code(archive, '00000002.history')).toBe(201);
    }
  });

  test('backup history files', async () => {
    const archive = archiveOf('switch');
    const name = `${seg(6)}.00000028.backup`;
    writeFileSync(join(archive.dir, name), 'START WAL LOCATION: 0/600028\n');
    expect(await code(archive, name)).toBe(0);
    writeFileSync(join(archive.dir, name), '');
    expect(await code(archive, name)).toBe(201);
  });
});

describe('partials', () => {
  const PARTIAL = `${seg(12)}.partial`;

  test('one that a receiver goes on with while it is copied is not damaged', async () => {
    const archive = archiveOf('switch');
    const whole = segmentOf('switch', seg(7));
    const later = [8, 9, 10, 11].map((n) => seg(n)).concat(PARTIAL);
    const away = (name: string) => join(archive.out, '..', `away-${name}`);
    rmSync(join(archive.dir, seg(7)));
    const torn = Buffer.alloc(whole.length);
    const used = whole.findLastIndex((b) => b !== 0);
    whole.copy(torn, 0, 0, used / 2);
    writeFileSync(join(archive.dir, `${seg(7)}.partial`), torn);
    for (const name of later) renameSync(join(archive.dir, name), away(name));
    const list = nodeFileSystem.readdir;
    vi.spyOn(nodeFileSystem, 'readdir').mockImplementation((dir) => {
      const copied = readdirSync(archive.out).some((name) => name.startsWith('.walkeep-fetch'));
      if (dir === archive.dir && copied && fs.existsSync(away(PARTIAL))) {
        // Behind the copy, before the look for what follows.
        writeFileSync(join(archive.dir, `${seg(7)}.partial`), whole);
        for (const name of later) renameSync(away(name), join(archive.dir, name));
      }
      return list(dir);
    });
    expect(await fetch(archive, seg(7))).toMatchObject({ code: 0 });
    expect(readFileSync(archive.target).equals(whole)).toBe(true);
    expect(fs.existsSync(away(PARTIAL))).toBe(false);
  });

  test('are served whole, with the LSN up to which they are good', async () => {
    const archive = archiveOf('switch');
    truncateSync(join(archive.dir, PARTIAL), 3 * PAGE);
    const { code: exit, result } = await fetch(archive, seg(12));
    expect(exit).toBe(0);
    expect(result?.found && formatLsn(result.validEnd!)).toBe('0/C000D8');
    const served = readFileSync(archive.target);
    expect(served.equals(segmentOf('switch', PARTIAL))).toBe(true);
    expect(served.length).toBe(SEGMENT);
    expectClean(archive, 'RECOVERYXLOG');
  });

  test('the one with the longest valid WAL is taken', async () => {
    const archive = archiveOf('mixed-17');
    const whole = readFileSync(join(archive.dir, `${seg(6)}.partial`));
    const cut = Buffer.from(whole);
    cut.fill(0, 5 * PAGE);
    writeFileSync(join(archive.dir, `${seg(6)}.partial`), cut);
    writeFileSync(join(archive.dir, `${seg(6)}.gz.partial`), gzipSync(whole).subarray(0, -8));
    const { result } = await fetch(archive, seg(6));
    expect(result).toMatchObject({ path: join(archive.dir, `${seg(6)}.gz.partial`) });
    expect(readFileSync(archive.target).equals(whole)).toBe(true);
  });

  test('one in which nothing was written is not there', async () => {
    const archive = archiveOf('switch');
    for (const content of [Buffer.alloc(0), Buffer.alloc(SEGMENT)]) {
      writeFileSync(join(archive.dir, PARTIAL), content);
      expect(await code(archive, seg(12))).toBe(1);
      expectClean(archive);
    }
    await writeLedger(archive.dir, [[1, '0/600000']], '0/C000D8');
    expect(await code(archive, seg(12))).toBe(203);
  });

  test('a torn tail is served, behind the acknowledged position it is damage', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, PARTIAL);
    const bytes = readFileSync(path);
    bytes.fill(0, 0xb0);
    writeFileSync(path, bytes);
    expect(await code(archive, seg(12))).toBe(0);
    await writeLedger(archive.dir, [[1, '0/600000']], '0/C000B0');
    expect(await code(archive, seg(12))).toBe(0);
    rmSync(join(archive.dir, '.walkeep-ledger'));
    await writeLedger(archive.dir, [[1, '0/600000']], '0/C000D8');
    rmSync(archive.target);
    expect(await code(archive, seg(12))).toBe(201);
    expectClean(archive);
    const { code: exit, result } = await fetch(archive, seg(12), { allowTorn: true });
    expect(exit).toBe(0);
    expect(result).toHaveProperty('damage', expect.stringContaining('acknowledged'));
    // On another timeline it proves nothing.
    rmSync(join(archive.dir, '.walkeep-ledger'));
    await writeLedger(
      archive.dir,
      [
        [1, '0/600000'],
        [2, '0/C00000'],
      ],
      '0/C000D8',
    );
    expect(await code(archive, seg(12))).toBe(0);
  });

  test('later pages of the segment behind a bad place are damage', async () => {
    const archive = archiveOf('mixed-17');
    const name = seg(6);
    const path = join(archive.dir, `${name}.partial`);
    const whole = readFileSync(path);
    flip(path, 5 * PAGE + 300);
    expect(await code(archive, name)).toBe(201);
    expect(await code(archive, name, { allowTorn: true })).toBe(0);
    // What follows is of an older segment, recycled: a torn tail.
    const recycled = Buffer.from(whole);
    for (let at = 5 * PAGE; at < SEGMENT; at += PAGE) {
      recycled.writeBigUInt64LE(BigInt(at) + 0x300000n, at + 8);
      recycled.writeUInt16LE(whole.readUInt16LE(PAGE), at);
    }
    writeFileSync(path, recycled);
    expect(await code(archive, name)).toBe(0);
  });

  test('wherever it is torn, that is no damage', async () => {
    const archive = archiveOf('mixed-17');
    const path = join(archive.dir, `${seg(6)}.partial`);
    const whole = readFileSync(path);
    for (let at = 100; at < 0xa2de8; at += 21_503) {
      const torn = Buffer.from(whole);
      torn.fill(0, at);
      writeFileSync(path, torn);
      expect(await fetch(archive, seg(6))).toMatchObject({ code: 0, text: '' });
      // The same over an older segment.
      for (let i = at; i < SEGMENT; i++) torn[i] = whole[i % 50_000]!;
      writeFileSync(path, torn);
      expect(await fetch(archive, seg(6))).toMatchObject({ code: 0, text: '' });
    }
  });

  test('one that is not the end is a hole', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, seg(8));
    renameSync(path, `${path}.partial`);
    expect(await code(archive, seg(8))).toBe(0);
    const bytes = readFileSync(`${path}.partial`);
    bytes.fill(0, PAGE);
    writeFileSync(`${path}.partial`, bytes);
    expect(await code(archive, seg(8))).toBe(201);
  });

  test('the server keeps what it has more of', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, PARTIAL);
    const whole = readFileSync(path);
    const cut = Buffer.from(whole);
    cut.fill(0, 0xb0);
    writeFileSync(path, cut);
    writeFileSync(join(archive.out, seg(12)), whole);
    expect(await code(archive, seg(12))).toBe(1);
    writeFileSync(path, whole);
    writeFileSync(join(archive.out, seg(12)), cut);
    expect(await code(archive, seg(12))).toBe(0);
    // But not less than was acknowledged.
    writeFileSync(path, cut);
    await writeLedger(archive.dir, [[1, '0/600000']], '0/C000D8');
    expect(await code(archive, seg(12))).toBe(201);
  });

  test('a file that grows while it is read gives a state that it had', async () => {
    const archive = archiveOf('mixed-17');
    const path = join(archive.dir, `${seg(6)}.partial`);
    const whole = readFileSync(path);
    const early = Buffer.from(whole);
    early.fill(0, 3 * PAGE + 100);
    writeFileSync(path, early);
    // The receiver writes on as soon as the first piece was read.
    const real = fs.readSync;
    let reads = 0;
    vi.spyOn(fs, 'readSync').mockImplementation(((...args: Parameters<typeof fs.readSync>) => {
      const n = real(...args);
      if ((args[2] as number | undefined) !== undefined && ++reads === 1)
        writeFileSync(path, whole);
      return n;
    }) as typeof fs.readSync);
    expect(await fetch(archive, seg(6))).toMatchObject({ code: 0, text: '' });
  });
});

describe('races with a receiver', () => {
  test('a partial that is completed between listing and opening', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, seg(8));
    renameSync(path, `${path}.partial`);
    const real = fs.statSync;
    let renamed = false;
    vi.spyOn(fs, 'statSync').mockImplementation(((...args: Parameters<typeof fs.statSync>) => {
      const result = real(...args);
      // Found as partial; the next call finds that it is not any more.
      if (!renamed && result && args[0] === `${path}.partial`) {
        renamed = true;
        renameSync(`${path}.partial`, path);
      }
      return result;
    }) as typeof fs.statSync);
    expect(await fetch(archive, seg(8))).toMatchObject({ code: 0, result: { path } });
    expect(renamed).toBe(true);
  });

  test('a plain file that is compressed between listing and opening', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, seg(8));
    const real = fs.statSync;
    vi.spyOn(fs, 'statSync').mockImplementation(((...args: Parameters<typeof fs.statSync>) => {
      const result = real(...args);
      if (args[0] === path && existsSync(path)) {
        writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)));
        rmSync(path);
      }
      return result;
    }) as typeof fs.statSync);
    expect(await fetch(archive, seg(8))).toMatchObject({
      code: 0,
      result: { path: `${path}.gz` },
    });
  });

  test.each(['compressed', 'removed'])('a segment before it that is %s meanwhile', async (how) => {
    const archive = archiveOf('record-across-segments');
    const before = join(archive.dir, seg(6));
    const real = fs.openSync;
    let opened = 0;
    vi.spyOn(fs, 'openSync').mockImplementation(((...args: Parameters<typeof fs.openSync>) => {
      // Its first page was read; what leads into the next segment is at its end.
      if (args[0] === before && ++opened === 2) {
        if (how === 'compressed') writeFileSync(`${before}.gz`, gzipSync(readFileSync(before)));
        rmSync(before);
      }
      return real(...args);
    }) as typeof fs.openSync);
    expect(await fetch(archive, seg(7))).toMatchObject({ code: 0 });
    expect(existsSync(before)).toBe(false);
  });

  test('a partial that comes while its absence is explained', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, `${seg(12)}.partial`);
    const away = join(archive.out, 'away');
    renameSync(path, away);
    const list = nodeFileSystem.readdir;
    vi.spyOn(nodeFileSystem, 'readdir').mockImplementation((dir) => {
      if (dir === archive.dir && existsSync(away)) renameSync(away, path);
      return list(dir);
    });
    expect(await fetch(archive, seg(12))).toMatchObject({ code: 0 });
  });

  test('a file server whose handle of a replaced file is stale', async () => {
    const archive = archiveOf('switch');
    const path = join(archive.dir, `${seg(12)}.partial`);
    const stale = (syscall: string) => Object.assign(new Error(), { code: 'ESTALE', syscall });
    const { statSync, readSync } = fs;
    let looks = 0;
    vi.spyOn(fs, 'statSync').mockImplementation(((...args: Parameters<typeof fs.statSync>) => {
      // Asked again by its name it knows the file that has the name now.
      if (args[0] === path && ++looks === 1) throw stale('stat');
      return statSync(...args);
    }) as typeof fs.statSync);
    let reads = 0;
    vi.spyOn(fs, 'readSync').mockImplementation(((...args: Parameters<typeof fs.readSync>) => {
      if (looks > 0 && ++reads === 1) throw stale('read');
      return readSync(...args);
    }) as typeof fs.readSync);
    expect(await fetch(archive, seg(12))).toMatchObject({ code: 0, result: { path } });
    expect([looks, reads > 1]).toEqual([3, true]);
  });

  test('an archive that goes away in the middle', async () => {
    const archive = archiveOf('switch');
    const real = fs.statSync;
    vi.spyOn(fs, 'statSync').mockImplementation(((...args: Parameters<typeof fs.statSync>) => {
      const result = real(...args);
      rmSync(archive.dir, { recursive: true, force: true });
      return result;
    }) as typeof fs.statSync);
    expect(await code(archive, seg(8))).toBe(205);
    expectClean(archive);
  });
});

describe('what cannot be read or written', () => {
  test.skipIf(isRoot)('an unreadable file or directory (root may read all)', async () => {
    const archive = archiveOf('switch');
    chmodSync(join(archive.dir, seg(6)), 0);
    expect(await code(archive, seg(6))).toBe(205);
    chmodSync(archive.dir, 0);
    expect(await code(archive, seg(7))).toBe(205);
    chmodSync(archive.dir, 0o700);
  });

  test('the segment before: what the server has of it serves, or nothing does', async () => {
    const archive = archiveOf('record-across-segments');
    const before = join(archive.dir, seg(6));
    const real = fs.openSync;
    vi.spyOn(fs, 'openSync').mockImplementation(((...args: Parameters<typeof fs.openSync>) => {
      if (args[0] !== before) return real(...args);
      throw Object.assign(new Error('EIO'), { code: 'EIO', syscall: 'open' });
    }) as typeof fs.openSync);
    expect(await code(archive, seg(7))).toBe(205);
    copyFileSync(before, join(dirname(archive.target), seg(6)));
    expect(await code(archive, seg(7))).toBe(0);
  });

  test.each(['EIO', 'EACCES', 'ETIMEDOUT'])('%s when opening the archive', async (errno) => {
    const archive = archiveOf('switch');
    const real = fs.openSync;
    vi.spyOn(fs, 'openSync').mockImplementation(((...args: Parameters<typeof fs.openSync>) => {
      if (args[0] !== archive.dir) return real(...args);
      throw Object.assign(new Error(errno), { code: errno, syscall: 'open' });
    }) as typeof fs.openSync);
    expect(await code(archive, seg(6))).toBe(205);
    expect(await code(archive, '00000002.history')).toBe(205);
  });

  test('a target that cannot be', async () => {
    const archive = archiveOf('switch');
    expect(await code(archive, seg(6), { target: join(archive.out, 'no', 'where') })).toBe(204);
    mkdirSync(archive.target);
    expect(await code(archive, seg(6))).toBe(204);
    expectClean(archive, 'RECOVERYXLOG');
  });

  test.each(['ENOSPC', 'EIO'])('%s when writing or syncing', async (errno) => {
    const archive = archiveOf('switch');
    const fail = () => {
      throw Object.assign(new Error(errno), { code: errno, syscall: 'x' });
    };
    vi.spyOn(fs, 'fsyncSync').mockImplementation(fail);
    expect(await code(archive, seg(6))).toBe(204);
    vi.restoreAllMocks();
    vi.spyOn(fs, 'renameSync').mockImplementation(fail);
    expect(await code(archive, seg(6))).toBe(204);
    vi.restoreAllMocks();
    vi.spyOn(fs, 'writeSync').mockImplementation(fail);
    expect(await code(archive, `${seg(12)}`)).toBe(204);
    vi.restoreAllMocks();
    for (const [method, suffix] of [
      ['gzip', '.gz'],
      ['lz4', '.lz4'],
    ] as const) {
      const path = join(archive.dir, seg(method === 'gzip' ? 6 : 7));
      await compressFile(path, path + suffix, SEGMENT, { method, sync: false });
      rmSync(path);
      vi.spyOn(fs, 'writeSync').mockImplementation(fail);
      expect(await code(archive, basename(path))).toBe(204);
      vi.restoreAllMocks();
    }
    expectClean(archive);
  });

  test('a name that is none', async () => {
    const archive = archiveOf('switch');
    for (const name of ['x', seg(6).toLowerCase().replace('6', 'b'), `${seg(6)}.gz`, '../x']) {
      expect(await code(archive, name)).toBe(200);
    }
    expect(await code(archive, '000000000000000000000006')).toBe(200);
  });
});

describe('patience', () => {
  const base = { places: ['/x'], name: seg(6), target: '/y' };

  test('a standby tries a passing cause again, then goes on without', async () => {
    const archive = archiveOf('switch');
    const away = `${archive.dir}.away`;
    renameSync(archive.dir, away);
    const options = { places: [archive.dir], name: seg(6), target: archive.target };
    const patience = { standby: true, wait: 0 };
    // It comes back while the next try is waited for.
    const failing = (o: FetchOptions) =>
      fetchFile(o).catch((e) => {
        if (existsSync(away)) renameSync(away, archive.dir);
        throw e;
      });
    expect(await fetchRetrying(failing, options, patience)).toMatchObject({ found: true });
    renameSync(archive.dir, away);
    let tries = 0;
    const counted = (o: FetchOptions) => {
      tries++;
      return fetchFile(o);
    };
    expect(await fetchRetrying(counted, options, patience)).toMatchObject({
      found: false,
      unknown: { code: 'WK_ARCHIVE_ACCESS' },
    });
    expect(tries).toBe(6);
    await expect(
      fetchRetrying(fetchFile, options, { standby: false, wait: 0 }),
    ).rejects.toMatchObject({ code: 'WK_ARCHIVE_ACCESS' });
  });

  test('damage does not pass', async () => {
    const archive = archiveOf('switch');
    flip(join(archive.dir, seg(6)), 200);
    const options = { places: [archive.dir], name: seg(6), target: archive.target };
    let calls = 0;
    const counted = (o: FetchOptions) => {
      calls++;
      return fetchFile(o);
    };
    await expect(fetchRetrying(counted, options, { standby: true, wait: 0 })).rejects.toMatchObject(
      { code: 'WK_CORRUPT_WAL' },
    );
    expect(calls).toBe(1);
  });

  test('a segment is waited for, a history is not', async () => {
    let calls = 0;
    const third = async () =>
      ++calls < 3 ? { found: false as const, reason: '' } : { found: true as const, path: '' };
    const patience = { standby: false, wait: 10 };
    expect(await fetchRetrying(third, base, patience)).toMatchObject({ found: true });
    const never = async () => ({ found: false as const, reason: '' });
    const history = { ...base, name: '00000002.history' };
    expect(await fetchRetrying(never, history, patience)).toMatchObject({ found: false });
    const began = performance.now();
    await fetchRetrying(never, base, { standby: false, wait: 0.3 });
    expect(performance.now() - began).toBeGreaterThan(290);
  });
});
