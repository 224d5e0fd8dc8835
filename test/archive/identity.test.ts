import { unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeEach, describe, expect, it } from 'vitest';
import { newestIdentity, readFirstPage, sampleIdentity } from '../../src/archive/identity.js';
import { openDirectory } from '../../src/archive/places/directory-archive.js';
import { StoreSegment } from '../../src/archive/places/store-segment.js';
import { readSegment } from '../../src/archive/segment-reader.js';
import type { StoredSegment } from '../../src/archive/segment-source.js';
import { scanDirectory } from '../../src/archive/wal-directory.js';
import { compressFile } from '../../src/codec/codec.js';
import { contentOf } from '../../src/store/content.js';
import { MemoryStore } from '../../src/store/memory.js';
import { segmentFileName } from '../../src/wal/file-name.js';
import { parseLongHeader } from '../../src/wal/long-header.js';
import { LONG_PAGE_HEADER } from '../../src/wal/page.js';
import { scratchDir } from '../support/scratch.js';

const MB = 1 << 20;

let dir: string;
beforeEach(() => {
  dir = scratchDir('identity');
});

const put = (name: string, content: Uint8Array | string = '') =>
  writeFile(join(dir, name), content);
const full = () => Buffer.alloc(MB);
const name = (segment: number, timeline = 1) => segmentFileName(timeline, BigInt(segment), MB);

/** A first page as a server of `systemId` writes it. */
function page(systemId: bigint, segment: number, timeline = 1): Buffer {
  const bytes = Buffer.alloc(8192);
  bytes.writeUInt16LE(0xd110, 0);
  bytes.writeUInt16LE(0x0002, 2);
  bytes.writeUInt32LE(timeline, 4);
  bytes.writeBigUInt64LE(BigInt(segment) * BigInt(MB), 8);
  bytes.writeBigUInt64LE(systemId, 24);
  bytes.writeUInt32LE(MB, 32);
  bytes.writeUInt32LE(8192, 36);
  return bytes;
}

describe('the newest WAL', () => {
  it('reads the newest readable long header, whatever the compression', async () => {
    await put(name(1), page(11n, 1));
    expect(await newestIdentity(await scanDirectory(dir, MB))).toEqual({
      systemId: 11n,
      timeline: 1,
      pageAddress: BigInt(MB),
      segmentSize: MB,
      blockSize: 8192,
      file: name(1),
    });
    await put(`${name(2)}.gz`, gzipSync(page(22n, 2)));
    expect(await newestIdentity(await scanDirectory(dir, MB))).toMatchObject({ systemId: 22n });
    await put('plain', page(33n, 3));
    const packed = `${name(3)}.lz4.partial`;
    await compressFile(join(dir, 'plain'), join(dir, packed), 8192, { method: 'lz4' });
    expect(await newestIdentity(await scanDirectory(dir, MB))).toMatchObject({ systemId: 33n });
    const first = (path: string) =>
      readFirstPage((limit, take) => readSegment(path, 'lz4', limit, take));
    expect(await first(join(dir, packed))).toHaveLength(LONG_PAGE_HEADER);
  });

  it('passes over files that tell nothing', async () => {
    await put(name(1), page(11n, 1));
    await put(`${name(2)}.partial`, '');
    await put(`${name(3)}.partial`, full());
    await put(`${name(4)}.gz.partial`, gzipSync(full()).subarray(0, 15));
    await put(`${name(5)}.lz4.partial`, 'garbage');
    await put(`${name(6)}.partial`, page(11n, 6).subarray(0, LONG_PAGE_HEADER - 1));
    const scan = await scanDirectory(dir, MB);
    expect(scan.newest?.name).toBe(`${name(6)}.partial`);
    expect(await newestIdentity(scan)).toMatchObject({ systemId: 11n, file: name(1) });
    await unlink(join(dir, name(1)));
    expect(await newestIdentity(await scanDirectory(dir, MB))).toBeUndefined();
  });

  it('accepts no implausible header', () => {
    const good = page(5n, 9);
    expect(parseLongHeader(good)).toBeDefined();
    const without = (at: number, value: number) => {
      const bad = Buffer.from(good);
      bad[at] = value;
      return parseLongHeader(bad);
    };
    for (const [at, value] of [
      [1, 0],
      [2, 0],
      [4, 0],
      [8, 1],
      [24, 0],
      [33, 1],
      [36, 1],
    ] as const) {
      expect(without(at, value)).toBeUndefined();
    }
    expect(parseLongHeader(Buffer.alloc(40))).toBeUndefined();
  });
});

it('a stray file decides nothing where a sample is asked', async () => {
  for (let n = 1; n <= 4; n++) await put(name(n), page(11n, n));
  await put(name(5), page(22n, 5));
  const scan = await scanDirectory(dir, MB);
  const names = scan.segments.map((s) => s.name).reverse();
  expect(await newestIdentity(scan)).toMatchObject({ systemId: 22n });
  const sampled = await sampleIdentity(openDirectory(dir), names);
  expect(sampled).toEqual({ systemId: 11n, segmentSize: MB, blockSize: 8192, magic: 0xd110 });
  // Where the cluster is known, its own files tell the rest.
  expect(await sampleIdentity(openDirectory(dir), names, 22n)).toMatchObject({ systemId: 22n });
});

it('a sample is asked also in a store, where a segment reads by itself', async () => {
  const store = new MemoryStore();
  const segment = page(11n, 2);
  await store.create('systems/11/wal/00000001/a', contentOf(segment));
  const asked: string[] = [];
  const archive = {
    segment: <T>(of: string, read: (file: StoredSegment) => T | Promise<T>) => {
      asked.push(of);
      const key = 'systems/11/wal/00000001/a';
      const identities = async () => undefined;
      return Promise.resolve(
        read(new StoreSegment({ store, key, name: of, partial: false, identities })),
      );
    },
  };
  const sampled = await sampleIdentity(archive, [name(2)]);
  expect(sampled).toMatchObject({ systemId: 11n, segmentSize: MB });
  expect(asked).toEqual([name(2)]);
});
