import { createHash } from 'node:crypto';
import {
  constants,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { DiskFullError, FsyncError, RewriteError, type WalkeepError } from '../../../src/errors.js';
import { type Lsn, parseLsn } from '../../../src/lsn.js';
import { BulkStage, type StagedBlock } from '../../../src/receive/target/bulk-stage.js';
import {
  SegmentFinisher,
  type SegmentFinisherOptions,
} from '../../../src/receive/target/segment-finisher.js';
import { SegmentWriter } from '../../../src/receive/target/segment-writer.js';
import { type Fault, faultyFileSystem } from '../../support/faulty-fs.js';
import { SWITCH_PLACES, switchedWal } from '../../wal/switched.js';

const MB = 1024 * 1024;
const START = parseLsn('0/3000000');
const NAMES = ['000000010000000000000030', '000000010000000000000031', '000000010000000000000032'];

const NAME_50 = '000000010000000000000050';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'walkeep-writer-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** Bytes that differ everywhere, so that a wrong offset shows. */
function wal(length: number): Buffer {
  const out = Buffer.alloc(length);
  for (let i = 0; i < length; i += 32) createHash('sha256').update(`${i}`).digest().copy(out, i);
  return out;
}
const WAL = wal(2 * MB + MB / 2);

function setUp(
  options: {
    decide?: Parameters<typeof faultyFileSystem>[0];
    start?: Lsn;
    compareUntil?: Lsn;
    soundUntil?: Lsn;
    sync?: boolean;
    directIo?: boolean;
    convert?: SegmentFinisherOptions['convert'];
    record?: SegmentFinisherOptions['record'];
  } = {},
) {
  const { fs, log } = faultyFileSystem(options.decide);
  const finished: string[] = [];
  const failures: WalkeepError[] = [];
  const refills: Lsn[] = [];
  const common = { directory: dir, segmentSize: MB, sync: options.sync ?? true, fs };
  const finisher: SegmentFinisher = new SegmentFinisher({
    ...common,
    onDurable: (end) => writer.finished(end),
    record: options.record ?? (async (lsn) => void log.push(`record ${lsn}`)),
    onFinished: (s) => void finished.push(s.path),
    onProgress: () => undefined,
    onFailure: (e) => failures.push(e),
    ...(options.convert ? { convert: options.convert } : {}),
  });
  const writer: SegmentWriter = new SegmentWriter({
    ...common,
    timeline: 1,
    startLsn: options.start ?? START,
    mode: 0o600,
    compareUntil: options.compareUntil ?? 0n,
    soundUntil: options.soundUntil ?? 0n,
    directIo: options.directIo ?? true,
    finisher,
    onRefill: (lsn) => refills.push(lsn),
  });
  const feed = (bytes: Buffer, ...cuts: number[]) => {
    const parts: Buffer[] = [];
    let at = 0;
    for (const cut of [...cuts, bytes.length]) {
      parts.push(bytes.subarray(at, cut));
      at = cut;
    }
    writer.writeSync(parts);
  };
  const { positions } = writer;
  return { writer, finisher, positions, log, finished, failures, refills, feed };
}

function stored(): Buffer {
  return Buffer.concat([
    readFileSync(join(dir, NAMES[0] as string)),
    readFileSync(join(dir, NAMES[1] as string)),
    readFileSync(join(dir, `${NAMES[2]}.partial`)),
  ]);
}

/** Without the dotfiles of a writer that still runs. */
const walFiles = () => readdirSync(dir).filter((name) => !name.startsWith('.'));

const expected = Buffer.concat([WAL, Buffer.alloc(MB / 2)]);

describe('SegmentWriter', () => {
  it('cuts the stream into segments, whatever the chunks', async () => {
    for (const cuts of [[], [1], [MB - 1, MB, MB + 1], [MB / 2, 2 * MB, 2 * MB + 1]]) {
      const s = setUp();
      s.feed(WAL, ...cuts);
      await s.writer.close();
      expect(stored().equals(expected)).toBe(true);
      expect(s.positions.flushed).toBe(WAL.length);
      rmSync(dir, { recursive: true });
      dir = mkdtempSync(join(tmpdir(), 'walkeep-writer-'));
    }
  });

  it('writes many small chunks, and short writes, in order', async () => {
    let short = true;
    const decide = ({ op }: { op: string }): Fault | undefined => {
      short = !short;
      return op === 'writevSync' && short ? { take: 1000 } : undefined;
    };
    const s = setUp({ decide });
    s.feed(WAL, ...Array.from({ length: 2000 }, (_, i) => i * 97));
    await s.writer.close();
    expect(stored().equals(expected)).toBe(true);
  });

  it('writes the same through the thread pool', async () => {
    const s = setUp();
    await s.writer.write([WAL.subarray(0, 5000), WAL.subarray(5000)]);
    await s.writer.close();
    expect(stored().equals(expected)).toBe(true);
  });

  describe('with blocks of a stage', () => {
    /** Writes all of it in blocks, as the stream does in bulk. */
    async function writeBlocks(s: ReturnType<typeof setUp>, stage = new BulkStage(MB)) {
      const blocks: StagedBlock[] = [];
      // The first few bytes came otherwise: nothing is aligned by itself.
      await s.writer.write([WAL.subarray(0, 100)]);
      for (let at = 100; at < WAL.length; at += 70_000) {
        stage.add(WAL.subarray(at, at + 70_000), at, (b) => blocks.push(b));
      }
      const last = stage.take();
      if (last) blocks.push(last);
      while (blocks.length > 0) await s.writer.write(blocks.splice(0, 3).map((b) => b.bytes));
      await s.writer.close();
      stage.close();
    }
    /** The descriptors that were opened with O_DIRECT. */
    const direct = (flags: unknown) => (Number(flags) & constants.O_DIRECT) !== 0;

    it('writes the same past the page cache, short writes included', async () => {
      let n = 0;
      const s = setUp({
        decide: ({ op }) => (op === 'writev' && n++ % 3 === 1 ? { take: 5000 } : undefined),
      });
      await writeBlocks(s);
      expect(stored().equals(expected)).toBe(true);
      expect(s.positions.flushed).toBe(WAL.length);
    });

    it.each([
      ['cannot be opened so', 'openSync'],
      ['wants another alignment', 'writev'],
    ])('writes through the page cache where a file %s', async (_, failing) => {
      let failed = 0;
      const s = setUp({
        decide: ({ op, args }) => {
          const hit = op === failing && (op === 'writev' || direct(args[1])) && failed === 0;
          // Less than a page is never written directly.
          if (hit && (op !== 'writev' || (args[1] as Uint8Array[])[0]!.length > 4096)) {
            failed += 1;
            return { errno: 'EINVAL' };
          }
          return undefined;
        },
      });
      await writeBlocks(s);
      expect(failed).toBe(1);
      expect(stored().equals(expected)).toBe(true);
    });

    it('does not open a file so unless it may', async () => {
      const opened: boolean[] = [];
      const s = setUp({
        directIo: false,
        decide: ({ op, args }) => {
          if (op === 'openSync') opened.push(direct(args[1]));
          return undefined;
        },
      });
      await writeBlocks(s);
      expect(stored().equals(expected)).toBe(true);
      expect(opened).not.toContain(true);
    });

    it('reports a full disk as such', async () => {
      const s = setUp({
        decide: ({ op, args }) => {
          const large = op === 'writev' && (args[1] as Uint8Array[])[0]!.length > 4096;
          return large ? { errno: 'ENOSPC' } : undefined;
        },
      });
      await expect(writeBlocks(s)).rejects.toThrow(DiskFullError);
      await s.writer.close();
    });
  });

  it('syncs, records, renames and syncs the directory in this order', async () => {
    const s = setUp();
    s.feed(WAL.subarray(0, MB));
    await s.finisher.drain();
    const order = ['fdatasync', 'record 51380224', `renameSync ${NAMES[0]}.partial ${NAMES[0]}`];
    const places = order.map((o) => s.log.indexOf(o));
    expect(places.every((p) => p >= 0)).toBe(true);
    expect([...places].sort((a, b) => a - b)).toEqual(places);
    expect(s.positions.flushed).toBe(MB);
    await s.writer.close();
  });

  it('does not count as flushed what no sync covers', async () => {
    const s = setUp();
    s.feed(WAL.subarray(0, 1000));
    expect(s.positions.flushed).toBe(0);
    s.writer.syncSync();
    expect(s.positions.flushed).toBe(1000);
    // The new name is as good as lost until its directory is synced.
    const named = s.log.findIndex((l) => l.startsWith('renameSync'));
    expect(s.log.lastIndexOf('fsyncSync')).toBeGreaterThan(named);
    s.feed(WAL.subarray(1000, 2000));
    expect(s.positions.flushed).toBe(1000);
    await s.writer.close();
  });

  it('names a new file once its size is durable, and makes the name durable', async () => {
    // An empty partial left by a power cut would be taken for the wish to start there.
    const s = setUp();
    s.feed(WAL.subarray(0, 1000));
    const created = s.log.filter((l) => /^(ftruncateSync|fsync|renameSync)/.test(l)).slice(0, 4);
    const rename = `renameSync .walkeep-new ${NAMES[0]}.partial`;
    expect(created).toEqual(['ftruncateSync', 'fsyncSync', rename, 'fsync']);
    await s.writer.close();
  });

  it('covers a full segment that is not finished yet when a commit behind it is synced', async () => {
    const s = setUp();
    s.feed(WAL.subarray(0, MB + 100));
    s.writer.syncSync();
    expect(s.log.filter((l) => l === 'fdatasyncSync')).toHaveLength(2);
    expect(s.positions.flushed).toBe(MB + 100);
    await s.writer.close();
  });

  it('never syncs again after a failed sync', async () => {
    const s = setUp({
      decide: ({ op }) => (op === 'fdatasyncSync' ? { errno: 'EIO' } : undefined),
    });
    s.feed(WAL.subarray(0, 1000));
    expect(() => s.writer.syncSync()).toThrow(FsyncError);
    expect(() => s.writer.syncSync()).toThrow(FsyncError);
    await expect(s.writer.close()).rejects.toThrow(FsyncError);
    expect(s.log.filter((l) => l === 'fdatasyncSync')).toHaveLength(1);
    expect(s.positions.flushed).toBe(0);
  });

  it('stops finishing after a failed sync and keeps the partial name', async () => {
    const s = setUp({ decide: ({ op }) => (op === 'fdatasync' ? { errno: 'EIO' } : undefined) });
    s.feed(WAL.subarray(0, MB));
    await expect(s.finisher.drain()).rejects.toThrow(FsyncError);
    expect(s.failures).toHaveLength(1);
    expect(walFiles()).toEqual([`${NAMES[0]}.partial`]);
    await expect(s.writer.close()).rejects.toThrow(FsyncError);
  });

  it('gives no final name after a failed sync of a commit, though its own went well', async () => {
    const s = setUp({
      decide: ({ op }) => (op === 'fdatasyncSync' ? { errno: 'ENOSPC' } : undefined),
    });
    s.feed(WAL.subarray(0, MB));
    expect(() => s.writer.syncSync()).toThrow(DiskFullError);
    await expect(s.writer.close()).rejects.toThrow(DiskFullError);
    expect(readdirSync(dir)).toEqual([`${NAMES[0]}.partial`]);
  });

  it('takes nothing more after a failed sync', async () => {
    const s = setUp({
      decide: ({ op }) => (op === 'fdatasyncSync' ? { errno: 'ENOSPC' } : undefined),
    });
    s.feed(WAL.subarray(0, 1000));
    expect(() => s.writer.syncSync()).toThrow(DiskFullError);
    expect(() => s.feed(WAL.subarray(1000, MB))).toThrow(DiskFullError);
    await expect(s.writer.close()).rejects.toThrow(DiskFullError);
    expect(readdirSync(dir)).toEqual([`${NAMES[0]}.partial`]);
  });

  it('calls a full disk what it is', () => {
    const s = setUp({
      decide: ({ op }) => (op === 'writevSync' ? { errno: 'ENOSPC' } : undefined),
    });
    expect(() => s.feed(WAL.subarray(0, 1000))).toThrow(DiskFullError);
    expect(s.positions.written).toBe(0);
  });

  it('extends a short partial without truncating it', async () => {
    const path = join(dir, `${NAMES[0]}.partial`);
    writeFileSync(path, WAL.subarray(0, 5000));
    const s = setUp();
    s.feed(WAL.subarray(0, 100));
    expect(statSync(path).size).toBe(MB);
    expect(readFileSync(path).subarray(0, 5000).equals(WAL.subarray(0, 5000))).toBe(true);
    await s.writer.close();
  });

  it('refuses other bytes where acknowledged ones are, and changes nothing', async () => {
    const path = join(dir, `${NAMES[0]}.partial`);
    writeFileSync(path, WAL.subarray(0, 5000));
    const other = Buffer.from(WAL.subarray(0, 6000));
    other[4999] = (other[4999] as number) ^ 1;
    const before = readFileSync(path);
    const s = setUp({ compareUntil: (START + 5000n) as Lsn });
    expect(() => s.feed(other)).toThrow(RewriteError);
    expect(readFileSync(path).subarray(0, 5000).equals(before)).toBe(true);
    await s.writer.close();
  });

  it('replaces freely beyond what was acknowledged', async () => {
    const path = join(dir, `${NAMES[0]}.partial`);
    writeFileSync(path, WAL.subarray(0, 5000));
    const other = Buffer.from(WAL.subarray(0, 6000));
    other[4999] = (other[4999] as number) ^ 1;
    const s = setUp({ compareUntil: (START + 4999n) as Lsn });
    s.feed(other);
    expect(readFileSync(path).subarray(0, 6000).equals(other)).toBe(true);
    await s.writer.close();
  });

  it('fills acknowledged bytes in again that a lying disk lost, and says so', async () => {
    writeFileSync(join(dir, `${NAMES[0]}.partial`), WAL.subarray(0, 4096));
    const s = setUp({ compareUntil: (START + 8192n) as Lsn });
    s.feed(WAL.subarray(0, 10_000));
    expect(s.refills).toEqual([(START + 4096n) as Lsn]);
    await s.writer.close();
  });

  it('does not take a zero that comes as another byte for a loss of the disk', async () => {
    const path = join(dir, `${NAMES[0]}.partial`);
    writeFileSync(path, WAL.subarray(0, 8192));
    const zero = WAL.subarray(4096, 4596).indexOf(0) + 4096;
    const other = Buffer.from(WAL.subarray(0, 8192));
    other[zero] = 0x10;
    const s = setUp({ compareUntil: (START + 8192n) as Lsn });
    expect(() => s.feed(other)).toThrow(RewriteError);
    expect(readFileSync(path).subarray(0, 8192).equals(WAL.subarray(0, 8192))).toBe(true);
    expect(s.refills).toEqual([]);
    await s.writer.close();
  });

  it('fills nothing in where what is stored is known to be good', async () => {
    const path = join(dir, `${NAMES[0]}.partial`);
    writeFileSync(path, WAL.subarray(0, 4096));
    const soundUntil = (START + 8192n) as Lsn;
    const s = setUp({ compareUntil: soundUntil, soundUntil });
    expect(() => s.feed(WAL.subarray(0, 10_000))).toThrow(RewriteError);
    await s.writer.close();
  });

  it.each(SWITCH_PLACES)('compares nothing behind a switch record %s', async (_where, at) => {
    if (at > MB - 24) return;
    const wal = switchedWal(at);
    const path = join(dir, `${NAME_50}.partial`);
    for (const [before, after] of [
      [0, 0xd1],
      [0xd1, 0],
      [0x55, 0xd1],
    ] as const) {
      writeFileSync(path, wal.tail((rest) => rest.fill(before)).subarray(0, MB));
      const s = setUp({ start: wal.start, compareUntil: (wal.start + BigInt(MB)) as Lsn });
      const news = wal.tail((rest) => rest.fill(after));
      s.feed(news, 100_000, 200_001, MB - 5000, MB + 7);
      expect(s.refills).toEqual([]);
      await s.writer.close();
      expect(readFileSync(join(dir, NAME_50)).equals(news.subarray(0, MB))).toBe(true);
      rmSync(join(dir, NAME_50));
      // Before it every bit counts.
      writeFileSync(path, news.subarray(0, MB));
      const flipped = Buffer.from(wal.bytes);
      flipped[at - 40] = flipped[at - 40]! ^ 1;
      const other = setUp({ start: wal.start, compareUntil: (wal.start + BigInt(MB)) as Lsn });
      expect(() => other.feed(flipped, 100_000, 200_001, MB)).toThrow(RewriteError);
      await other.writer.close();
      rmSync(path, { force: true });
    }
  });

  it('uses a spare for the next segment and leaves none behind', async () => {
    const s = setUp();
    await s.writer.prepareSpare();
    s.feed(WAL.subarray(0, 1000));
    expect(s.log).toContain(`renameSync .walkeep-spare ${NAMES[0]}.partial`);
    await s.writer.prepareSpare();
    await s.writer.close();
    expect(readdirSync(dir)).toEqual([`${NAMES[0]}.partial`]);
  });

  it('goes on without a spare that could neither be made nor removed', async () => {
    const decide = ({ op, args }: { op: string; args: readonly unknown[] }): Fault | undefined =>
      op === 'fdatasync' || (op === 'unlinkSync' && `${args[0]}`.endsWith('spare'))
        ? { errno: 'EIO' }
        : undefined;
    const s = setUp({ decide });
    await expect(s.writer.prepareSpare()).resolves.toBeUndefined();
    s.feed(WAL.subarray(0, 1000));
    s.writer.syncSync();
    expect(s.positions.flushed).toBe(1000);
    await s.writer.close();
  });

  it('reports a directory that cannot be opened as an error of its own', () => {
    expect(() =>
      setUp({ decide: ({ op }) => (op === 'openSync' ? { errno: 'ENOSPC' } : undefined) }),
    ).toThrow(DiskFullError);
  });

  it('goes on with a partial that a push brings while its own is made', async () => {
    const path = join(dir, `${NAMES[0]}.partial`);
    const pushed = Buffer.concat([WAL.subarray(0, 9000)], MB);
    const s = setUp({
      decide: ({ op }) => {
        if (op === 'fsyncSync' && walFiles().length === 0) writeFileSync(path, pushed);
        return undefined;
      },
    });
    s.feed(WAL.subarray(0, 100));
    expect(readFileSync(path).equals(pushed)).toBe(true);
    await s.writer.close();
    expect(readdirSync(dir)).toEqual([`${NAMES[0]}.partial`]);
  });

  it('removes of the other partials those that the segment has all of', async () => {
    const other = Buffer.from(WAL.subarray(0, 9000));
    other[8000] = (other[8000] as number) ^ 1;
    writeFileSync(join(dir, `${NAMES[0]}.gz.partial`), gzipSync(WAL.subarray(0, 9000)));
    writeFileSync(join(dir, `${NAMES[1]}.gz.partial`), gzipSync(other));
    const s = setUp();
    s.feed(WAL.subarray(0, 2 * MB));
    await s.writer.close();
    const evidence = `.${NAMES[1]}.gz.partial.replaced`;
    expect(readdirSync(dir).sort()).toEqual([evidence, NAMES[0], NAMES[1]]);
    expect(gunzipSync(readFileSync(join(dir, evidence))).equals(other)).toBe(true);
  });

  it.each(['sync', 'syncSync'] as const)(
    'counts nothing behind a segment as durable while another file has its name: %s',
    async (how) => {
      const old = Buffer.from(WAL.subarray(0, MB));
      old[MB - 9] = old[MB - 9]! ^ 1;
      writeFileSync(join(dir, NAMES[0] as string), old);
      let noted: (() => void) | undefined;
      const s = setUp({
        record: () =>
          new Promise((resolve) => {
            noted = resolve;
          }),
      });
      s.feed(WAL.subarray(0, MB + 1000));
      await vi.waitUntil(() => noted);
      const synced = s.writer[how]();
      // The disk has its turns: what it syncs is not what is waited for.
      const own = await open(join(dir, `${NAMES[1]}.partial`));
      for (let n = 0; n < 5; n++) await own.sync();
      await own.close();
      expect(readFileSync(join(dir, NAMES[0] as string)).equals(old)).toBe(true);
      expect(s.positions.flushed).toBe(how === 'sync' ? 0 : MB);
      noted?.();
      await synced;
      await s.finisher.drain();
      if (how === 'syncSync') s.writer.syncSync();
      expect(s.positions.flushed).toBe(MB + 1000);
      const now = readFileSync(join(dir, NAMES[0] as string));
      expect(now.equals(WAL.subarray(0, MB))).toBe(true);
      await s.writer.close();
    },
  );

  it('makes a name durable that another file had before the next one is given', async () => {
    writeFileSync(join(dir, NAMES[0] as string), 'other');
    const order: string[] = [];
    const s = setUp({
      decide: ({ op, args }) => {
        if (op === 'renameSync' && /[0-9A-F]{24}$/.test(String(args[1]))) {
          order.push(basename(String(args[1])));
        }
        if (op === 'fsync' && readlinkSync(`/proc/self/fd/${args[0]}`) === dir) order.push('sync');
        return undefined;
      },
    });
    s.feed(WAL.subarray(0, 2 * MB));
    await s.writer.close();
    const from = order.indexOf(NAMES[0] as string);
    expect(order.slice(from, from + 3)).toEqual([NAMES[0], 'sync', NAMES[1]]);
  });

  it('counts all as durable at its end, whatever had the name', async () => {
    writeFileSync(join(dir, NAMES[0] as string), 'other');
    const s = setUp();
    s.feed(WAL.subarray(0, MB + 1000));
    await s.writer.close();
    expect(s.positions.flushed).toBe(MB + 1000);
  });

  it.each(['as it is', 'converted'])(
    'leaves no other partial once the final name is there, for good: %s',
    async (how) => {
      writeFileSync(join(dir, `${NAMES[0]}.gz.partial`), gzipSync(WAL.subarray(0, 9000)));
      const synced: string[] = [];
      let left: string[] | undefined;
      let durable = false;
      const stage = async ({ name }: { name: string }) => {
        writeFileSync(join(dir, `.${name}.lz4`), WAL.subarray(0, MB));
        return { temporary: join(dir, `.${name}.lz4`), name: `${name}.lz4` };
      };
      const s = setUp({
        decide: ({ op, args }) => {
          if (/^fd?a?t?a?sync/.test(op)) {
            const path = readlinkSync(`/proc/self/fd/${args[0]}`);
            synced.push(path === dir ? 'directory' : basename(path));
            if (path === dir) durable = !walFiles().includes(`${NAMES[0]}.gz.partial`);
          }
          if (op === 'unlink' && String(args[0]).endsWith('.gz.partial')) {
            // Only the file that replaces it has its WAL then.
            expect(synced).toContain(`${NAMES[0]}.partial`);
          }
          if (op === 'renameSync' && /30(\.lz4)?$/.test(String(args[1]))) {
            left = walFiles();
            expect(durable).toBe(true);
          }
          return undefined;
        },
        ...(how === 'converted' ? { convert: stage } : {}),
      });
      s.feed(WAL.subarray(0, MB));
      await s.writer.close();
      expect(s.failures).toEqual([]);
      expect(left).toEqual([`${NAMES[0]}.partial`]);
    },
  );

  it('keeps all that was found under a final name, one behind the other', async () => {
    for (const what of ['first', 'second']) {
      writeFileSync(join(dir, NAMES[0] as string), what);
      const s = setUp();
      s.feed(WAL.subarray(0, MB));
      await s.writer.close();
    }
    const kept = [`.${NAMES[0]}.replaced`, `.${NAMES[0]}.replaced.2`];
    expect(kept.map((name) => readFileSync(join(dir, name), 'utf8'))).toEqual(['first', 'second']);
  });

  it('keeps a file of the final name that the scan had not accepted', async () => {
    writeFileSync(join(dir, NAMES[0] as string), 'short');
    const s = setUp();
    s.feed(WAL.subarray(0, MB));
    await s.writer.close();
    expect(readFileSync(join(dir, `.${NAMES[0]}.replaced`), 'utf8')).toBe('short');
  });
});

describe('SegmentWriter and SegmentFinisher together', () => {
  it('counts nothing as flushed behind a segment whose sync failed in the background', async () => {
    const s = setUp({ decide: ({ op }) => (op === 'fdatasync' ? { errno: 'EIO' } : undefined) });
    s.feed(WAL.subarray(0, MB));
    await expect(s.finisher.drain()).rejects.toThrow(FsyncError);
    s.feed(WAL.subarray(MB, MB + 1000));
    expect(() => s.writer.syncSync()).toThrow(FsyncError);
    await expect(s.writer.close()).rejects.toThrow(FsyncError);
    expect(s.positions.flushed).toBe(0);
  });

  it('syncs in the background over the end of a segment', async () => {
    const s = setUp();
    s.feed(WAL.subarray(0, 1000));
    const syncing = s.writer.sync();
    s.feed(WAL.subarray(1000, 2 * MB + 1000));
    await syncing;
    expect(s.positions.flushed).toBeGreaterThanOrEqual(1000);
    await s.writer.sync();
    expect(s.positions.flushed).toBe(2 * MB + 1000);
    await s.writer.close();
    expect(s.failures).toEqual([]);
  });

  it('gives no final name to a segment whose background sync failed once', async () => {
    // The first one is that of the next file, made ahead.
    let syncs = 0;
    const s = setUp({
      decide: ({ op }) => {
        if (op === 'fdatasync') syncs += 1;
        return op === 'fdatasync' && syncs === 2 ? { errno: 'EIO' } : undefined;
      },
    });
    s.feed(WAL.subarray(0, 1000));
    const syncing = s.writer.sync();
    syncing.catch(() => undefined);
    s.feed(WAL.subarray(1000, MB));
    await expect(syncing).rejects.toThrow(FsyncError);
    await expect(s.finisher.drain()).rejects.toThrow(FsyncError);
    expect(walFiles()).toEqual([`${NAMES[0]}.partial`]);
    expect(s.positions.flushed).toBe(0);
    await expect(s.writer.close()).rejects.toThrow(FsyncError);
  });

  it('replaces a file of the final name that is the same without keeping a copy', async () => {
    writeFileSync(join(dir, NAMES[0] as string), WAL.subarray(0, MB));
    const s = setUp();
    s.feed(WAL.subarray(0, MB));
    await s.writer.close();
    expect(readdirSync(dir)).toEqual([NAMES[0]]);
  });
});

describe('SegmentFinisher with a conversion', () => {
  /** Conversions that end when and as the test says, the oldest first or not. */
  function conversions() {
    const begun: string[] = [];
    const ends = new Map<string, { done: () => void; fail: (e: Error) => void }>();
    const convert: SegmentFinisherOptions['convert'] = async ({ name }) => {
      begun.push(name);
      await new Promise<void>((done, fail) => ends.set(name, { done, fail }));
      const temporary = join(dir, `.${name}.x`);
      writeFileSync(temporary, name);
      return { temporary, name: `${name}.x` };
    };
    return { begun, ends, convert };
  }
  const five = Buffer.concat([
    WAL.subarray(0, 2 * MB),
    WAL.subarray(0, 2 * MB),
    WAL.subarray(0, MB),
  ]);
  const names = [0, 1, 2, 3, 4].map((n) => `00000001000000000000003${n}`);

  it('keeps three going, and gives final names in order whichever ends first', async () => {
    const c = conversions();
    const s = setUp({ convert: c.convert });
    s.feed(five);
    await vi.waitFor(() => expect(c.begun).toEqual(names.slice(0, 3)));
    c.ends.get(names[1] as string)?.done();
    // Its place is taken, though the first one is not done and so nothing has a final name.
    await vi.waitFor(() => expect(c.begun).toEqual(names.slice(0, 4)));
    expect(s.finished).toEqual([]);
    c.ends.get(names[0] as string)?.done();
    await vi.waitFor(() =>
      expect(s.finished.map((p) => basename(p))).toEqual([`${names[0]}.x`, `${names[1]}.x`]),
    );
    await vi.waitFor(() => expect(c.begun).toEqual(names));
    for (const name of names.slice(2).reverse()) c.ends.get(name)?.done();
    await s.writer.close();
    expect(walFiles()).toEqual(names.map((name) => `${name}.x`));
    expect(s.positions.flushed).toBe(5 * MB);
  });

  it.each(['sync', 'syncSync'] as const)(
    'has a commit sync the old form until the new one has its name: %s',
    async (how) => {
      const synced: string[] = [];
      let noted: (() => void) | undefined;
      const s = setUp({
        decide: ({ op, args }) => {
          if (op.startsWith('fdatasync')) {
            synced.push(basename(readlinkSync(`/proc/self/fd/${args[0]}`)));
          }
          return undefined;
        },
        convert: async ({ name }) => {
          writeFileSync(join(dir, `.${name}.gz`), gzipSync(WAL.subarray(0, MB)));
          return { temporary: join(dir, `.${name}.gz`), name: `${name}.gz` };
        },
        record: () =>
          new Promise((resolve) => {
            noted = resolve;
          }),
      });
      s.feed(WAL.subarray(0, MB + 1000));
      await vi.waitUntil(() => noted);
      await s.writer[how]();
      expect(s.positions.flushed).toBe(MB + 1000);
      expect(synced).toContain(`${NAMES[0]}.partial`);
      noted?.();
      await s.writer.close();
      expect(walFiles()).toEqual([`${NAMES[0]}.gz`, `${NAMES[1]}.partial`]);
      expect(s.failures).toEqual([]);
    },
  );

  it('waits for those under way when one fails, and finishes nothing behind it', async () => {
    const c = conversions();
    const s = setUp({ convert: c.convert });
    s.feed(five.subarray(0, 3 * MB));
    await vi.waitFor(() => expect(c.begun).toHaveLength(3));
    let drained = false;
    const drain = s.finisher.drain().finally(() => {
      drained = true;
    });
    drain.catch(() => undefined);
    c.ends.get(names[2] as string)?.done();
    c.ends.get(names[0] as string)?.fail(new Error('no'));
    await vi.waitFor(() => expect(s.failures).toHaveLength(1));
    expect(drained).toBe(false);
    c.ends.get(names[1] as string)?.done();
    await expect(drain).rejects.toThrow('no');
    expect(s.finished).toEqual([]);
    expect(walFiles()).toEqual(names.slice(0, 3).map((name) => `${name}.partial`));
    await expect(s.writer.close()).rejects.toThrow('no');
  });
});
