import { describe, expect, it } from 'vitest';
import {
  FIXED_HEADER,
  type FileVersion,
  incrementalPath,
  NO_VERSION,
  parseIncrementalHeader,
  planBlocks,
  wholePath,
} from '../../src/base/incremental.js';
import { CorruptObjectError } from '../../src/errors.js';
import { Random } from '../simulation/random.js';
import { incrementalFile } from '../support/incremental-file.js';

const GEOMETRY = { blockSize: 512, segmentBlocks: 200 };
const WHERE = '"base/5/INCREMENTAL.16384" of backup 20261127T201500I-3fa91c';

function parsed(file: Buffer) {
  const length = Math.min(file.length, headerLength(file));
  return parseIncrementalHeader(file.subarray(0, length), file.length, GEOMETRY, WHERE);
}

function headerLength(file: Buffer): number {
  if (file.length < FIXED_HEADER) return file.length;
  const bytes = FIXED_HEADER + 4 * file.readUInt32LE(4);
  return file.readUInt32LE(4) === 0 ? bytes : Math.ceil(bytes / 512) * 512;
}

const blocksOf = (numbers: readonly number[]) =>
  new Map(numbers.map((n) => [n, Buffer.alloc(512, n + 1)]));

describe('an incremental file', () => {
  it('is read as the server makes it', () => {
    const file = incrementalFile(blocksOf([0, 3, 199]), 120, GEOMETRY);
    const { blocks, truncation, length } = parsed(file);
    expect({ blocks: [...blocks], truncation, length }).toEqual({
      ...{ blocks: [0, 3, 199], truncation: 120, length: 512 },
    });
    const none = parsed(incrementalFile(new Map(), 7, GEOMETRY));
    expect({ ...none, blocks: [...none.blocks] }).toEqual({
      ...{ blocks: [], truncation: 7, length: 12 },
    });
  });

  it('of many blocks has a header of several blocks', () => {
    const all = Array.from({ length: 200 }, (_, n) => n);
    const file = incrementalFile(blocksOf(all), 200, GEOMETRY);
    expect(parsed(file).length).toBe(1024);
    expect([...parsed(file).blocks]).toEqual(all);
  });

  it('has no more blocks left than a file has, whatever an old server says', () => {
    expect(parsed(incrementalFile(new Map(), 300, GEOMETRY)).truncation).toBe(200);
  });

  it('is refused wherever it is cut, and with anything behind it', () => {
    const file = incrementalFile(blocksOf([1, 5, 6]), 9, GEOMETRY);
    for (let length = 0; length < file.length; length++) {
      const cut = file.subarray(0, length);
      expect(() => parsed(cut), `${length} bytes`).toThrow(CorruptObjectError);
    }
    expect(() => parsed(Buffer.concat([file, Buffer.alloc(1)]))).toThrow(CorruptObjectError);
    expect(() => parsed(Buffer.concat([file, Buffer.alloc(512)]))).toThrow(CorruptObjectError);
  });

  it('names the file and its backup when a bit of the header is another', () => {
    const file = incrementalFile(blocksOf([1, 5, 6]), 9, GEOMETRY);
    let refused = 0;
    for (let bit = 0; bit < 512 * 8; bit++) {
      const bad = Buffer.from(file);
      bad.writeUInt8(bad.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      try {
        const { blocks, truncation } = parsed(bad);
        // Another number in order, or another length: only the manifest's checksum tells.
        expect(bit >> 3).toBeGreaterThanOrEqual(8);
        expect(bit >> 3).toBeLessThan(FIXED_HEADER + 12);
        expect(truncation).toBeLessThanOrEqual(200);
        expect([...blocks]).toEqual([...new Set(blocks)].sort((a, b) => a - b));
        expect(blocks.at(-1)).toBeLessThan(200);
      } catch (e) {
        expect(e).toBeInstanceOf(CorruptObjectError);
        expect((e as Error).message).toContain(WHERE);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(512 * 8 - 8 * 16);
  });

  it.each([
    ['out of order', [5, 3]],
    ['twice', [5, 5]],
    ['beyond a file', [5, 200]],
    ['far beyond it', [5, 0xffff_ffff]],
  ])('is refused with a block %s', (_, numbers) => {
    const file = incrementalFile(blocksOf([1, 2]), 9, GEOMETRY);
    numbers.forEach((n, i) => {
      file.writeUInt32LE(n, FIXED_HEADER + 4 * i);
    });
    expect(() => parsed(file)).toThrow(/block \d+ is its number 2/);
  });

  it('is told by its name', () => {
    expect(wholePath('base/5/INCREMENTAL.16384_vm.1')).toBe('base/5/16384_vm.1');
    expect(wholePath('INCREMENTAL.16384')).toBe('16384');
    expect(wholePath('base/5/16384')).toBeUndefined();
    expect(wholePath('base/INCREMENTAL.x/5')).toBeUndefined();
    expect(incrementalPath('base/5/16384')).toBe('base/5/INCREMENTAL.16384');
  });
});

/** A file of a relation, and what WAL summaries have of it since the last backup. */
class ModelFile {
  /** The version that wrote each block; 0: zeros. */
  blocks: number[] = [];
  modified = new Set<number>();
  limit: number | undefined = 0;

  /** As `GetFileBackupMethod` decides. */
  backUp(segmentBlocks: number): { version: FileVersion; blocks: number[] } {
    const { modified, limit } = this;
    const size = this.blocks.length;
    const changed = [...modified].filter((b) => b < size).sort((a, b) => a - b);
    const isFull = limit === 0 || size === 0 || changed.length > size * 0.9;
    const version: FileVersion = isFull
      ? { kind: 'full', blocks: size }
      : {
          kind: 'incremental',
          blocks: Uint32Array.from(changed),
          truncation: Math.min(segmentBlocks, Math.max(size, limit ?? 0)),
        };
    this.modified = new Set();
    this.limit = undefined;
    return { version, blocks: [...this.blocks] };
  }

  truncate(to: number): void {
    this.blocks.length = to;
    this.limit = Math.min(this.limit ?? to, to);
    for (const block of [...this.modified]) if (block >= to) this.modified.delete(block);
  }
}

describe('the plan of a file', () => {
  it('gives what a file was at the last backup, over random histories', () => {
    const random = new Random(17);
    let chains = 0;
    let empty = 0;
    for (let round = 0; round < 3000; round++) {
      const file = new ModelFile();
      let written = 0;
      const grow = (by: number, logged: boolean) => {
        for (let n = 0; n < by && file.blocks.length < 24; n++) {
          if (logged) file.modified.add(file.blocks.length);
          file.blocks.push(logged ? ++written : 0);
        }
      };
      grow(1 + random.below(16), true);
      const backups = [file.backUp(24)];
      for (let backup = 0; backup < 6; backup++) {
        for (let n = random.below(5); n > 0; n--) {
          const act = random.below(6);
          const at = random.below(file.blocks.length || 1);
          if (act === 0) file.truncate(at);
          else if (act === 1) grow(random.below(5), true);
          // What a server says of blocks that come back unlogged between two backups has no limit.
          else if (act === 2 && file.limit === undefined) grow(random.below(5), false);
          else if (file.blocks.length > 0) {
            file.modified.add(at);
            file.blocks[at] = ++written;
          }
        }
        backups.push(file.backUp(24));
        const newestFirst = backups.toReversed();
        const plan = planBlocks(newestFirst.map(({ version }) => version));
        const rebuilt = [...plan].map((from, block) =>
          from === NO_VERSION ? 0 : newestFirst[from]?.blocks[block],
        );
        // What a newer limit leaves of the file is filled with zeros, and replay cuts it off.
        const real = file.blocks.concat(
          Array.from({ length: Math.max(0, rebuilt.length - file.blocks.length) }, () => 0),
        );
        const shorter = rebuilt.slice(0, file.blocks.length);
        expect(shorter, JSON.stringify(newestFirst)).toEqual(real.slice(0, shorter.length));
        expect(shorter.length).toBe(file.blocks.length);
        if (newestFirst.some(({ version }) => version.kind === 'incremental')) chains++;
        if (plan.includes(NO_VERSION)) empty++;
      }
    }
    expect(chains).toBeGreaterThan(5000);
    expect(empty).toBeGreaterThan(100);
  });

  it('ends with the first full file, and takes nothing that was cut off since', () => {
    const incremental = (truncation: number, ...blocks: number[]): FileVersion => ({
      ...{ kind: 'incremental', truncation, blocks: Uint32Array.from(blocks) },
    });
    const full = (blocks: number): FileVersion => ({ kind: 'full', blocks });
    expect([...planBlocks([incremental(3, 1, 5), full(9), full(2)])]).toEqual([1, 0, 1, -1, -1, 0]);
    expect([...planBlocks([incremental(6), incremental(2, 4), full(9)])]).toEqual([
      ...[2, 2, -1, -1, 1, -1],
    ]);
    expect([...planBlocks([incremental(4, 0), full(1)])]).toEqual([0, -1, -1, -1]);
    expect([...planBlocks([full(2), full(4)])]).toEqual([0, 0]);
    expect([...planBlocks([incremental(0), full(4)])]).toEqual([]);
  });
});
