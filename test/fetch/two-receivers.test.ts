import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { exitCodeOf } from '../../src/cli/commands/fetch.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import { scratchDir } from '../support/scratch.js';
import {
  archiveOf,
  SYSTEM_ID,
  segmentOf,
  writeControl,
  writeLedger,
} from '../support/wal-archive.js';

const seg = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, '0')}`;
const isRoot = process.getuid?.() === 0;

/** Segments 6 to 11, and the begin of 12, as two receivers have them. */
let a: ReturnType<typeof archiveOf>;
let b: string;
beforeEach(async () => {
  a = archiveOf('switch');
  b = join(scratchDir('two'), 'b');
  cpSync(a.dir, b, { recursive: true });
  writeControl(a.data, SYSTEM_ID);
  for (const place of [a.dir, b]) await writeLedger(place, [[1, '0/600000']], '0/C00000');
});

/** As restore_command gets it, in both orders of the places. */
async function fetch(name: string, places = [a.dir, b]): Promise<number> {
  const codes: number[] = [];
  for (const order of [places, places.toReversed()]) {
    try {
      const options = { places: order, name, target: a.target, dataDir: a.data };
      codes.push((await fetchFile(options)).found ? 0 : 1);
    } catch (e) {
      codes.push(exitCodeOf(e));
    }
  }
  expect(codes[1]).toBe(codes[0]);
  return codes[0] as number;
}

describe('restoring from the archives of two receivers', () => {
  it('says of no file that it is not there which one of them has', async () => {
    for (const n of [7, 9]) rmSync(join(a.dir, seg(n)));
    for (const n of [8, 10]) rmSync(join(b, seg(n)));
    for (const n of [6, 7, 8, 9, 10, 11]) {
      expect(await fetch(seg(n)), seg(n)).toBe(0);
      expect(readFileSync(a.target).equals(segmentOf('switch', seg(n)))).toBe(true);
    }
    expect(await fetch(seg(13))).toBe(1);
    // Of what neither has each knows that it should be there.
    for (const place of [a.dir, b]) rmSync(join(place, seg(11)));
    expect(await fetch(seg(11))).toBe(203);
  });

  it.each([
    ['gone', remove],
    ['empty, as a disk that is not mounted', empty],
    ['no directory', fileInPlace],
  ])('serves what one has and ends at nothing while the other is %s', async (_, lose) => {
    lose();
    expect(await fetch(seg(8))).toBe(0);
    // The last one may be whole there, and more may follow.
    for (const name of [seg(12), seg(13), '00000002.history']) {
      expect(await fetch(name), name).toBe(205);
    }
    expect(await fetch(seg(12), [a.dir])).toBe(0);
    expect(await fetch(seg(13), [a.dir])).toBe(1);
  });

  it.skipIf(isRoot)('nor while it may not be read', async () => {
    chmodSync(b, 0);
    expect(await fetch(seg(8))).toBe(0);
    expect(await fetch(seg(13))).toBe(205);
    chmodSync(b, 0o700);
  });

  it('nor while it is of another cluster', async () => {
    empty();
    await writeLedger(b, [[1, '0/600000']], '0/C00000', SYSTEM_ID + 1n);
    expect(await fetch(seg(8))).toBe(0);
    for (const name of [seg(13), '00000002.history']) {
      expect(await fetch(name), name).toBeGreaterThan(125);
    }
  });
});

function remove(): void {
  rmSync(b, { recursive: true });
}

function empty(): void {
  remove();
  mkdirSync(b);
}

function fileInPlace(): void {
  remove();
  writeFileSync(b, '');
}
