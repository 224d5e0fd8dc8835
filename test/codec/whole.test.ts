import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { compressorOf } from '../../src/codec/codecs.js';
import { compressInto as compressLz4Into } from '../../src/codec/lz4/compress.js';
import { decodeBytes } from '../../src/codec/stages.js';
import { compressInto as compressZstdInto } from '../../src/codec/zstd/zstd.js';

const CONTENTS: [string, Buffer][] = [
  ['nothing', Buffer.alloc(0)],
  ['a byte', Buffer.from('x')],
  ['zeros', Buffer.alloc(3_000_000)],
  ['what cannot be compressed', randomBytes(700_000)],
];

for (const method of ['gzip', 'lz4', 'zstd'] as const) {
  test.each(CONTENTS)(`${method}: %s is a frame that stands alone`, async (_, plain) => {
    const { compressWhole } = await compressorOf(method);
    const options = method === 'lz4' ? {} : { level: 1 };
    const frame = await compressWhole(plain, options);
    const { content, complete } = await decodeBytes(frame, { name: 'frame' });
    expect(complete && Buffer.from(content).equals(plain)).toBe(true);
    const both = await decodeBytes(Buffer.concat([frame, await compressWhole(plain, {})]), {
      name: 'frames',
    });
    expect(Buffer.from(both.content).equals(Buffer.concat([plain, plain]))).toBe(true);
    if (plain.length === 0) return;
    // Its checksum sees what would be another content.
    const spoiled = Uint8Array.from(frame);
    const at = frame.length >> 1;
    spoiled[at] = (spoiled[at] as number) ^ 1;
    const read = await decodeBytes(spoiled, { name: 'spoiled' }).catch(() => undefined);
    expect(read === undefined || Buffer.from(read.content).equals(plain)).toBe(true);
  });
}

test.each([
  ['lz4', compressLz4Into],
  ['zstd', compressZstdInto],
] as const)('%s: the same in memory of the caller', async (_, compressInto) => {
  for (const [, plain] of CONTENTS) {
    const into = new Uint8Array(plain.length + 4096);
    const length = await compressInto(plain, into);
    const { content, complete } = await decodeBytes(into.subarray(0, length), { name: 'frame' });
    expect(complete && Buffer.from(content).equals(plain)).toBe(true);
    // Too small, nothing is written behind it.
    const call = async () => compressInto(plain, into.subarray(0, length - 1));
    await expect(call()).rejects.toThrow(RangeError);
  }
});
