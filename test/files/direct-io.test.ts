import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  DIRECT_ALIGN,
  firstPiece,
  openDirect,
  takeAlignedMemory,
} from '../../src/files/direct-io.js';
import { nodeFileSystem } from '../../src/files/file-system.js';
import { BulkStage, type StagedBlock } from '../../src/receive/target/bulk-stage.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'walkeep-direct-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function errno(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code });
}

describe('aligned memory', () => {
  it('is taken by a file opened for direct I/O', () => {
    const path = join(dir, 'f');
    closeSync(openSync(path, 'w'));
    const memory = takeAlignedMemory(3 * DIRECT_ALIGN);
    memory.bytes.fill(7, 0, 2 * DIRECT_ALIGN);
    const fd = openDirect(path, nodeFileSystem);
    // Not every file system has it; where it is, the memory must be good enough.
    if (fd !== undefined) {
      const pages = memory.bytes.subarray(0, 2 * DIRECT_ALIGN);
      expect(nodeFileSystem.writevSync(fd, [pages], 0)).toBe(pages.length);
      closeSync(fd);
      expect(readFileSync(path).equals(Buffer.alloc(2 * DIRECT_ALIGN, 7))).toBe(true);
    }
    memory.release();
  });

  it('is used again once released, and not before', () => {
    const first = takeAlignedMemory(DIRECT_ALIGN);
    const second = takeAlignedMemory(DIRECT_ALIGN);
    expect(second.bytes.buffer).not.toBe(first.bytes.buffer);
    first.release();
    expect(takeAlignedMemory(DIRECT_ALIGN).bytes.buffer).toBe(first.bytes.buffer);
  });
});

describe('openDirect', () => {
  const opening = (e: Error) => ({
    ...nodeFileSystem,
    openSync: () => {
      throw e;
    },
  });

  it('gives nothing where the file system has no direct I/O', () => {
    expect(openDirect('x', opening(errno('EINVAL')))).toBeUndefined();
  });

  it('hides no other error', () => {
    expect(() => openDirect('x', opening(errno('EACCES')))).toThrow('EACCES');
  });
});

describe('firstPiece', () => {
  const memory = takeAlignedMemory(8 * DIRECT_ALIGN).bytes;
  const at = (from: number, to: number) => memory.subarray(from, to);
  const P = DIRECT_ALIGN;

  /** Cuts everything to pieces; gives `[direct, length]` of each. */
  function pieces(buffers: Uint8Array[], position: number): [boolean, number][] {
    const all: [boolean, number][] = [];
    let rest = buffers;
    let place = position;
    while (rest.length > 0) {
      const piece = firstPiece(rest, place);
      let length = piece.buffers.reduce((sum, b) => sum + b.length, 0);
      expect(length).toBeGreaterThan(0);
      if (piece.direct) {
        for (const b of piece.buffers) expect([b.byteOffset % P, b.length % P]).toEqual([0, 0]);
        expect(place % P).toBe(0);
      }
      all.push([piece.direct, length]);
      place += length;
      rest = rest.flatMap((b) => {
        const skip = Math.min(length, b.length);
        length -= skip;
        return skip === b.length ? [] : [b.subarray(skip)];
      });
    }
    return all;
  }

  it('writes whole pages directly, what is before and behind them not', () => {
    expect(pieces([at(0, 3 * P)], 5 * P)).toEqual([[true, 3 * P]]);
    expect(pieces([at(100, 3 * P + 5)], P + 100)).toEqual([
      [false, P - 100],
      [true, 2 * P],
      [false, 5],
    ]);
    expect(pieces([at(10, 20)], 10)).toEqual([[false, 10]]);
  });

  it('takes several blocks at once as long as they continue each other', () => {
    expect(pieces([at(0, P), at(4 * P, 6 * P)], 0)).toEqual([[true, 3 * P]]);
    expect(pieces([at(0, P + 1), at(4 * P + 1, 6 * P)], 0)).toEqual([
      [true, P],
      [false, 1],
      [false, P - 1],
      [true, P],
    ]);
  });

  it('writes nothing directly whose memory does not lie as the file does', () => {
    expect(pieces([at(1, P + 1)], 0)).toEqual([[false, P]]);
    expect(pieces([new Uint8Array(2 * P)], 0)).toEqual([[false, 2 * P]]);
  });
});

describe('BulkStage', () => {
  const SEGMENT = 1024 * 1024;
  const BLOCK = SEGMENT / 8;

  it('gives back what came, block by block, lying as it will in the file', () => {
    const stage = new BulkStage(SEGMENT);
    const start = 3 * DIRECT_ALIGN + 123;
    const source = Buffer.from(Array.from({ length: 3 * BLOCK }, (_, i) => (i * 7) % 251));
    const got: Buffer[] = [];
    let at = start;
    const onFull = ({ bytes }: StagedBlock) => {
      expect(bytes.byteOffset % DIRECT_ALIGN).toBe(at % DIRECT_ALIGN);
      at += bytes.length;
      got.push(Buffer.from(bytes));
    };
    for (let from = 0; from < source.length; from += 9_999) {
      stage.add(source.subarray(from, from + 9_999), start + from, onFull);
    }
    const last = stage.take();
    if (last) onFull(last);
    expect(stage.take()).toBeUndefined();
    expect(stage.isEmpty).toBe(true);
    expect(Buffer.concat(got).equals(source)).toBe(true);
    stage.close();
  });

  it('is full when the last block is being filled; what still comes goes into blocks on top', () => {
    const stage = new BulkStage(SEGMENT);
    const blocks = stage.worthwhile / BLOCK;
    const full: StagedBlock[] = [];
    let at = 0;
    const add = (bytes: number) => {
      stage.add(new Uint8Array(bytes), at, (b) => full.push(b));
      at += bytes;
    };
    add((blocks - 1) * BLOCK);
    expect([stage.isFull, stage.hasRoom]).toEqual([false, false]);
    add(1);
    expect(stage.isFull).toBe(true);
    add(2 * BLOCK);
    expect(full.length).toBe(blocks + 1);
    expect(full.every((b) => b.bytes.length === BLOCK)).toBe(true);
    for (const b of full) stage.giveBack(b);
    expect([stage.isFull, stage.hasRoom]).toEqual([false, true]);
    // Those on top are not kept.
    expect(new Set(full.map((b) => b.block.buffer)).size).toBe(2);
  });
});
