import { parseRecipients } from '../../codec/age/recipients.js';
import { loadCodecs, quickCompression, requireLevel } from '../../codec/codecs.js';
import { decodeBytes, type EncodeOptions, encodeSegment, stagesOf } from '../../codec/stages.js';
import { EncryptedError } from '../../errors.js';
import type { Compression } from '../../wal/file-name.js';
import type { ObjectCodec } from '../store-archive-writer.js';

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
  const spare: GrowingBuffer[] = [];
  const stages = stagesOf(options).join(',') || 'none';
  return {
    async encode(plain) {
      if (stages === 'none') return { bytes: plain, stages, release: () => {} };
      const buffer = spare.pop() ?? new GrowingBuffer();
      const release = (): void => void spare.push(buffer);
      try {
        const bytes = await buffer.fill(encodeSegment(plain, options), plain.length + OVERHEAD);
        return { bytes, stages, release };
      } catch (e) {
        release();
        throw e;
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
  #bytes = Buffer.alloc(0);

  /**
   * All of it, valid until the next time.
   * @param likely room that it takes; what is not used of it takes no memory
   */
  async fill(pieces: AsyncIterable<Uint8Array>, likely: number): Promise<Uint8Array> {
    let length = 0;
    if (this.#bytes.length < likely) this.#bytes = Buffer.allocUnsafeSlow(likely);
    for await (const piece of pieces) {
      const needed = length + piece.length;
      if (needed > this.#bytes.length) {
        const larger = Buffer.allocUnsafeSlow(2 * needed);
        this.#bytes.copy(larger, 0, 0, length);
        this.#bytes = larger;
      }
      this.#bytes.set(piece, length);
      length = needed;
    }
    return this.#bytes.subarray(0, length);
  }
}
