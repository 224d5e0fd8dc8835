import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeEach, expect, it } from 'vitest';
import { contentLength } from '../../../src/archive/good-wal.js';
import { scanDirectory } from '../../../src/archive/wal-directory.js';
import { compressFile } from '../../../src/codec/codec.js';
import { nodeFileSystem } from '../../../src/files/file-system.js';
import { seedPartial } from '../../../src/receive/target/partial-seed.js';
import { WalVerifier } from '../../../src/wal/verifier.js';
import { scratchDir } from '../../support/scratch.js';
import { switchedWal } from '../../wal/switched.js';
import { makeWal } from '../../wal/synthetic.js';

const SEGMENT = 1 << 20;
const NAME = '000000010000000000000050';
const wal = makeWal(Array.from({ length: 300 }, (_, n) => ({ body: Buffer.alloc(3001, n + 1) })));
const other = makeWal(Array.from({ length: 300 }, (_, n) => ({ body: Buffer.alloc(3001, n + 2) })));
/** Within the hundredth record, and its end. */
const WITHIN = Number((wal.lsns[100] as bigint) - wal.start) + 1000;
const BEHIND = Number((wal.lsns[101] as bigint) - wal.start);

const options = { segmentSize: SEGMENT, mode: 0o600, sync: false, fs: nodeFileSystem };
const verifier = () =>
  Promise.resolve(
    new WalVerifier({ startLsn: wal.start, segmentSize: SEGMENT, timeline: 1, systemId: 77n }),
  );

let dir: string;
beforeEach(() => {
  dir = scratchDir('seed');
});

/** The WAL up to a place, with a bit flipped within the hundredth record. */
function spoilt(to: number): Buffer {
  const bytes = Buffer.from(wal.bytes.subarray(0, to));
  bytes[WITHIN - 10] = bytes[WITHIN - 10]! ^ 1;
  return bytes;
}

const put = (compressed: Buffer, plain: Buffer) => {
  writeFileSync(join(dir, `${NAME}.gz.partial`), gzipSync(compressed));
  writeFileSync(join(dir, `${NAME}.partial`), Buffer.concat([plain], SEGMENT));
};
const seed = async () => {
  const { segments } = await scanDirectory(dir, SEGMENT);
  await seedPartial(dir, NAME, segments, { ...options, verifier });
};
const partial = () => readFileSync(join(dir, `${NAME}.partial`));
const holds = (bytes: Buffer) => partial().equals(Buffer.concat([bytes], SEGMENT));

it.each([
  ['the plain one where its record is good', spoilt(WITHIN), wal.bytes.subarray(0, BEHIND + 50)],
  [
    'the plain one within a record that is finished in none',
    spoilt(WITHIN),
    wal.bytes.subarray(0, WITHIN),
  ],
])('of two partials that differ goes on with %s', async (_which, compressed, plain) => {
  put(compressed, plain);
  await seed();
  expect(holds(plain)).toBe(true);
});

it('goes on with the compressed one where only its record is good', async () => {
  const good = wal.bytes.subarray(0, BEHIND + 50);
  put(good, spoilt(WITHIN));
  await seed();
  expect(holds(good)).toBe(true);
});

it('refuses two that are good and differ', async () => {
  put(wal.bytes.subarray(0, BEHIND), other.bytes.subarray(0, BEHIND));
  await expect(seed()).rejects.toThrow('hold different WAL');
  expect(holds(other.bytes.subarray(0, BEHIND))).toBe(true);
});

it('takes the good records of a complete segment, and no more', async () => {
  const whole = Buffer.concat([spoilt(wal.bytes.length)], SEGMENT);
  writeFileSync(join(dir, NAME), whole);
  await seed();
  expect(holds(wal.bytes.subarray(0, Number((wal.lsns[100] as bigint) - wal.start)))).toBe(true);
  expect(readFileSync(join(dir, NAME)).equals(whole)).toBe(true);
});

it('does not make a partial shorter for the good records of a complete segment', async () => {
  // It was received again, as far as it came, and acknowledged.
  writeFileSync(join(dir, NAME), Buffer.concat([spoilt(wal.bytes.length)], SEGMENT));
  const further = wal.bytes.subarray(0, BEHIND + 50_000);
  writeFileSync(join(dir, `${NAME}.partial`), Buffer.concat([further], SEGMENT));
  await seed();
  expect(holds(further)).toBe(true);
});

it('keeps what a longer plain one has behind the compressed one that is right', async () => {
  const further = spoilt(BEHIND + 100_000);
  put(wal.bytes.subarray(0, BEHIND + 50), further);
  await seed();
  expect(holds(wal.bytes.subarray(0, BEHIND + 100_000))).toBe(true);
});

it('does not keep what goes on from nothing behind the one that is right', async () => {
  const good = wal.bytes.subarray(0, BEHIND + 50);
  put(good, Buffer.concat([spoilt(BEHIND), Buffer.alloc(100_000, 7)]));
  await seed();
  expect(holds(good)).toBe(true);
});

it('takes none for longer because of the zeros that fill it up', async () => {
  const plain = wal.bytes.subarray(0, BEHIND);
  put(Buffer.concat([wal.bytes.subarray(0, WITHIN)], SEGMENT), plain);
  await seed();
  expect(holds(plain)).toBe(true);
});

it('needs little memory, however large the segment', async () => {
  const size = 1 << 28;
  const name = '000000010000000000000005';
  const begin = wal.bytes.subarray(0, BEHIND);
  writeFileSync(join(dir, `${name}.partial`), begin);
  truncateSync(join(dir, `${name}.partial`), size);
  const content = join(dir, 'content');
  writeFileSync(content, begin);
  truncateSync(content, size - 1);
  appendFileSync(content, 'x');
  await compressFile(content, join(dir, `${name}.gz.partial`), size, { method: 'gzip', level: 1 });
  const before = process.memoryUsage().rss;
  let most = 0;
  const timer = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 5);
  const { segments } = await scanDirectory(dir, size);
  await seedPartial(dir, name, segments, { ...options, segmentSize: size, verifier });
  clearInterval(timer);
  expect(await contentLength(join(dir, `${name}.partial`), nodeFileSystem)).toBe(size);
  expect((most - before) / 2 ** 20).toBeLessThan(100);
}, 60_000);

it('goes on with the longer one where two differ behind a switch record only', async () => {
  const switched = switchedWal(300_000);
  const [first, second] = [0x55, 0xd1].map((byte) => switched.tail((rest) => rest.fill(byte)));
  put(first!.subarray(0, 700_000), second!.subarray(0, 500_000));
  await seed();
  expect(holds(first!.subarray(0, 700_000))).toBe(true);
  put(first!.subarray(0, 400_000), second!.subarray(0, 500_000));
  await seed();
  expect(holds(second!.subarray(0, 500_000))).toBe(true);
});
