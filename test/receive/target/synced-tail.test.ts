import { createHash } from 'node:crypto';
import { constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DiskFullError, FsyncError } from '../../../src/errors.js';
import { parseLsn } from '../../../src/lsn.js';
import { SegmentFinisher } from '../../../src/receive/target/segment-finisher.js';
import { SegmentWriter } from '../../../src/receive/target/segment-writer.js';
import { type Fault, faultyFileSystem } from '../../support/faulty-fs.js';

const MB = 1024 * 1024;
const START = parseLsn('0/3000000');
const NAME = '000000010000000000000030';
const NEXT = '000000010000000000000031';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'walkeep-tail-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** Bytes that differ everywhere, so that a wrong offset shows. */
const WAL = Buffer.alloc(MB + MB / 2);
for (let i = 0; i < WAL.length; i += 32) createHash('sha256').update(`${i}`).digest().copy(WAL, i);

type Call = { op: string; args: readonly unknown[] };
/** A descriptor for commits is opened. */
const opensSynced = ({ op, args }: Call) =>
  op === 'openSync' && (Number(args[1]) & constants.O_DIRECT) !== 0;

interface Options {
  /** Asked for each call; `synced`: it goes to a descriptor for commits, or opens one. */
  decide?: (call: Call, synced: boolean) => Fault | undefined;
  compareUntil?: bigint;
  sync?: boolean;
  directIo?: boolean;
}

/** A writer whose calls are counted, and which has its first byte on the disk. */
async function setUp({ decide, compareUntil = 0n, sync = true, directIo = true }: Options = {}) {
  const calls = { opened: 0, synced: 0, fdatasync: 0 };
  let opening = false;
  const { fs } = faultyFileSystem((call) => {
    const synced = opensSynced(call) || (call.op === 'writevSync' && isSynced(call.args[0]));
    if (call.op === 'fdatasyncSync') calls.fdatasync += 1;
    if (synced && call.op === 'writevSync') calls.synced += 1;
    if (opensSynced(call)) {
      expect(Number(call.args[1]) & constants.O_DSYNC).toBe(constants.O_DSYNC);
      calls.opened += 1;
      opening = true;
    }
    return decide?.(call, synced);
  });
  const fds = new Set<number>();
  const isSynced = (fd: unknown) => fds.has(fd as number);
  const { openSync, closeSync } = fs;
  fs.openSync = (...args) => {
    opening = false;
    const fd = openSync(...args);
    if (opening) fds.add(fd);
    return fd;
  };
  fs.closeSync = (fd) => {
    fds.delete(fd);
    closeSync(fd);
  };
  const common = { directory: dir, segmentSize: MB, sync, fs };
  const finisher: SegmentFinisher = new SegmentFinisher({
    ...common,
    onDurable: (end) => writer.finished(end),
    record: async () => undefined,
    onFinished: () => undefined,
    onProgress: () => undefined,
    onFailure: () => undefined,
  });
  const writer: SegmentWriter = new SegmentWriter({
    ...{ ...common, timeline: 1, startLsn: START },
    ...{ mode: 0o600, compareUntil, directIo, finisher },
  });
  const { positions } = writer;
  /** Writes up to `end` of WAL, durably if that is asked for; true if it took one call. */
  const commit = (end: number, cuts = 0): boolean => {
    const begin = positions.written;
    const chunks: Buffer[] = [];
    for (let i = 0; i <= cuts; i++) {
      const at = (n: number) => begin + Math.floor(((end - begin) * n) / (cuts + 1));
      chunks.push(WAL.subarray(at(i), at(i + 1)));
    }
    const inOne = writer.writeSynced(chunks);
    if (!inOne) {
      expect(positions.written).toBe(begin);
      writer.writeSync(chunks);
      writer.syncSync();
    }
    expect(positions.flushed).toBe(end);
    return inOne;
  };
  commit(1);
  return { writer, finisher, positions, calls, commit, fds };
}

/** The segment as readers see it: WAL up to `end`, and zeros. */
function expectStored(end: number, name = `${NAME}.partial`): void {
  const expected = Buffer.alloc(MB);
  WAL.copy(expected, 0, 0, Math.min(end, MB));
  expect(readFileSync(join(dir, name)).equals(expected)).toBe(true);
}

describe('commits past the page cache', () => {
  it('are durable with one call each, wherever they begin and end', async () => {
    const s = await setUp();
    let end = 1;
    const possible = s.commit(2);
    const before = { ...s.calls };
    let commits = 0;
    for (const step of [1, 4093, 1, 1, 4095, 4096, 4097, 8192, 3, 40_000, 61_440, 100, 12_288]) {
      for (const cuts of [0, 3]) {
        end = s.positions.written + step;
        expect(s.commit(end, cuts)).toBe(possible);
        commits += 1;
        expectStored(end);
      }
    }
    // Not every file system has direct I/O; where it is, nothing else is called.
    if (possible) {
      expect(s.calls).toEqual({ ...before, synced: before.synced + commits });
      expect(before.opened).toBe(1);
    }
    await s.writer.close();
    expect(s.fds.size).toBe(0);
    expectStored(end);
  });

  it('and others that are written otherwise, in any order', async () => {
    const s = await setUp();
    for (let i = 0; s.positions.written < MB - 20_000; i++) {
      const end = s.positions.written + 1 + ((i * 7919) % 9000);
      if (i % 3 === 0) {
        const chunk = WAL.subarray(s.positions.written, end);
        s.writer.writeSync([chunk]);
        // Nothing but a sync covers it: the next commit must not go alone.
        expect(s.writer.writeSynced([Buffer.alloc(1)])).toBe(false);
        if (i % 2 === 0) s.writer.syncSync();
      } else s.commit(end);
      expectStored(end);
    }
    await s.writer.close();
  });

  it('go on in the next segment when the first one has its name', async () => {
    const s = await setUp();
    s.commit(MB - 100);
    // Up to the end and beyond it: a matter of two files.
    expect(s.commit(MB + 100)).toBe(false);
    expect(s.commit(MB + 200)).toBe(false);
    await s.finisher.drain();
    const first = s.calls.opened;
    s.commit(MB + 300);
    expect(s.calls.opened - first).toBeLessThanOrEqual(1);
    s.commit(MB + 9000);
    await s.writer.close();
    expectStored(MB, NAME);
    const next = Buffer.alloc(MB);
    WAL.copy(next, 0, MB, MB + 9000);
    expect(readFileSync(join(dir, `${NEXT}.partial`)).equals(next)).toBe(true);
    expect(s.fds.size).toBe(0);
  });

  it.each<[string, string, (call: Call, synced: boolean) => boolean]>([
    ['opened so', 'EINVAL', (call) => opensSynced(call)],
    ['opened for want of descriptors', 'EMFILE', (call) => opensSynced(call)],
    ['written so', 'EINVAL', (call, synced) => synced && call.op === 'writevSync'],
    ['read', 'EIO', (call) => call.op === 'readSync'],
  ])('are written the ordinary way where a file cannot be %s', async (_, errno, fails) => {
    let failed = 0;
    const s = await setUp({
      decide: (call, synced) => {
        if (!fails(call, synced)) return undefined;
        failed += 1;
        return { errno };
      },
    });
    for (const end of [100, 5000, 9000]) expect(s.commit(end)).toBe(false);
    expect(failed).toBeLessThanOrEqual(1);
    await s.writer.close();
    expectStored(9000);
  });

  it('are written again as a whole after a short write', async () => {
    let short = false;
    const s = await setUp({
      decide: (call, synced) =>
        short && synced && call.op === 'writevSync' ? { take: 4096 } : undefined,
    });
    const possible = s.commit(3000);
    short = true;
    expect(s.commit(10_000)).toBe(false);
    short = false;
    expect(s.commit(20_000)).toBe(possible);
    await s.writer.close();
    expectStored(20_000);
  });

  it('that fail are fatal, and nothing is synced afterwards', async () => {
    let fails = false;
    const s = await setUp({
      decide: (call, synced) =>
        fails && (synced || call.op === 'fdatasyncSync') ? { errno: 'EIO' } : undefined,
    });
    s.commit(3000);
    fails = true;
    expect(() => s.commit(4000)).toThrow(FsyncError);
    fails = false;
    expect(() => s.writer.syncSync()).toThrow(FsyncError);
    expect(s.writer.writeSynced([Buffer.alloc(1)])).toBe(false);
    expect(s.positions.flushed).toBe(3000);
    await expect(s.writer.close()).rejects.toThrow(FsyncError);
    expect(s.fds.size).toBe(0);
  });

  it('for which the disk is full say so, and what was acknowledged stays', async () => {
    let full = false;
    const s = await setUp({
      decide: ({ op }) => (full && op === 'writevSync' ? { errno: 'ENOSPC' } : undefined),
    });
    s.commit(3000);
    full = true;
    expect(() => s.commit(4000)).toThrow(DiskFullError);
    expect(s.positions.flushed).toBe(3000);
    full = false;
    await s.writer.close();
    expectStored(3000);
  });
});

describe('the ordinary way is gone', () => {
  it.each<[string, Options]>([
    ['without direct I/O', { directIo: false }],
    ['without syncs', { sync: false }],
    ['where acknowledged bytes come again', { compareUntil: START + 5000n }],
  ])('%s', async (_, options) => {
    if (options.compareUntil) writeFileSync(join(dir, `${NAME}.partial`), WAL.subarray(0, MB));
    const s = await setUp(options);
    for (const end of [100, 4000, 5000]) expect(s.commit(end)).toBe(false);
    expect(s.calls.opened).toBe(0);
    await s.writer.close();
  });

  it('in a file that was there before: what lies behind the end is not known', async () => {
    const older = Buffer.alloc(MB, 0x77);
    writeFileSync(join(dir, `${NAME}.partial`), older);
    const s = await setUp();
    for (const end of [100, 5000]) expect(s.commit(end)).toBe(false);
    await s.writer.close();
    WAL.copy(older, 0, 0, 5000);
    expect(readFileSync(join(dir, `${NAME}.partial`)).equals(older)).toBe(true);
  });

  it('while a name is not durable', async () => {
    const s = await setUp();
    s.writer.writeSync([WAL.subarray(1, MB)]);
    await s.finisher.drain();
    s.writer.writeSync([WAL.subarray(MB, MB + 10)]);
    // The new file has its name, and nothing has synced the directory since.
    expect(s.writer.writeSynced([WAL.subarray(MB + 10, MB + 20)])).toBe(false);
    await s.writer.close();
  });

  it('for more than the memory holds', async () => {
    const s = await setUp();
    s.commit(100);
    expect(s.commit(100 + 61_441)).toBe(false);
    s.commit(100 + 61_441 + 5);
    await s.writer.close();
    expectStored(100 + 61_441 + 5);
  });
});
