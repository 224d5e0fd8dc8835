import { CODECS, type CompressionMethod } from './codecs.js';
import { COMPRESSING_THREAD } from './thread.js';

/**
 * Makes what `compressStream` makes, in the thread, from shared memory to shared memory; gives its
 * length. Undefined for a codec that has no need of it, where there is no thread, and where the
 * memory is this thread's own: it would have to be copied.
 * @throws RangeError if `into` is too small
 */
export function compressInThread(
  codec: CompressionMethod,
  plain: Uint8Array,
  into: Uint8Array,
  level?: number,
): Promise<number> | undefined {
  if (!CODECS[codec].inThread || !isShared(plain) || !isShared(into)) return undefined;
  if (!COMPRESSING_THREAD.isPossible) return undefined;
  const job = { kind: 'memory', codec, plain, into } as const;
  return COMPRESSING_THREAD.run(level === undefined ? job : { ...job, level });
}

function isShared({ buffer }: Uint8Array): boolean {
  return buffer instanceof SharedArrayBuffer;
}

/** Memory that the thread sees as well. What is not used of it takes none. */
export function sharedBuffer(size: number): Buffer {
  return Buffer.from(new SharedArrayBuffer(size));
}
