import { createHash } from 'node:crypto';
import { CorruptObjectError, StoreUncertainError, UsageError } from '../errors.js';
import type { Content, GetOptions, Metadata } from './store.js';

/** S3 keeps 2048 bytes, of which a store needs some for the digest and the token. */
const MAX_META = 1800;

/** @throws UsageError for what cannot be kept with an object everywhere */
export function requireMetadata(meta: Metadata | undefined): void {
  let bytes = 0;
  for (const [name, value] of Object.entries(meta ?? {})) {
    const printable = typeof value === 'string' && /^[!-~]([ -~]*[!-~])?$/.test(value);
    if (!/^[a-z0-9-]+$/.test(name) || !printable) {
      throw new UsageError(`metadata "${name}" cannot be kept with an object`, {
        hint: 'Names are of a-z, 0-9 and "-", values of printable ASCII that is no space at an end.',
      });
    }
    bytes += name.length + value.length;
  }
  if (bytes <= MAX_META) return;
  throw new UsageError(`the metadata of an object has at most ${MAX_META} bytes, not ${bytes}`);
}

/** @throws UsageError */
export function requireContent({ size, sha256 }: Content): void {
  if (!Number.isSafeInteger(size) || size < 0) throw new UsageError(`"${size}" is no size`);
  if (!/^[0-9a-f]{64}$/.test(sha256)) throw new UsageError(`"${sha256}" is no SHA-256 in hex`);
}

/** A range of an object, cut to what it has. @throws UsageError */
export function rangeOf({ range }: GetOptions, size: number): { start: number; end: number } {
  if (!range) return { start: 0, end: size };
  requireRange(range);
  return { start: Math.min(range.start, size), end: Math.min(range.end, size) };
}

/** @throws UsageError */
export function requireRange(range: GetOptions['range']): void {
  if (!range) return;
  const { start, end } = range;
  if (Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end)
    return;
  throw new UsageError(`there is no range from byte ${start} to ${end}`);
}

/**
 * The bytes that are to be stored, in the pieces they come in, proven on the way: one that goes
 * through to its end was what it was said to be. @throws CorruptObjectError, whatever `open` throws,
 * the signal's reason
 */
export async function* provenContent(
  key: string,
  content: Content,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  const hash = content.proven ? undefined : createHash('sha256');
  let size = 0;
  for await (const piece of untilAborted(content.open(), signal)) {
    size += piece.length;
    if (size > content.size) break;
    hash?.update(piece);
    if (piece.length > 0) yield piece;
  }
  const digest = size === content.size ? (hash?.digest('hex') ?? content.sha256) : undefined;
  if (digest === content.sha256) return;
  const whole = digest !== undefined;
  throw new CorruptObjectError(`what was to be stored as "${key}" is not what it was said to be`, {
    key,
    expected: whole ? `SHA-256 ${content.sha256}` : `${content.size} bytes`,
    actual: whole ? `SHA-256 ${digest}` : size > content.size ? 'more' : `${size} bytes`,
    hint: 'Nothing was stored. See what changes it while it is read.',
  });
}

/** What is said of the bytes that are read: how many there are, and what they are if it is known. */
export interface Expected {
  key: string;
  /** Bytes that will come. */
  length: number;
  /** SHA-256 of just these; undefined where it is not known, as of a range. */
  sha256: string | undefined;
}

/**
 * The bytes of a stored object, proven at the end. @throws StoreUncertainError if they end before
 * their time, CorruptObjectError if they are others
 */
export async function* provenBody(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  { key, length, sha256 }: Expected,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  const hash = sha256 === undefined ? undefined : createHash('sha256');
  let size = 0;
  for await (const piece of untilAborted(source, signal)) {
    size += piece.length;
    if (size > length) break;
    hash?.update(piece);
    if (piece.length > 0) yield piece;
  }
  if (size !== length) {
    throw new StoreUncertainError(`"${key}" came with ${size} bytes instead of ${length}`, { key });
  }
  const digest = hash?.digest('hex');
  if (digest === sha256) return;
  throw new CorruptObjectError(`"${key}" is not what was stored`, {
    key,
    expected: `SHA-256 ${sha256}`,
    actual: `SHA-256 ${digest}`,
  });
}

/** Ends with the signal's reason also while the source says nothing. */
export async function* untilAborted<T>(
  source: AsyncIterable<T> | Iterable<T>,
  signal?: AbortSignal,
): AsyncGenerator<T, void, void> {
  signal?.throwIfAborted();
  const iterator =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  let ended = false;
  let asked = false;
  let give: ((reason: unknown) => void) | undefined;
  const aborted = () => give?.(signal?.reason);
  signal?.addEventListener('abort', aborted, { once: true });
  try {
    for (;;) {
      asked = true;
      // No race with one promise for all of them: it would hold every piece until the end.
      const { done, value } = await new Promise<IteratorResult<T>>((resolve, reject) => {
        give = reject;
        Promise.resolve(iterator.next()).then(resolve, reject);
      });
      asked = false;
      ended = done === true;
      if (ended) return;
      yield value as T;
      signal?.throwIfAborted();
    }
  } finally {
    signal?.removeEventListener('abort', aborted);
    const end = ended ? undefined : Promise.resolve(iterator.return?.()).catch(() => {});
    // A source that hangs in next() would hang here too.
    if (!asked) await end;
  }
}

/** In pieces of at most so many bytes. */
export function* cut(piece: Uint8Array, most: number): Generator<Uint8Array, void, void> {
  for (let at = 0; at < piece.length; at += most) yield piece.subarray(at, at + most);
}

/** Content that is in memory. */
export function contentOf(bytes: Uint8Array): Content {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { size: bytes.length, sha256, open: () => [bytes] };
}

/** All bytes of a body. @throws RangeError beyond `limit`, so that no store can fill the memory */
export async function bytesOf(
  body: AsyncIterable<Uint8Array>,
  limit = Number.POSITIVE_INFINITY,
): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of body) {
    size += piece.length;
    if (size > limit) throw new RangeError(`more than ${limit} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}
