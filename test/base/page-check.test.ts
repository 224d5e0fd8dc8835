import { describe, expect, it } from 'vitest';
import { setPageChecksum } from '../../src/base/page.js';
import { lsnOf, PageCheck, pagesText, SEGMENT_BLOCKS } from '../../src/base/page-check.js';
import type { Lsn } from '../../src/lsn.js';
import { Random } from '../simulation/random.js';

const SIZE = 8192;
const random = new Random(5);
const START = 0x2_00000028n as Lsn;

/** As a server has it: with rows, changed at an LSN. */
function page(block: number, lsn: bigint = START): Buffer {
  const bytes = Buffer.from(Uint8Array.from({ length: SIZE }, () => random.below(256)));
  bytes.writeUInt32LE(Number(lsn >> 32n), 0);
  bytes.writeUInt32LE(Number(lsn & 0xffffffffn), 4);
  bytes.writeUInt16LE(4096, 14);
  setPageChecksum(bytes, block);
  return bytes;
}

function flipped(bytes: Buffer, at: number): Buffer {
  const bad = Buffer.from(bytes);
  bad[at] = (bad[at] as number) ^ 0x10;
  return bad;
}

/** The file as it comes: in pieces that know nothing of pages. */
function look(path: string, content: Buffer): PageCheck {
  const check = new PageCheck({ start: START });
  check.begin(path);
  for (let at = 0; at < content.length; ) {
    const n = 1 + random.below(20_000);
    check.content(content.subarray(at, at + n));
    at += n;
  }
  return check;
}

describe('pages of a base backup', () => {
  it('are right where every byte of them is, and named where one is not', () => {
    const pages = Array.from({ length: 8 }, (_, n) => page(n));
    expect(look('base/5/16384', Buffer.concat(pages))).toMatchObject({ looked: 8, wrong: 0 });
    for (let trial = 0; trial < 200; trial++) {
      const n = random.below(8);
      // Not the LSN: a later one is not judged.
      const bad = pages.with(n, flipped(pages[n] as Buffer, 8 + random.below(SIZE - 8)));
      const { wrong, bad: found } = look('global/1262_fsm', Buffer.concat(bad));
      expect(wrong).toBe(1);
      expect(found).toEqual([{ path: 'global/1262_fsm', block: n, incremental: false }]);
    }
    const swapped = look('base/5/2', Buffer.concat([page(1), page(0)]));
    expect(pagesText(swapped.bad, swapped.wrong)).toBe(
      '2 pages have wrong checksums: block 0 of "base/5/2", block 1 of "base/5/2"',
    );
  });

  it('are counted on from file to file of a relation', () => {
    const path = 'pg_tblspc/16388/PG_18_202506291/5/16390.2';
    const content = Buffer.concat([page(2 * SEGMENT_BLOCKS), page(2 * SEGMENT_BLOCKS + 1)]);
    expect(look(path, content)).toMatchObject({ looked: 2, wrong: 0 });
    expect(look(path.slice(0, -2), content)).toMatchObject({ looked: 2, wrong: 2 });
  });

  it('are not judged if they are new, or were changed later', () => {
    const later = flipped(page(1, START + 1n), 5000);
    expect(lsnOf(later)).toBe(START + 1n);
    const content = Buffer.concat([Buffer.alloc(SIZE), later, page(2), Buffer.alloc(100)]);
    expect(look('base/5/1', content)).toMatchObject({ looked: 3, wrong: 0 });
  });

  it('have their numbers in incremental files', () => {
    for (const count of [0, 1, 7, 2045, 2046]) {
      const numbers = Array.from({ length: count }, (_, n) => 3 * n + 1);
      const header = Buffer.alloc(count === 0 ? 12 : Math.ceil((12 + 4 * count) / SIZE) * SIZE);
      header.writeUInt32LE(0xd3ae1f0d, 0);
      header.writeUInt32LE(count, 4);
      for (const [n, number] of numbers.entries()) header.writeUInt32LE(number, 12 + 4 * n);
      const content = Buffer.concat([header, ...numbers.map((n) => page(SEGMENT_BLOCKS + n))]);
      const path = 'base/5/INCREMENTAL.16384.1';
      expect(look(path, content)).toMatchObject({ looked: count, wrong: 0 });
      if (count === 0) continue;
      const [first] = look(path, flipped(content, header.length + 100)).bad;
      expect(first).toEqual({ path, block: SEGMENT_BLOCKS + 1, incremental: true });
    }
  });

  it('are in files of relations and nowhere else', () => {
    for (const path of [
      'base/5/PG_VERSION',
      'pg_xact/0000',
      'global/pg_control',
      'base/5/t3_16384',
    ]) {
      expect(look(path, Buffer.alloc(SIZE, 1)), path).toMatchObject({ looked: 0, wrong: 0 });
    }
  });
});
