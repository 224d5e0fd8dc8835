import { parseRecipients } from '../../codec/age/recipients.js';
import { loadCodecs, quickCompression, requireLevel } from '../../codec/codecs.js';
import { compressInThread, sharedBuffer } from '../../codec/shared.js';
import { decodeBytes, type EncodeOptions, encodeSegment, stagesOf } from '../../codec/stages.js';
import { EncryptedError } from '../../errors.js';
import type { Compression } from '../../wal/file-name.js';
import type { EncodedObject, ObjectCodec } from '../store-archive-writer.js';

/** What objects are compressed with before they are sent. */
export interface ObjectCompression {
  method: Compression;
  /** The method's own scale, absent for its default. */
  level?: number;
}

/**
 * What makes objects, checked before anything is shipped, and loaded: the files that it is in may be
 * replaced while it runs.
 * @throws UsageError
 */
export async function objectCodec(
  { method, level }: ObjectCompression = quickCompression(),
  recipients: readonly string[] = [],
  command = 'ship',
): Promise<ObjectCodec> {
  const options: EncodeOptions = {
    ...(method === 'none' ? {} : { codec: method }),
    ...(level === undefined ? {} : { level }),
    ...(recipients.length === 0 ? {} : { recipients: await parseRecipients(recipients) }),
  };
  if (method !== 'none' && level !== undefined) requireLevel(command, method, level);
  await loadCodecs();
  const inThread = (plain: Uint8Array, into: Uint8Array): Promise<number> | undefined =>
    method === 'none' ? undefined : compressInThread(method, plain, into, level);
  // The thread has files of its own. If it cannot start, the first object tells.
  if (command === 'ship') inThread(sharedBuffer(0), sharedBuffer(OVERHEAD))?.catch(() => {});
  const spare: GrowingBuffer[] = [];
  const stages = stagesOf(options).join(',') || 'none';
  const inBuffer = async (
    plain: Uint8Array,
    fill: (buffer: GrowingBuffer, likely: number) => Promise<Uint8Array | undefined>,
  ): Promise<EncodedObject | undefined> => {
    const buffer = spare.pop() ?? new GrowingBuffer();
    const release = (): void => void spare.push(buffer);
    let bytes: Uint8Array | undefined;
    try {
      bytes = await fill(buffer, plain.length + OVERHEAD);
      return bytes && { bytes, stages, release };
    } finally {
      if (!bytes) release();
    }
  };
  /** Undefined where this thread is to do it. */
  const compressed = (plain: Uint8Array) =>
    inBuffer(plain, async (buffer, likely) => {
      const room = buffer.room(likely);
      const length = await inThread(plain, room);
      return length === undefined ? undefined : room.subarray(0, length);
    });
  const encoded = async (plain: Uint8Array, how: EncodeOptions): Promise<EncodedObject> => {
    const fill = (buffer: GrowingBuffer, likely: number) =>
      buffer.fill(encodeSegment(plain, how), likely);
    return (await inBuffer(plain, fill)) as EncodedObject;
  };
  return {
    async encode(plain) {
      if (stages === 'none') return { bytes: plain, stages, release: () => {} };
      const there = await compressed(plain);
      if (!there) return encoded(plain, options);
      const { recipients } = options;
      if (!recipients) return there;
      try {
        return await encoded(there.bytes, { recipients });
      } finally {
        there.release();
      }
    },
    async decode(stored) {
      try {
        return (await decodeBytes(stored, { name: 'the stored object' })).content;
      } catch (e) {
        // Who ships has public keys only.
        if (e instanceof EncryptedError) return undefined;
        throw e;
      }
    },
  };
}

/** Bytes that encoding adds at most to what cannot be compressed; if not, that only costs memory. */
const OVERHEAD = 1024 * 1024;

/**
 * Memory that is used again: were the pieces kept until they are sent, they would live long enough
 * for megabytes of each segment to stay until a late collection.
 */
class GrowingBuffer {
  #bytes = sharedBuffer(0);

  /** What is in it is not kept. */
  room(size: number): Uint8Array {
    if (this.#bytes.length < size) this.#bytes = sharedBuffer(size);
    return this.#bytes;
  }

  /**
   * All of it, valid until the next time.
   * @param likely room that it takes; what is not used of it takes no memory
   */
  async fill(pieces: AsyncIterable<Uint8Array>, likely: number): Promise<Uint8Array> {
    let length = 0;
    this.room(likely);
    for await (const piece of pieces) {
      const needed = length + piece.length;
      if (needed > this.#bytes.length) {
        const larger = sharedBuffer(2 * needed);
        this.#bytes.copy(larger, 0, 0, length);
        this.#bytes = larger;
      }
      this.#bytes.set(piece, length);
      length = needed;
    }
    return this.#bytes.subarray(0, length);
  }
}
