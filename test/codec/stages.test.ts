import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  generateHybridIdentity,
  generateX25519Identity,
  identityToRecipient,
} from 'age-encryption';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { outputOf } from '../../src/codec/age/command.js';
import { Identities } from '../../src/codec/age/identities.js';
import { parseRecipients, type Recipients } from '../../src/codec/age/recipients.js';
import type { CompressionMethod } from '../../src/codec/codecs.js';
import {
  type DecodeOptions,
  decodeBytes,
  decodeStored,
  detectCodec,
  type EncodeOptions,
  encodeBytes,
  encodeSegment,
  encryptionOf,
  stagesOf,
} from '../../src/codec/stages.js';
import { scratchDir } from '../support/scratch.js';

const CODECS: readonly (CompressionMethod | undefined)[] = [undefined, 'gzip', 'lz4', 'zstd'];
const PIECE = 64 * 1024;
const name = 'wal/00000001/000000010000000000000007';

let secret: string;
let recipients: Recipients;
let identities: Identities;
beforeAll(async () => {
  secret = await generateX25519Identity();
  const others = await Promise.all([generateX25519Identity(), generateX25519Identity()]);
  const names = await Promise.all([...others, secret].map(identityToRecipient));
  recipients = await parseRecipients(names);
  identities = await Identities.parse(secret);
});

/** Repeatable, and compressible in part. */
function sample(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i++) bytes[i] = i % 7 === 0 ? (i * 2654435761) >>> 24 : i >> 11;
  // As WAL of 18 begins, so that it is seen to be no compression.
  bytes.set([0x18, 0xd1].slice(0, size));
  return bytes;
}

async function* cutInto(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes.length === 0 ? bytes.length : (sizes[i % sizes.length] as number);
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

async function gather(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of chunks) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

const decoded = (stored: Uint8Array, options: Partial<DecodeOptions> = {}) =>
  decodeBytes(stored, { name, identities, ...options });
const refusal = (stored: Uint8Array, options: Partial<DecodeOptions> = {}) =>
  decoded(stored, options).then(
    ({ content, complete }) => expect.fail(`read ${content.length} bytes, ${complete}`),
    (e) => e,
  );

describe.each(CODECS)('%s', (codec) => {
  it.each([false, true])(
    'encrypted: %s, gives back what went in, however it is cut',
    async (secretly) => {
      const options: EncodeOptions = { codec, recipients: secretly ? recipients : undefined };
      const nearby = fc
        .tuple(fc.integer({ min: 0, max: 4 }), fc.integer({ min: -20, max: 20 }))
        .map(([pieces, more]) => Math.max(0, pieces * PIECE + more));
      const size = fc.oneof(nearby, fc.integer({ min: 0, max: 400_000 }));
      const cuts = fc.array(fc.integer({ min: 1, max: 200_000 }), { maxLength: 4 });
      await fc.assert(
        fc.asyncProperty(size, cuts, cuts, async (length, into, out) => {
          const plain = sample(length);
          const stored = await gather(encodeSegment(cutInto(plain, into), options));
          const decoding = decodeStored(cutInto(stored, out), { name, identities });
          expect((await gather(decoding)).equals(plain)).toBe(true);
          const stages = stagesOf(options);
          expect(await decoding.result).toEqual({ stages, bytes: length, complete: true });
        }),
        { numRuns: 40 },
      );
    },
  );

  it('cut anywhere, is refused', async () => {
    const plain = sample(3 * PIECE + 100);
    for (const to of [undefined, recipients]) {
      if (!codec && !to) continue;
      const stored = await encodeBytes(plain, { codec, recipients: to });
      const ends = [0, 1, 200, PIECE, 2 * PIECE, stored.length >> 1].map((n) => stored.length - n);
      for (const end of [...ends, 5, 22, 23, 100, 300].filter((n) => n < stored.length && n > 22)) {
        expect(await refusal(stored.subarray(0, end))).toMatchObject({
          code: 'WK_CORRUPT_OBJECT',
          path: name,
          retryable: false,
        });
      }
    }
  });

  it('with something behind it, is refused', async () => {
    const stored = await encodeBytes(sample(100_000), { codec, recipients });
    expect(await refusal(Buffer.concat([stored, Buffer.alloc(9)]))).toMatchObject({
      code: 'WK_CORRUPT_OBJECT',
    });
    if (!codec) return;
    const open = await encodeBytes(sample(100_000), { codec });
    const error = await refusal(Buffer.concat([open, Buffer.from('something')]));
    expect(error.message).toBe(`"${name}" has something behind its end`);
    // Inside what is encrypted as well.
    const inside = await encodeBytes(Buffer.concat([open, Buffer.from('more')]), { recipients });
    expect(await refusal(inside)).toMatchObject({ message: error.message });
  });

  it('stops at the limit, and when no more is asked for', async () => {
    const plain = sample(2_000_000);
    const stored = await encodeBytes(plain, { codec, recipients });
    for (const limit of [1, 8192, PIECE, 1_000_001]) {
      const { content, bytes, complete } = await decoded(stored, { limit });
      expect([bytes, complete]).toEqual([limit, false]);
      expect(plain.subarray(0, limit).equals(content)).toBe(true);
    }
    let closed = false;
    const source = async function* () {
      try {
        for (let i = 0; ; i++) {
          if (i * 1000 >= stored.length) return;
          yield stored.subarray(i * 1000, (i + 1) * 1000);
        }
      } finally {
        closed = true;
      }
    };
    const decoding = decodeStored(source(), { name, identities });
    for await (const chunk of decoding) if (chunk.length > 0) break;
    expect(await decoding.result).toMatchObject({ complete: false });
    expect(closed).toBe(true);
  });

  it('hands on what its source throws', async () => {
    const broken = async function* (bytes: Uint8Array) {
      yield bytes;
      throw new Error('the network is gone');
    };
    const stored = await encodeBytes(sample(300_000), { codec, recipients });
    const half = stored.subarray(0, stored.length >> 1);
    await expect(gather(decodeStored(broken(half), { name, identities }))).rejects.toThrow(
      'network',
    );
    await expect(gather(encodeSegment(broken(half), { codec, recipients }))).rejects.toThrow(
      'network',
    );
  });
});

describe('age', () => {
  const seal = (plain: Uint8Array) => encodeBytes(plain, { recipients });
  const SEALED = PIECE + 16;

  it('finds any bit that flipped', async () => {
    const stored = await seal(sample(PIECE + 500));
    const begin = stored.length - (PIECE + 500 + 32 + 16);
    const places = [
      ...Array.from({ length: begin + 20 }, (_, i) => i),
      ...[begin + 1000, begin + SEALED, stored.length - 17, stored.length - 1],
    ];
    for (const at of places) {
      const bad = Uint8Array.from(stored);
      bad[at] = (bad[at] as number) ^ 4;
      // What does not begin as age does is plain to us.
      if (at < 22) expect((await decoded(bad)).stages).toEqual([]);
      else expect((await refusal(bad)).code).toMatch(/^WK_(CORRUPT_OBJECT|ENCRYPTED)$/);
    }
  });

  it('finds pieces that were swapped, left out, repeated, or are of another file', async () => {
    const [one, other] = [await seal(sample(4 * PIECE)), await seal(randomBytes(4 * PIECE))];
    const begin = one.length - 4 * SEALED;
    const piece = (file: Uint8Array, i: number) =>
      file.subarray(begin + i * SEALED, begin + (i + 1) * SEALED);
    const made = (...pieces: Uint8Array[]) => Buffer.concat([one.subarray(0, begin), ...pieces]);
    const [a, b, c, d] = [0, 1, 2, 3].map((i) => piece(one, i)) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    expect((await decoded(made(a, b, c, d))).bytes).toBe(4 * PIECE);
    for (const pieces of [
      [b, a, c, d],
      [a, c, d],
      [a, a, b, c, d],
      [a, b, c, d, d],
      [a, piece(other, 1), c, d],
      [a, b, d, c],
      [d],
      [],
    ]) {
      expect(await refusal(made(...pieces))).toMatchObject({ code: 'WK_CORRUPT_OBJECT' });
    }
    expect((await refusal(made(a, b))).message).toBe(`"${name}" is cut short: more was encrypted`);
    expect((await refusal(made(a, b, c, d, a))).message).toBe(
      `"${name}" has something behind its end`,
    );
    expect((await refusal(made(b, a, c, d))).message).toBe(
      `"${name}" is cut short, damaged or out of order from byte 0 of its content on`,
    );
  });

  it('says in one line who is missing', async () => {
    const stored = await seal(sample(100));
    const none = await refusal(stored, { identities: undefined });
    expect(none).toMatchObject({ code: 'WK_ENCRYPTED', retryable: false, path: name });
    expect(none.message).toBe(`"${name}" is encrypted, and no identity was given`);
    const stranger = await Identities.parse(await generateX25519Identity());
    const wrong = await refusal(stored, { identities: stranger });
    expect(wrong).toMatchObject({ code: 'WK_ENCRYPTED', retryable: false, path: name });
    expect(wrong.message).toBe(`"${name}" is encrypted for none of the identities given`);
    const both = Identities.join([stranger, identities]);
    expect((await decoded(stored, { identities: both })).bytes).toBe(100);
    expect(await encryptionOf(cutInto(stored, [50]), both, name)).toEqual({
      recipients: recipients.names.length,
      openedBy: identities.recipients,
    });
    expect(await encryptionOf(cutInto(sample(100), []), both, name)).toBeUndefined();
  });

  it('says that a header that never ends is one', async () => {
    for (const rest of [
      '',
      '-> X25519',
      '-> X25519 abc\n'.repeat(40_000),
      '--- !\n',
      '--- AAAA\n',
    ]) {
      const error = await refusal(Buffer.from(`age-encryption.org/v1\n${rest}`));
      expect(error.code).toMatch(/^WK_(CORRUPT_OBJECT|ENCRYPTED)$/);
    }
  });

  it('has recipients of the kinds that age has, and names what is none', async () => {
    const hybrid = await generateHybridIdentity();
    const text = `# post-quantum\n\n${await identityToRecipient(hybrid)}\r\n`;
    const stored = await encodeBytes(sample(10), { recipients: await parseRecipients(text) });
    expect((await decoded(stored, { identities: await Identities.parse(hybrid) })).bytes).toBe(10);
    await expect(parseRecipients([])).rejects.toMatchObject({ code: 'WK_USAGE' });
    await expect(parseRecipients(['age1nonsense'])).rejects.toThrow('"age1nonsense" is no age');
    const secretly = await parseRecipients([secret]).catch((e) => e);
    expect(secretly.code).toBe('WK_USAGE');
    expect(JSON.stringify(secretly) + secretly.stack).not.toContain(secret.slice(16));
  });

  it('reads identities from text and files, and never quotes one', async () => {
    const path = join(scratchDir('age'), 'keys.txt');
    const another = await generateX25519Identity();
    writeFileSync(path, `# created: today\n# public key: age1…\n${another}\n\n  ${secret}  \n`);
    const both = await Identities.fromFile(path);
    expect(both.recipients).toEqual([
      await identityToRecipient(another),
      await identityToRecipient(secret),
    ]);
    expect(JSON.stringify(both)).not.toContain('SECRET');
    const broken = secret.slice(0, -1) + (secret.endsWith('Q') ? 'P' : 'Q');
    writeFileSync(path, `${readFileSync(path, 'utf8')}${broken}\n`);
    const error = await Identities.fromFile(path).catch((e) => e);
    expect(error).toMatchObject({ code: 'WK_ENCRYPTED' });
    expect(error.message).toBe(`line 6 of identity file "${path}" is no age identity`);
    expect(error.stack + JSON.stringify(error)).not.toContain(secret.slice(16, 40));
    expect(error.cause).toBeUndefined();
    for (const text of ['', '# nothing\n']) {
      await expect(Identities.parse(text)).rejects.toThrow('there is no age identity in');
    }
    await expect(Identities.fromFile(`${path}.none`)).rejects.toMatchObject({
      code: 'WK_ENCRYPTED',
      path: `${path}.none`,
    });
  });
});

describe('the identity command', () => {
  it('is split as a shell splits words', async () => {
    const [program, value] = [process.execPath, 'console.log(process.argv.slice(1).join())'];
    const printed = outputOf(`"${program}" -e '${value}' "a\\$b\\c" d\\ e`, {});
    expect(await printed).toBe('a$b\\c,d e\n');
    for (const bad of [`a 'b`, 'a "b', 'a\\']) {
      await expect(outputOf(bad, {})).rejects.toMatchObject({ code: 'WK_USAGE' });
    }
  });
});

it('tells by the first bytes what content is', () => {
  const of = (hex: string) => detectCodec(Buffer.from(hex, 'hex'));
  expect([of('1f8b0800'), of('04224d18'), of('28b52ffd')]).toEqual(['gzip', 'lz4', 'zstd']);
  expect(detectCodec(Buffer.from('age-encryption.org/v1\n-> X'))).toBe('age');
  expect([of('18d1'), of('0dd1')]).toEqual(['none', 'none']);
  expect([of(''), of('1f'), of('7b22')]).toEqual([undefined, undefined, undefined]);
});

it('is read without knowing how it was stored: once, not twice', async () => {
  const twice = await encodeBytes(await encodeBytes(sample(50), { recipients }), { recipients });
  const { stages, content } = await decoded(twice);
  expect(stages).toEqual(['age']);
  expect(detectCodec(content)).toBe('age');
  const zipped = await encodeBytes(await encodeBytes(sample(50), { codec: 'gzip' }), {
    codec: 'lz4',
  });
  expect(detectCodec((await decoded(zipped)).content)).toBe('gzip');
});

it('refuses a level that the codec has not', async () => {
  for (const [codec, level] of [
    ['gzip', 0],
    ['gzip', 10],
    ['zstd', 23],
    ['zstd', 1.5],
  ] as const) {
    await expect(encodeBytes(sample(1), { codec, level })).rejects.toMatchObject({
      code: 'WK_USAGE',
    });
  }
  const sizes = await Promise.all(
    [1, 19].map(
      async (level) => (await encodeBytes(sample(300_000), { codec: 'zstd', level })).length,
    ),
  );
  expect(sizes[1]).toBeLessThan(sizes[0] as number);
});

it('of a zstd frame all is there that it announces, also where no checksum says so', async () => {
  const { compress, init } = await import('@bokuweb/zstd-wasm');
  await init();
  const frame = Buffer.from(compress(randomBytes(300), 3));
  // A single segment whose size takes two bytes, 256 less than it is, and no checksum.
  expect(frame[4]).toBe(0x60);
  expect(frame.readUInt16LE(5)).toBe(300 - 256);
  expect((await decodeBytes(frame, { name })).content.length).toBe(300);
  for (const size of [299, 301, 5000]) {
    frame.writeUInt16LE(size - 256, 5);
    await expect(decodeBytes(frame, { name })).rejects.toMatchObject({ code: 'WK_CORRUPT_OBJECT' });
  }
});
