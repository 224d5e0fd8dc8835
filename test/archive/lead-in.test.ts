import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeEach, expect, it } from 'vitest';
import { anchoredVerifier, leadIn } from '../../src/archive/lead-in.js';
import { scanDirectory } from '../../src/archive/wal-directory.js';
import { nodeFileSystem } from '../../src/files/file-system.js';
import type { Lsn } from '../../src/lsn.js';
import { isStoredGood, storedWal } from '../../src/receive/start/stored-wal.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { faultyFileSystem } from '../support/faulty-fs.js';
import { scratchDir } from '../support/scratch.js';
import { loadFixture } from '../wal/fixtures.js';
import { makeWal } from '../wal/synthetic.js';

/** A record from the first segment to the third, and two more behind it. */
const wal = loadFixture('record-across-segments');
const { segmentSize } = wal;
const FIRST = 0x600028n as Lsn;
const SECOND = 0x8642d0n as Lsn;
/** Where the third segment begins. */
const startLsn = 0x800000n as Lsn;
const OPTIONS = { startLsn, segmentSize, timeline: 1, systemId: wal.systemId };

let dir: string;
beforeEach(() => {
  dir = scratchDir('anchor');
});

const name = (n: number) =>
  segmentFileName(1, segmentOf(wal.start, segmentSize) + BigInt(n), segmentSize);
const segment = (n: number) =>
  Buffer.from(wal.bytes.subarray(n * segmentSize, (n + 1) * segmentSize));
const put = (n: number, suffix = '', bytes: Uint8Array = segment(n)) =>
  writeFileSync(join(dir, `${name(n)}${suffix}`), bytes);
const spoilt = (n: number, at: number) => {
  const bytes = segment(n);
  bytes[at] = bytes[at]! ^ 4;
  return bytes;
};

const look = async (fs = nodeFileSystem) => {
  const said: string[] = [];
  const verifier = await anchoredVerifier(dir, OPTIONS, fs, (...what) => said.push(what.join(' ')));
  return { verifier, said };
};

it.each(['', '.gz'])(
  'knows the record that goes on, from segments stored as x%s',
  async (suffix) => {
    for (const n of [0, 1]) put(n, suffix, suffix ? gzipSync(segment(n)) : segment(n));
    const { verifier, said } = await look();
    expect(verifier?.position).toBe(startLsn);
    expect(verifier?.feed(spoilt(2, 0x3000), 0, 0x70000)).toMatchObject({
      kind: 'record-crc',
      validEnd: wal.start,
    });
    expect(said).toEqual([]);
  },
);

it('knows a record behind the rest of one whose beginning is not there', async () => {
  const size = 1.2 * segmentSize;
  const two = makeWal([{ body: Buffer.alloc(size, 1) }, { body: Buffer.alloc(size, 2) }]);
  const part = (n: number) => two.bytes.subarray(n * segmentSize, (n + 1) * segmentSize);
  writeFileSync(join(dir, '000000010000000000000051'), part(1));
  const at = { startLsn: (two.start + BigInt(2 * segmentSize)) as Lsn, segmentSize, timeline: 1 };
  const verifier = await anchoredVerifier(dir, at, nodeFileSystem);
  const damaged = Buffer.from(part(2));
  damaged[1000] = damaged[1000]! ^ 1;
  expect(verifier?.feed(damaged)).toMatchObject({ kind: 'record-crc' });
});

it('says nothing of segments that are not there', async () => {
  put(1);
  expect(await look()).toEqual({ verifier: undefined, said: [] });
});

it.each([
  ['is damaged', () => put(1, '', spoilt(1, 8196)), /page/],
  ['is too short', () => put(1, '', segment(1).subarray(0, 5000)), /ends too early/],
  [
    'is cut within its compression',
    () => put(1, '.gz', gzipSync(segment(1)).subarray(0, 900)),
    /early/,
  ],
  ['is a directory', () => mkdirSync(join(dir, name(1))), /directory/],
])('says that a segment %s', async (_what, place, why) => {
  put(0);
  place();
  const { verifier, said } = await look();
  expect(verifier).toBeUndefined();
  expect(said).toEqual([expect.stringMatching(why)]);
  expect(said[0]).toContain(name(1));
});

it('takes no error of the disk for a segment that is not there', async () => {
  for (const n of [0, 1]) put(n);
  for (const errno of ['EIO', 'EMFILE', 'ENOSPC']) {
    const { fs } = faultyFileSystem(({ op }) => (op === 'read' ? { errno } : undefined));
    await expect(look(fs)).rejects.toThrow(/could not read/);
  }
});

const partials = async () => {
  const { segments } = await scanDirectory(dir, segmentSize);
  return segments.filter((s) => s.partial);
};
const isGood = async (lsn: Lsn) =>
  isStoredGood(lsn, dir, OPTIONS, await partials(), nodeFileSystem);

it('finds a refused record stored good, over several segments', async () => {
  for (const n of [0, 1]) put(n);
  expect(await isGood(FIRST)).toBe(false);
  put(2, '.partial', segment(2).subarray(0, 0x60000));
  expect(await isGood(FIRST)).toBe(false);
  put(2, '.partial');
  expect(await isGood(FIRST)).toBe(true);
  expect(await isGood(SECOND)).toBe(true);
  expect(await isGood(wal.end)).toBe(false);
});

it('does not find it good where any part of it is damaged', async () => {
  for (const at of [0, 1]) {
    for (const n of [0, 1]) put(n, '', n === at ? spoilt(n, 0x3000) : segment(n));
    put(2, '.partial');
    expect(await isGood(FIRST)).toBe(false);
  }
  put(1);
  put(2, '.partial', spoilt(2, 0x3000));
  expect(await isGood(FIRST)).toBe(false);
});

it('finds it good in a second partial, and not without its beginning', async () => {
  for (const n of [0, 1]) put(n);
  put(2, '.partial', spoilt(2, 0x3000));
  put(2, '.gz.partial', gzipSync(segment(2)));
  expect(await isGood(FIRST)).toBe(true);
  rmSync(join(dir, name(0)));
  expect(await isGood(FIRST)).toBe(false);
  expect(await isGood(SECOND)).toBe(true);
});

it('sees damage in the rest of a record whose beginning is stored', async () => {
  for (const n of [0, 1]) put(n);
  const anchor = () => anchoredVerifier(dir, OPTIONS, nodeFileSystem);
  const stored = (acknowledged: bigint, known = true) =>
    storedWal(
      ...([dir, startLsn, acknowledged, 1, segmentSize, nodeFileSystem] as const),
      ...(known ? [anchor] : []),
    );
  put(2, '.partial');
  const all = { end: wal.end, sound: wal.end, torn: false };
  expect(await stored(wal.end)).toEqual(all);
  // Nobody can tell then.
  expect(await stored(wal.end, false)).toEqual({ ...all, sound: startLsn });
  put(2, '.partial', spoilt(2, 0x3000));
  const none = { end: startLsn, sound: startLsn };
  expect(await stored(startLsn + 0x5000n)).toEqual({ ...none, torn: true });
  const fault = expect.objectContaining({ kind: 'record-crc' });
  expect(await stored(wal.end)).toEqual({ ...none, torn: false, fault });
  expect(await stored(wal.end, false)).toEqual({ ...all, sound: startLsn });
});

it('knows the first record of a segment that begins with none from before', async () => {
  const begin = wal.start;
  const at = begin + 0x8000n;
  put(0, '.partial', segment(0).subarray(0, 0x10000));
  expect(await storedWal(dir, begin, at, 1, segmentSize)).toMatchObject({ end: begin, torn: true });
});

const candidate = (n: number, suffix = '') => ({
  path: join(dir, `${name(n)}${suffix}`),
  compression: suffix === '.gz' ? ('gzip' as const) : ('none' as const),
});
const numberOf = (wanted: string) => [0, 1, 2].find((n) => name(n) === wanted) as number;

it('reads from where the record begins, unless all of its segment is to be checked', async () => {
  const many = makeWal(Array.from({ length: 200 }, () => ({ body: Buffer.alloc(7000, 1) })));
  const first = Buffer.from(many.bytes.subarray(0, segmentSize));
  first[0x2100] = first[0x2100]! ^ 1;
  const path = join(dir, '000000010000000000000050');
  writeFileSync(path, first);
  const startLsn = (many.start + BigInt(segmentSize)) as Lsn;
  const look = (whole: boolean) =>
    leadIn(
      { startLsn, segmentSize, timeline: 1 },
      () => [{ path, compression: 'none' }],
      nodeFileSystem,
      { whole },
    );
  const tail = await look(false);
  expect(tail.state).toBe('sound');
  const verifier = tail.state === 'sound' ? tail.verifier : undefined;
  expect(verifier?.feed(many.bytes.subarray(segmentSize))).toBeUndefined();
  expect(await look(true)).toMatchObject({
    state: 'unsound',
    path,
    why: expect.stringMatching(/checksum/),
  });
});

it('takes the first file of a segment that begins as it', async () => {
  put(0);
  put(1, '.gz', gzipSync(segment(1)));
  put(1, '.other', segment(0));
  const candidates = (wanted: string) => {
    const n = numberOf(wanted);
    return n === 0 ? [candidate(0)] : [candidate(1, '.other'), candidate(1, '.gz')];
  };
  expect(await leadIn(OPTIONS, candidates, nodeFileSystem)).toMatchObject({ state: 'sound' });
  rmSync(join(dir, `${name(1)}.gz`));
  const only = (wanted: string) =>
    numberOf(wanted) === 0 ? [candidate(0)] : [candidate(1, '.other')];
  expect(await leadIn(OPTIONS, only, nodeFileSystem)).toMatchObject({
    state: 'unsound',
    path: candidate(1, '.other').path,
    why: expect.stringMatching(/address/),
  });
});

it('looks again for a file that is gone when it is to be read', async () => {
  put(0);
  put(1, '.gz', gzipSync(segment(1)));
  let looks = 0;
  const candidates = (wanted: string) => {
    if (numberOf(wanted) === 0) return [candidate(0)];
    return [candidate(1, ++looks === 1 ? '' : '.gz')];
  };
  expect(await leadIn(OPTIONS, candidates, nodeFileSystem)).toMatchObject({ state: 'sound' });
  expect(looks).toBe(2);
  const never = () => [candidate(1)];
  expect(await leadIn(OPTIONS, never, nodeFileSystem)).toMatchObject({ state: 'unsound' });
});
