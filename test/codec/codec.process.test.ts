import { execFile, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { compressFile, type DecompressResult, decompressFile } from '../../src/codec/codec.js';
import {
  compressBlock,
  compressBound,
  decompressBlock,
  HASH_TABLE_SIZE,
} from '../../src/codec/lz4/block.js';
import { takeLz4Encoder } from '../../src/codec/lz4/encoder.js';
import { takeLz4Decoder } from '../../src/codec/lz4/kernel.js';
import { Xxh32, xxh32 } from '../../src/codec/lz4/xxh32.js';
import type { Compression } from '../../src/wal/file-name.js';
import { PostgresServer } from '../support/postgres.js';
import { killAtEnd, packageRoot, scratchDir } from '../support/scratch.js';
import { findTool } from '../support/tools.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

const run = promisify(execFile);
const lz4 = findTool('lz4');
const gzip = findTool('gzip');
const zstd = findTool('zstd');
const pgReceivewal = findTool('pg_receivewal', 15);
const absent = (tool: string | undefined, name: string) => (tool ? '' : ` (${name} is absent)`);

let dir: string;
beforeEach(() => {
  dir = scratchDir('codec');
});

/** Repeatable bytes: zeros, runs, short repetitions and noise, as WAL has them. */
function sample(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  let seed = 1;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let at = 0; at < size; ) {
    const length = 1 + random(400);
    const end = Math.min(size, at + length);
    const kind = random(4);
    if (kind === 0) for (let i = at; i < end; i++) bytes[i] = random(256);
    else if (kind === 1) bytes.fill(random(256), at, end);
    else if (kind === 2 && at > 70_000) bytes.copy(bytes, at, at - 66_000 + random(65_000), at);
    at = end;
  }
  return bytes;
}

async function unpack(
  path: string,
  compression: Compression,
  limit?: number,
): Promise<DecompressResult & { content: Buffer }> {
  const chunks: Buffer[] = [];
  const result = await decompressFile(
    path,
    compression,
    (chunk) => void chunks.push(Buffer.from(chunk)),
    limit === undefined ? {} : { limit },
  );
  const content = Buffer.concat(chunks);
  expect(content.length).toBe(result.bytes);
  return { ...result, content };
}

const proper = { end: 'complete', trailingGarbage: false };

describe('xxh32', () => {
  it('gives the reference values', () => {
    const of = (text: string) => xxh32(Buffer.from(text));
    expect([of(''), of('a'), of('abc')]).toEqual([0x02cc5d05, 0x550d7456, 0x32d153ff]);
    expect(of('Nobody inspects the spammish repetition')).toBe(0xe2293b2f);
  });

  it('does not depend on the cuts', () => {
    const bytes = sample(1000);
    const cutAt = fc.array(fc.nat(999), { maxLength: 8 });
    fc.assert(
      fc.property(cutAt, (cuts) => {
        const hash = new Xxh32();
        let from = 0;
        for (const cut of [...cuts.sort((a, b) => a - b), 1000]) {
          hash.update(bytes.subarray(from, cut));
          from = cut;
        }
        expect(hash.digest()).toBe(xxh32(bytes));
      }),
    );
  });
});

describe('LZ4 blocks', () => {
  const table = new Int32Array(HASH_TABLE_SIZE);
  const compress = (bytes: Uint8Array) => {
    const out = new Uint8Array(compressBound(bytes.length));
    return out.subarray(0, compressBlock(bytes, out, table));
  };

  it('give back what went in', () => {
    const pieces = fc.array(
      fc.tuple(fc.uint8Array({ maxLength: 20 }), fc.integer({ min: 1, max: 40 })),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(pieces, (parts) => {
        const bytes = Buffer.concat(parts.flatMap(([part, n]) => Array(n).fill(part)));
        const out = new Uint8Array(bytes.length);
        expect(decompressBlock(compress(bytes), out, 0)).toBe(bytes.length);
        expect(bytes.equals(out)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it('damaged, throw a RangeError or give other bytes, and never write elsewhere', () => {
    const block = compress(sample(3000));
    const out = new Uint8Array(3010);
    for (let i = 0; i < block.length; i++) {
      for (const bit of [1, 0x10, 0x80]) {
        const bad = block.slice();
        bad[i] = (bad[i] as number) ^ bit;
        out.fill(0xee, 3000);
        try {
          decompressBlock(bad, out.subarray(0, 3000), 0);
        } catch (e) {
          expect(e).toBeInstanceOf(RangeError);
        }
        expect(out.subarray(3000).every((b) => b === 0xee)).toBe(true);
      }
    }
    for (let size = 0; size < block.length; size++) {
      try {
        expect(decompressBlock(block.subarray(0, size), out, 0)).toBeLessThan(3000);
      } catch (e) {
        expect(e).toBeInstanceOf(RangeError);
      }
    }
  });
});

describe('the LZ4 encoder in WebAssembly', () => {
  const table = new Int32Array(HASH_TABLE_SIZE);
  const inJavaScript = (bytes: Uint8Array) => {
    const out = new Uint8Array(compressBound(bytes.length));
    return Buffer.from(out.subarray(0, compressBlock(bytes, out, table)));
  };
  const SIZE = 200_000;

  it('gives what the other one gives, whatever the input', () => {
    const encoder = takeLz4Encoder(SIZE);
    // It lies in the memory of a module.
    expect(encoder.block(sample(20)).buffer.byteLength % 65_536).toBe(0);
    const long = fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 1, max: 900 }));
    const noise = fc.integer({ min: 0, max: 9000 }).map((n) => [sample(n), 1] as const);
    const pieces = fc.array(fc.oneof(long, noise), { maxLength: 12 });
    fc.assert(
      fc.property(pieces, (parts) => {
        const all = Buffer.concat(parts.flatMap(([part, n]) => Array(n).fill(part)));
        const bytes = all.subarray(0, SIZE);
        const block = encoder.block(bytes);
        expect(inJavaScript(bytes).equals(block)).toBe(true);
        const out = new Uint8Array(bytes.length);
        expect(decompressBlock(block, out, 0)).toBe(bytes.length);
        expect(bytes.equals(out)).toBe(true);
      }),
      { numRuns: 300 },
    );
    expect(() => encoder.block(new Uint8Array(SIZE + 1))).toThrow(RangeError);
    encoder.release();
  });

  it('is used again once it was released, and by one frame at a time', () => {
    const first = takeLz4Encoder(SIZE);
    const second = takeLz4Encoder(SIZE);
    expect(second).not.toBe(first);
    second.release();
    expect(takeLz4Encoder(SIZE)).toBe(second);
  });
});

describe('the LZ4 decoder in WebAssembly', () => {
  const table = new Int32Array(HASH_TABLE_SIZE);
  const compress = (bytes: Uint8Array) => {
    const out = new Uint8Array(compressBound(bytes.length));
    return out.subarray(0, compressBlock(bytes, out, table));
  };
  /** What comes of it: the output, or the error's message. */
  const outcome = (decode: () => Uint8Array): string => {
    try {
      return Buffer.from(decode()).toString('hex');
    } catch (e) {
      expect(e).toBeInstanceOf(RangeError);
      return (e as RangeError).message;
    }
  };
  /** Both decoders on the same block, behind the same bytes. */
  const both = (block: Uint8Array, before: Uint8Array, room: number): [string, string] => {
    const kernel = takeLz4Decoder(4096, 8192);
    const limit = before.length + room;
    const plain = new Uint8Array(limit);
    plain.set(before);
    kernel.output.fill(0xee);
    kernel.output.set(before);
    const outcomes: [string, string] = [
      outcome(() => plain.subarray(0, decompressBlock(block, plain, before.length))),
      outcome(() => kernel.output.subarray(0, kernel.block(block, before.length, limit))),
    ];
    kernel.release();
    return outcomes;
  };

  it('is there', () => {
    // Its memory is a multiple of a page, that of the fallback is not.
    expect(takeLz4Decoder(4096, 8192).output.buffer.byteLength).toBe(65_536);
  });

  it('gives what the other one gives, for matches of every distance and length', () => {
    const random = sample(64);
    for (let distance = 1; distance <= 64; distance++) {
      for (const length of [4, 5, 7, 8, 9, 15, 18, 19, 20, 33, 300]) {
        const bytes = Buffer.alloc(distance + length + 20);
        for (let i = 0; i < distance + length; i++) bytes[i] = random[i % distance] as number;
        random.copy(bytes, distance + length, 0, 20);
        const [plain, kernel] = both(compress(bytes), new Uint8Array(0), bytes.length);
        expect(kernel).toBe(plain);
        expect(plain).toBe(bytes.toString('hex'));
      }
    }
  });

  it('gives what the other one gives, whatever the input', () => {
    const pieces = fc.array(
      fc.tuple(fc.uint8Array({ maxLength: 12 }), fc.integer({ min: 1, max: 30 })),
      { maxLength: 8 },
    );
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 3 });
    fc.assert(
      fc.property(
        pieces,
        damage,
        fc.uint8Array({ maxLength: 40 }),
        fc.integer({ min: 0, max: 4096 }),
        (parts, spoilt, before, room) => {
          const block = compress(Buffer.concat(parts.flatMap(([part, n]) => Array(n).fill(part))));
          for (const [at, byte] of spoilt) block[at % block.length] = byte;
          const [plain, kernel] = both(block, before, room);
          expect(kernel).toBe(plain);
        },
      ),
      { numRuns: 3000 },
    );
  });

  it('gives what the other one gives, wherever the block is cut', () => {
    const block = compress(sample(3000));
    for (let size = 0; size < block.length; size++) {
      const [plain, kernel] = both(block.subarray(0, size), new Uint8Array(0), 3000);
      expect(kernel).toBe(plain);
    }
  });
});

describe.each(['gzip', 'lz4', 'zstd'] as const)('%s', (method) => {
  it('several at once, and more behind them, each with its own content', async () => {
    const bytes = sample(2_000_000);
    const parts = Array.from({ length: 6 }, (_, i) => bytes.subarray(i * 1000));
    for (let round = 0; round < 2; round++) {
      await Promise.all(
        parts.map(async (part, i) => {
          const path = join(dir, `${round}-${i}`);
          await writeFile(path, part);
          await compressFile(path, `${path}.c`, part.length, { method });
          expect((await unpack(`${path}.c`, method)).content.equals(part)).toBe(true);
        }),
      );
    }
  });

  it.each([0, 1, 12, 13, 100, 1 << 18, (1 << 18) + 1, 3_000_000])(
    'gives back %i bytes',
    async (size) => {
      const bytes = sample(size);
      await writeFile(join(dir, 'plain'), Buffer.concat([bytes, Buffer.alloc(10, 1)]));
      const written = await compressFile(join(dir, 'plain'), join(dir, 'c'), size, { method });
      expect((await stat(join(dir, 'c'))).size).toBe(written);
      const result = await unpack(join(dir, 'c'), method);
      expect(result).toMatchObject(proper);
      expect(result.content.equals(bytes)).toBe(true);
    },
  );

  it('stops at the limit', async () => {
    await writeFile(join(dir, 'plain'), sample(1_000_000));
    await compressFile(join(dir, 'plain'), join(dir, 'c'), 1_000_000, { method });
    const result = await unpack(join(dir, 'c'), method, 40);
    expect(result).toMatchObject({ end: 'limit', bytes: 40 });
    expect(result.content.equals(sample(40))).toBe(true);
  });

  it('cut anywhere, gives a prefix and says that it was cut', async () => {
    const bytes = sample(200_000);
    const path = join(dir, 'c');
    await writeFile(join(dir, 'plain'), bytes);
    const size = await compressFile(join(dir, 'plain'), path, bytes.length, { method });
    for (let cut = size - 1; cut >= 0; cut -= cut > size - 12 || cut < 20 ? 1 : 4999) {
      await truncate(path, cut);
      const result = await unpack(path, method);
      expect(result).toMatchObject({ end: 'cut', trailingGarbage: false });
      expect(bytes.subarray(0, result.bytes).equals(result.content)).toBe(true);
      if (method === 'gzip' && cut > 1000) {
        // Deflate keeps back little: bits of a code, and what a window of lazy matching holds.
        expect(result.bytes / bytes.length).toBeGreaterThan(cut / size - 0.1);
      }
    }
  });

  it('flipped anywhere, is damaged or cut, never complete with other bytes', async () => {
    const bytes = sample(20_000);
    const path = join(dir, 'c');
    await writeFile(join(dir, 'plain'), bytes);
    await compressFile(join(dir, 'plain'), path, bytes.length, { method });
    const good = await readFile(path);
    for (let i = 0; i < good.length; i += i < 30 || i > good.length - 12 ? 1 : 131) {
      const bad = Buffer.from(good);
      bad[i] = (bad[i] as number) ^ 0x20;
      await writeFile(path, bad);
      const { end, content } = await unpack(path, method);
      if (end === 'complete') expect(content.equals(bytes)).toBe(true);
      else expect(['damaged', 'cut']).toContain(end);
    }
  });

  it('reports garbage behind the end and still gives everything', async () => {
    const bytes = sample(100_000);
    const path = join(dir, 'c');
    await writeFile(join(dir, 'plain'), bytes);
    await compressFile(join(dir, 'plain'), path, bytes.length, { method });
    const good = await readFile(path);
    for (const garbage of [Buffer.alloc(3, 7), sample(5000), Buffer.alloc(100)]) {
      await writeFile(path, Buffer.concat([good, garbage]));
      const result = await unpack(path, method);
      expect(result).toMatchObject({ end: 'complete', trailingGarbage: true });
      expect(result.content.equals(bytes)).toBe(true);
    }
    await writeFile(path, Buffer.concat([good, good]));
    const twice = await unpack(path, method);
    expect(twice).toMatchObject({ ...proper, bytes: 200_000 });
  });

  it('damaged in the middle, gives the bytes directly before', async () => {
    const bytes = sample(900_000);
    const path = join(dir, 'c');
    await writeFile(join(dir, 'plain'), bytes);
    const size = await compressFile(join(dir, 'plain'), path, bytes.length, { method });
    const good = await readFile(path);
    await truncate(path, size >> 1);
    const { content: before } = await unpack(path, method);
    // Of zstd only whole blocks are had.
    expect(before.length).toBeGreaterThan(method === 'zstd' ? 120_000 : 200_000);
    const noise = createHash('shake256', { outputLength: size }).digest();
    await writeFile(path, Buffer.concat([good.subarray(0, size >> 1), noise]));
    const result = await unpack(path, method);
    expect(result).toMatchObject({ end: 'damaged', problem: expect.any(String) });
    // Deflate takes some of the noise for codes; what stood before it is all there.
    expect(result.bytes).toBeGreaterThanOrEqual(before.length);
    expect(result.content.subarray(0, before.length).equals(before)).toBe(true);
    expect(bytes.subarray(0, before.length).equals(before)).toBe(true);
  });

  it('fails on a source that is too short, and on missing files', async () => {
    await writeFile(join(dir, 'plain'), 'short');
    const [plain, target] = [join(dir, 'plain'), join(dir, 'c')];
    await expect(compressFile(plain, target, 6, { method })).rejects.toThrow(/shorter than 6/);
    await expect(compressFile(target, plain, 1, { method })).rejects.toThrow(/could not open/);
    await expect(decompressFile(target, method)).rejects.toMatchObject({ code: 'WK_STORAGE' });
  });

  it('hands on what the receiver of the chunks throws', async () => {
    await writeFile(join(dir, 'plain'), sample(1000));
    await compressFile(join(dir, 'plain'), join(dir, 'c'), 1000, { method });
    const fail = () => Promise.reject(new Error('no more'));
    await expect(decompressFile(join(dir, 'c'), method, fail)).rejects.toThrow('no more');
  });
});

describe('gzip files of others', () => {
  it('has the level asked for', async () => {
    await writeFile(join(dir, 'plain'), sample(500_000));
    const sizeAt = (level: number) =>
      compressFile(join(dir, 'plain'), join(dir, 'c'), 500_000, { method: 'gzip', level });
    expect(await sizeAt(1)).toBeGreaterThan(await sizeAt(9));
    expect(gunzipSync(await readFile(join(dir, 'c'))).equals(sample(500_000))).toBe(true);
  });

  it(`reads names, comments, extra fields and header checksums`, async () => {
    const body = gzipSync(sample(1000));
    const header = Buffer.from(body.subarray(0, 10));
    header[3] = 2 | 4 | 8 | 16;
    const extras = Buffer.from('\x03\x00abcname\0comment\0\x12\x34', 'latin1');
    await writeFile(join(dir, 'c'), Buffer.concat([header, extras, body.subarray(10)]));
    expect(await unpack(join(dir, 'c'), 'gzip')).toMatchObject({ ...proper, bytes: 1000 });
  });

  it.skipIf(!gzip)(`reads what gzip writes${absent(gzip, 'gzip')}`, async () => {
    await writeFile(join(dir, 'c'), sample(300_000));
    await run(gzip as string, ['-k', join(dir, 'c')]);
    const result = await unpack(join(dir, 'c.gz'), 'gzip');
    expect(result.content.equals(sample(300_000))).toBe(true);
  });
});

describe.skipIf(!lz4)(`the lz4 program${absent(lz4, 'lz4')}`, () => {
  it('reads what we write, also where lz4js breaks the end-of-block rules', async () => {
    const blocks = Buffer.alloc(2 << 20);
    for (let end = 1 << 18; end <= blocks.length; end += 1 << 18) {
      // A possible match at each of the last places of a block.
      sample(60).copy(blocks, end - 60);
      const back = 4 + (end >> 18);
      blocks.copy(blocks, end - back, end - 50, end - 50 + back);
    }
    for (const bytes of [blocks, sample(0), sample(1), sample(2_000_001)]) {
      await writeFile(join(dir, 'plain'), bytes);
      await compressFile(join(dir, 'plain'), join(dir, 'c.lz4'), bytes.length, { method: 'lz4' });
      await run(lz4 as string, ['-t', join(dir, 'c.lz4')]);
      const out = execFileSync(lz4 as string, ['-dc', join(dir, 'c.lz4')], { maxBuffer: 1 << 26 });
      expect(out.equals(bytes)).toBe(true);
    }
  });

  it.each([
    '-1',
    '-9',
    '-BD',
    '-B4 -BD',
    '-B4 -BX',
    '-B5 -BD -BX --content-size',
    '--no-frame-crc',
    '-12 -B7 --content-size',
  ])('%s: we read it whole, cut, and twice', async (flags) => {
    const bytes = sample(5_000_000);
    const path = join(dir, 'c.lz4');
    await writeFile(join(dir, 'c'), bytes);
    await run(lz4 as string, ['-q', ...flags.split(' '), join(dir, 'c'), path]);
    const whole = await unpack(path, 'lz4');
    expect(whole).toMatchObject(proper);
    expect(whole.content.equals(bytes)).toBe(true);
    const packed = await readFile(path);
    const skippable = Buffer.from('502a4d1803000000616263', 'hex');
    await writeFile(path, Buffer.concat([skippable, packed, skippable, packed]));
    expect(await unpack(path, 'lz4')).toMatchObject({ ...proper, bytes: 10_000_000 });
    await writeFile(path, packed.subarray(0, packed.length - 70_000));
    const cut = await unpack(path, 'lz4');
    expect(cut.end).toBe('cut');
    expect(bytes.subarray(0, cut.bytes).equals(cut.content)).toBe(true);
  });
});

describe.skipIf(!zstd)(`the zstd program${absent(zstd, 'zstd')}`, () => {
  it('reads what we write', async () => {
    for (const bytes of [sample(0), sample(1), sample(4 << 20), sample(9_000_001)]) {
      await writeFile(join(dir, 'plain'), bytes);
      await compressFile(join(dir, 'plain'), join(dir, 'c.zst'), bytes.length, { method: 'zstd' });
      const options = { maxBuffer: 1 << 26 };
      const out = execFileSync(zstd as string, ['-dcq', join(dir, 'c.zst')], options);
      expect(out.equals(bytes)).toBe(true);
    }
  });

  it('reads its checksum', async () => {
    await writeFile(join(dir, 'plain'), sample(100_000));
    await compressFile(join(dir, 'plain'), join(dir, 'c.zst'), 100_000, { method: 'zstd' });
    const bytes = await readFile(join(dir, 'c.zst'));
    bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1;
    await writeFile(join(dir, 'c.zst'), bytes);
    await expect(run(zstd as string, ['-tq', join(dir, 'c.zst')])).rejects.toThrow(/checksum/i);
  });

  it.each(['-1', '-3', '-19', '--fast=5', '--no-check', '-3 --long=24'])(
    '%s: we read it whole, cut, and twice',
    async (flags) => {
      const bytes = sample(5_000_000);
      const path = join(dir, 'c.zst');
      await writeFile(join(dir, 'c'), bytes);
      await run(zstd as string, ['-q', ...flags.split(' '), join(dir, 'c'), '-o', path]);
      const whole = await unpack(path, 'zstd');
      expect(whole).toMatchObject(proper);
      expect(whole.content.equals(bytes)).toBe(true);
      const packed = await readFile(path);
      const skippable = Buffer.from('502a4d1803000000616263', 'hex');
      await writeFile(path, Buffer.concat([skippable, packed, skippable, packed]));
      expect(await unpack(path, 'zstd')).toMatchObject({ ...proper, bytes: 10_000_000 });
      await writeFile(path, packed.subarray(0, packed.length - 5_000));
      const cut = await unpack(path, 'zstd');
      expect(cut.end).toBe('cut');
      expect(bytes.subarray(0, cut.bytes).equals(cut.content)).toBe(true);
      expect(cut.bytes).toBeGreaterThan(1_000_000);
    },
  );

  it('is read as a stream of unknown length, and empty', async () => {
    for (const bytes of [sample(0), sample(3_000_000)]) {
      const packed = execFileSync(zstd as string, ['-cq'], { input: bytes, maxBuffer: 1 << 26 });
      await writeFile(join(dir, 'c.zst'), packed);
      const { content, ...result } = await unpack(join(dir, 'c.zst'), 'zstd');
      expect(result).toMatchObject(proper);
      expect(content.equals(bytes)).toBe(true);
    }
  });

  it('does not take memory for what a damaged header asks for', async () => {
    // A window of a gigabyte, and a dictionary.
    for (const header of ['28b52ffd00a0', '28b52ffd0100aa']) {
      await writeFile(join(dir, 'c.zst'), Buffer.concat([Buffer.from(header, 'hex'), sample(500)]));
      expect(await unpack(join(dir, 'c.zst'), 'zstd')).toMatchObject({ end: 'damaged', bytes: 0 });
    }
  });
});

describe.skipIf(!pgReceivewal)(`pg_receivewal 15${absent(pgReceivewal, 'pg_receivewal')}`, () => {
  it.each(['gzip', 'lz4'] as const)(
    '-Z %s: complete and unfinished files',
    async (method) => {
      const server = await PostgresServer.create({
        major: 15,
        settings: { wal_keep_size: '64MB' },
      });
      try {
        const out = join(dir, 'wal');
        await mkdir(out);
        const child = spawn(
          pgReceivewal as string,
          ['-D', out, '-Z', method, '-n', '--synchronous', '-d', server.conninfo()],
          { stdio: 'ignore' },
        );
        killAtEnd(child);
        const suffix = method === 'lz4' ? '.lz4' : '.gz';
        await waitFor(async () => (await readdir(out)).some((n) => n.endsWith('.partial')));
        await workload(server, { transactions: 30, switchEvery: 10 });
        const complete = async () => (await readdir(out)).filter((n) => n.endsWith(suffix));
        await waitFor(async () => (await complete()).length >= 3);
        // Right behind a switch the server still names the segment before.
        await workload(server, { transactions: 1 });
        const partial = `${await server.currentSegment()}${suffix}.partial`;
        const arrived = async () => {
          if (!existsSync(join(out, partial))) return false;
          return (await unpack(join(out, partial), method)).bytes > 10_000;
        };
        await waitFor(arrived);
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGKILL');
        await ended;
        const original = (name: string) =>
          readFile(join(server.dataDir, 'pg_wal', name.slice(0, 24)));
        for (const name of await complete()) {
          const result = await unpack(join(out, name), method);
          expect(result).toMatchObject({ ...proper, bytes: server.segmentSize });
          expect(result.content.equals(await original(name))).toBe(true);
        }
        const { end, content } = await unpack(join(out, partial), method);
        expect(end).toBe('cut');
        expect((await original(partial)).subarray(0, content.length).equals(content)).toBe(true);
      } finally {
        await server.destroy();
      }
    },
    120_000,
  );
});

describe('the built package', () => {
  const built = join(packageRoot, 'dist/codec/codec.js');
  const builtFiles = join(packageRoot, 'dist/files/file-system.js');
  const builtThread = join(packageRoot, 'dist/codec/lz4/thread.js');

  it('compresses lz4 in a thread that does not keep the process running', async () => {
    if (!existsSync(built)) throw new Error('run "npm run build" first');
    await writeFile(join(dir, 'plain'), sample(2_000_000));
    const script = `
      import { openSync } from 'node:fs';
      import { compressFile } from ${JSON.stringify(built)};
      import { compress } from ${JSON.stringify(builtThread)};
      import { nodeFileSystem } from ${JSON.stringify(builtFiles)};
      import { createHook } from 'node:async_hooks';
      let workers = 0;
      createHook({ init: (id, type) => { workers += type === 'WORKER' ? 1 : 0; } }).enable();
      const dir = process.argv[1];
      const jobs = [1_000_000, 2_000_000, 0].map((n) =>
        compressFile(dir + '/plain', dir + '/' + n, n, { method: 'lz4' }));
      await Promise.all(jobs);
      const fds = [openSync(dir + '/plain', 'r'), openSync('/dev/full', 'w')];
      const failed = await compress(...fds, 9, { fs: nodeFileSystem }).catch((e) => e.code);
      console.log(workers, failed);`;
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script, dir]);
    expect(stdout).toBe('1 ENOSPC\n');
    for (const size of [1_000_000, 2_000_000, 0]) {
      const { content } = await unpack(join(dir, String(size)), 'lz4');
      const hash = (b: Buffer) => createHash('sha256').update(b).digest('hex');
      expect(hash(content)).toBe(hash(sample(2_000_000).subarray(0, size)));
    }
  });
});
