import type { Geometry } from '../../src/base/incremental.js';

/** `INCREMENTAL.<file>` as a server makes it. @param blocks by their numbers, in any order */
export function incrementalFile(
  blocks: ReadonlyMap<number, Buffer>,
  truncation: number,
  { blockSize }: Geometry,
): Buffer {
  const numbers = [...blocks.keys()].sort((a, b) => a - b);
  const bytes = 12 + 4 * numbers.length;
  const length = numbers.length === 0 ? bytes : Math.ceil(bytes / blockSize) * blockSize;
  const header = Buffer.alloc(length);
  header.writeUInt32LE(0xd3ae1f0d, 0);
  header.writeUInt32LE(numbers.length, 4);
  header.writeUInt32LE(truncation, 8);
  numbers.forEach((n, i) => {
    header.writeUInt32LE(n, 12 + 4 * i);
  });
  return Buffer.concat([header, ...numbers.map((n) => blocks.get(n) as Buffer)]);
}
