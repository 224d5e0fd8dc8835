import { CorruptObjectError } from '../errors.js';
import { COMPRESSIONS, type Compression } from '../wal/file-name.js';
import { majorOfMagic } from '../wal/page.js';
import { AGE_MAGIC, decrypt, type Encryption, encrypt, readEncryption } from './age/age.js';
import type { Identities } from './age/identities.js';
import type { Recipients } from './age/recipients.js';
import {
  CODECS,
  type CompressionMethod,
  compressorOf,
  decompressorOf,
  requireLevel,
} from './codecs.js';
import type { FormatResult } from './format.js';
import { pulled } from './pulled.js';
import { StreamReader } from './stream-reader.js';

/**
 * What is stored elsewhere: compressed, then encrypted, each if asked for, and its own first bytes
 * say which. `age -d | zstd -d` reads it without us.
 */

/** What was done to plain bytes, in that order. */
export type Stage = CompressionMethod | 'age';

export interface EncodeOptions {
  /** Absent: not compressed. */
  codec?: CompressionMethod | undefined;
  /** Within the bounds that `CODECS` has; absent for the codec's default. */
  level?: number | undefined;
  /** Absent: not encrypted. */
  recipients?: Recipients | undefined;
}

/** For the metadata of what is stored. */
export function stagesOf({ codec, recipients }: EncodeOptions): Stage[] {
  return [...(codec ? [codec] : []), ...(recipients ? (['age'] as const) : [])];
}

/**
 * In bounded memory; the chunks stay as they are, unless nothing is asked for.
 * @throws UsageError for a level that the codec has not; what `plain` throws
 */
export async function* encodeSegment(
  plain: Uint8Array | AsyncIterable<Uint8Array>,
  { codec, level, recipients }: EncodeOptions,
): AsyncGenerator<Uint8Array> {
  let bytes = plain instanceof Uint8Array ? once(plain) : plain;
  if (codec) {
    if (level !== undefined) requireLevel('the codec', codec, level);
    const { compressStream } = await compressorOf(codec);
    bytes = compressStream(bytes, level === undefined ? {} : { level });
  }
  yield* recipients ? encrypt(bytes, recipients) : bytes;
}

/** The same as one buffer, whose size and digest are known before it is sent. */
export async function encodeBytes(plain: Uint8Array, options: EncodeOptions): Promise<Uint8Array> {
  return whole(encodeSegment(plain, options));
}

export interface DecodeOptions {
  identities?: Identities | undefined;
  /** Plain bytes at which it stops. */
  limit?: number | undefined;
  /** Of what is read, for errors. */
  name: string;
}

/** How decoding ended. */
export interface Decoded {
  stages: readonly Stage[];
  /** Plain bytes delivered. */
  bytes: number;
  /** False: it stopped at the limit, or no more were asked for. Nothing is said of the rest. */
  complete: boolean;
}

/** Plain bytes, each chunk valid until the next step. Only `result` says that they are all. */
export interface Decoding extends AsyncIterable<Uint8Array> {
  /** Settles with the iteration. */
  readonly result: Promise<Decoded>;
}

/**
 * Takes off what is stored what was done to it, as its own bytes say: decrypts, then decompresses,
 * each at most once, in bounded memory.
 * @param stored its chunks must stay as they are
 * @throws (the iteration) CorruptObjectError for what is cut, damaged or followed by something;
 *   EncryptedError if no identity opens it; what `stored` throws
 */
export function decodeStored(stored: AsyncIterable<Uint8Array>, options: DecodeOptions): Decoding {
  let settle: (result: Decoded) => void = () => {};
  let fail: (error: unknown) => void = () => {};
  const result = new Promise<Decoded>((resolve, reject) => {
    settle = resolve;
    fail = reject;
  });
  // Whoever iterates hears of it first.
  result.catch(() => {});
  return {
    result,
    async *[Symbol.asyncIterator]() {
      const state: Decoded = { stages: [], bytes: 0, complete: false };
      try {
        yield* decode(stored, options, state);
      } catch (e) {
        fail(e);
        throw e;
      } finally {
        settle(state);
      }
    },
  };
}

/** The same as one buffer. @throws as the iteration */
export async function decodeBytes(
  stored: Uint8Array,
  options: DecodeOptions,
): Promise<Decoded & { content: Uint8Array }> {
  const decoding = decodeStored(once(stored), options);
  const content = await whole(decoding);
  return { ...(await decoding.result), content };
}

async function* decode(
  stored: AsyncIterable<Uint8Array>,
  { identities, limit = Number.POSITIVE_INFINITY, name }: DecodeOptions,
  state: Decoded,
): AsyncGenerator<Uint8Array> {
  const outer = new StreamReader(stored);
  let reader = outer;
  try {
    const isEncrypted = detectCodec(await outer.peek(LONGEST_MAGIC)) === 'age';
    if (isEncrypted) reader = new StreamReader(decrypt(outer, identities, name));
    const inside = detectCodec(await reader.peek(LONGEST_MAGIC));
    // What is encrypted twice is none of ours: it stays what it is.
    const compression = inside === undefined || inside === 'age' ? 'none' : inside;
    const codec = compression === 'none' ? undefined : (compression as CompressionMethod);
    state.stages = [...(codec ? [codec] : []), ...(isEncrypted ? (['age'] as const) : [])];
    const { decompress } = await decompressorOf(compression);
    const chunks = pulled((deliver) => decompress({ reader }, deliver));
    try {
      for (;;) {
        const { done, value } = await chunks.next();
        if (done) {
          requireSound(value, name);
          state.complete = true;
          return;
        }
        const wanted = value.subarray(0, Math.min(value.length, limit - state.bytes));
        state.bytes += wanted.length;
        yield wanted;
        if (state.bytes >= limit) return;
      }
    } finally {
      await chunks.return(STOPPED);
    }
  } finally {
    if (reader !== outer) await reader.close();
    await outer.close();
  }
}

const STOPPED: FormatResult = { end: 'limit', trailingGarbage: false };

/** @throws CorruptObjectError */
function requireSound({ end, problem, trailingGarbage }: FormatResult, name: string): void {
  const corrupt = (message: string) => new CorruptObjectError(message, { path: name });
  if (end === 'cut') throw corrupt(`"${name}" is cut short: it ends before its content does`);
  if (end === 'damaged') throw corrupt(`could not decompress "${name}": ${problem}`);
  if (trailingGarbage) throw corrupt(`"${name}" has something behind its end`);
}

/** Who can read what is stored, by its first bytes; undefined if it is not encrypted. */
export async function encryptionOf(
  stored: AsyncIterable<Uint8Array>,
  identities: Identities,
  name: string,
): Promise<Encryption | undefined> {
  const reader = new StreamReader(stored);
  try {
    const found = detectCodec(await reader.peek(LONGEST_MAGIC));
    return found === 'age' ? await readEncryption(reader, identities, name) : undefined;
  } finally {
    await reader.close();
  }
}

/** Bytes that `detectCodec` looks at. */
export const LONGEST_MAGIC = AGE_MAGIC.length;

/** What content is, by its first bytes; `none` is a page of WAL. Undefined: nothing known here. */
export function detectCodec(first: Uint8Array): Compression | 'age' | undefined {
  const begins = (magic: ArrayLike<number>) =>
    first.length >= magic.length && Array.from(magic).every((byte, i) => first[i] === byte);
  if (begins(AGE_MAGIC)) return 'age';
  const known = COMPRESSIONS.find((c) => CODECS[c].magic.length > 0 && begins(CODECS[c].magic));
  if (known) return known;
  const [low = 0, high = 0] = first;
  return majorOfMagic(low | (high << 8)) === undefined ? undefined : 'none';
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function whole(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(Uint8Array.from(chunk));
  return Buffer.concat(parts);
}
