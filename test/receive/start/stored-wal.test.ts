import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { storedWal } from '../../../src/receive/start/stored-wal.js';
import { segmentFileName, segmentOf } from '../../../src/wal/file-name.js';
import { loadFixture } from '../../wal/fixtures.js';

const wal = loadFixture('mixed-18');
const { start, end, segmentSize, bytes } = wal;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'walkeep-known-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const store = (content: Uint8Array) => {
  const name = segmentFileName(1, segmentOf(start, segmentSize), segmentSize);
  writeFileSync(join(dir, `${name}.partial`), content);
};
const look = (acknowledged: bigint) => storedWal(dir, start, acknowledged, 1, segmentSize);
const stored = async () => (await look(start)).end;

it('knows nothing where there is no partial, or an empty one', async () => {
  expect(await stored()).toBe(start);
  store(Buffer.alloc(0));
  expect(await stored()).toBe(start);
  store(Buffer.alloc(segmentSize));
  expect(await stored()).toBe(start);
});

it('ends with the last complete record of a partial', async () => {
  store(bytes.subarray(0, segmentSize));
  expect(await stored()).toBe(end);
});

it('ends before a record that a crash tore or damaged', async () => {
  const torn = Buffer.from(bytes.subarray(0, segmentSize));
  const at = Math.floor(Number(end - start) / 2);
  torn.fill(0, at);
  store(torn);
  const first = await stored();
  expect(first).toBeGreaterThan(start);
  expect(first).toBeLessThanOrEqual(start + BigInt(at));
  torn.fill(0x55, at);
  store(torn);
  expect(await stored()).toBe(first);
});

it('tells an unfinished record from damage before a position', async () => {
  const torn = Buffer.from(bytes.subarray(0, segmentSize));
  const at = Math.floor(Number(end - start) / 2);
  torn.fill(0, at);
  store(torn);
  const { end: whole, torn: before } = await look(start + BigInt(at));
  expect(whole).toBeLessThan(start + BigInt(at));
  expect(before).toBe(true);
  // Behind what is there, and within what is whole.
  expect((await look(start + BigInt(at + 8192))).torn).toBe(false);
  expect((await look(whole)).torn).toBe(false);
  // Damage in a record that is there to its end.
  torn[Number(whole - start) - 1] = torn[Number(whole - start) - 1]! ^ 1;
  store(torn);
  expect((await look(start + BigInt(at))).torn).toBe(false);
});
