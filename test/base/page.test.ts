import { describe, expect, it } from 'vitest';
import { hasPageChecksum, heapPageState, isNewPage, setPageChecksum } from '../../src/base/page.js';
import {
  blocksPerMapPage,
  clearMapBits,
  mainFileOf,
  mapBits,
  mapFileOf,
} from '../../src/base/visibility-map.js';

const SIZE = 8192;
const VISIBLE = 0x0004;

interface Row {
  xmin: number;
  xmax?: number;
  infomask: number;
  flags?: number;
}

/** A page of a table. */
function heapPage(flags: number, rows: readonly Row[]): Buffer {
  const page = Buffer.alloc(SIZE);
  page.writeUInt16LE(flags, 10);
  page.writeUInt16LE(24 + 4 * rows.length, 12);
  page.writeUInt16LE(SIZE - 32 * rows.length || SIZE, 14);
  rows.forEach(({ xmin, xmax = 0, infomask, flags: pointer = 1 }, i) => {
    const at = SIZE - 32 * (i + 1);
    page.writeUInt32LE(((32 << 17) | (pointer << 15) | at) >>> 0, 24 + 4 * i);
    page.writeUInt32LE(xmin, at);
    page.writeUInt32LE(xmax, at + 4);
    page.writeUInt16LE(infomask, at + 20);
  });
  return page;
}

const FROZEN = 0x0b00; // xmin frozen, xmax invalid
const COMMITTED = 0x0900;

describe('a page of a table', () => {
  it.each([
    ['new', Buffer.alloc(SIZE), false, false],
    [
      'with rows that not everybody sees',
      heapPage(0, [{ xmin: 700, infomask: FROZEN }]),
      false,
      false,
    ],
    ['of frozen rows', heapPage(VISIBLE, [{ xmin: 700, infomask: FROZEN }]), true, true],
    ['of one that is not', heapPage(VISIBLE, [{ xmin: 700, infomask: COMMITTED }]), true, false],
    ['of initdb', heapPage(VISIBLE, [{ xmin: 1, infomask: COMMITTED }]), true, true],
    ['with a lock', heapPage(VISIBLE, [{ xmin: 700, xmax: 701, infomask: 0x0380 }]), true, false],
    [
      'locked by several',
      heapPage(VISIBLE, [{ xmin: 700, xmax: 1, infomask: 0x1380 }]),
      true,
      false,
    ],
    [
      'with a pointer that leads nowhere',
      heapPage(VISIBLE, [{ xmin: 700, infomask: COMMITTED, flags: 3 }]),
      ...([true, true] as const),
    ],
    ['that was moved', heapPage(VISIBLE, [{ xmin: 1, infomask: 0x4b00 }]), true, false],
    ['of no rows', heapPage(VISIBLE, []), true, true],
  ])('%s', (_, page, visible, frozen) => {
    expect(heapPageState(page)).toEqual({ visible, frozen });
  });
});

describe('the checksum of a page', () => {
  const page = Buffer.from(Uint8Array.from({ length: SIZE }, (_, i) => (i * 7 + (i >> 8)) & 255));

  it('is that of a server', () => {
    setPageChecksum(page, 5);
    expect(page.readUInt16LE(8)).toBe(15_926);
    expect(hasPageChecksum(page, 5)).toBe(true);
    expect(hasPageChecksum(page, 6)).toBe(false);
  });

  it('is another after any flipped bit', () => {
    for (let bit = 0; bit < SIZE * 8; bit += 61) {
      const bad = Buffer.from(page);
      bad.writeUInt8(bad.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      expect(hasPageChecksum(bad, 5), `bit ${bit}`).toBe(false);
    }
  });

  it('is not on a new page', () => {
    expect(isNewPage(Buffer.alloc(SIZE))).toBe(true);
    expect(hasPageChecksum(Buffer.alloc(SIZE), 3)).toBe(true);
  });
});

describe('a visibility map', () => {
  it('tells of 32672 blocks a page', () => {
    expect(blocksPerMapPage(SIZE)).toBe(32_672);
  });

  it('loses what is said of one block, and of no other', () => {
    for (const n of [0, 1, 2, 3, 4, 32_671]) {
      for (const what of ['all', 'frozen'] as const) {
        const page = Buffer.alloc(SIZE, 255);
        expect(clearMapBits(page, n, what)).toBe(true);
        expect(mapBits(page, n)).toEqual({ visible: what === 'frozen', frozen: false });
        expect(clearMapBits(page, n, what)).toBe(false);
        page[24 + (n >> 2)] = 255;
        expect(page.equals(Buffer.alloc(SIZE, 255))).toBe(true);
      }
    }
  });

  it('is told by its name, as is what it is of', () => {
    expect(mapFileOf('base/5/16384_vm')).toEqual({ relation: 'base/5/16384', segment: 0 });
    expect(mapFileOf('base/5/16384_vm.2')).toEqual({ relation: 'base/5/16384', segment: 2 });
    expect(mapFileOf('base/5/16384_fsm')).toBeUndefined();
    expect(mapFileOf('base/5/t3_16384_vm')).toBeUndefined();
    expect(mainFileOf('base/5/16384.12')).toEqual({ relation: 'base/5/16384', segment: 12 });
    expect(mainFileOf('base/5/16384_vm')).toBeUndefined();
    expect(mainFileOf('base/5/PG_VERSION')).toBeUndefined();
  });
});
