import zlib from 'node:zlib';
import type { Compression } from '../wal/file-name.js';
import { decompressorOf } from './codecs.js';
import { StreamReader } from './stream-reader.js';

/** Since Node.js 22.15; not in the types of the oldest supported version. */
const { zstdDecompressSync } = zlib as unknown as {
  zstdDecompressSync?: (
    bytes: Uint8Array,
    options: { maxOutputLength: number; chunkSize: number },
  ) => Buffer;
};

/**
 * Decompresses one frame or member of which it is known how much it holds, in one step and in this
 * thread where that can be: for threads that have nothing else to do.
 * @returns undefined if it is damaged, or holds more or less
 */
export async function decompressAtOnce(
  compression: Compression,
  bytes: Uint8Array,
  length: number,
): Promise<Uint8Array | undefined> {
  if (compression === 'none') return bytes.length === length ? bytes : undefined;
  // Whoever flips the bit that says how much there is would else be given all memory.
  // All in one chunk with a byte to spare: no second one is made to see that nothing follows.
  const options = { maxOutputLength: Math.max(1, length), chunkSize: Math.max(64, length + 1) };
  const inOneStep = { gzip: zlib.gunzipSync, zstd: zstdDecompressSync, lz4: undefined }[
    compression
  ];
  if (!inOneStep) return inSteps(compression, bytes, length);
  try {
    const content = inOneStep(bytes, options);
    return content.length === length ? content : undefined;
  } catch {
    return undefined;
  }
}

async function inSteps(
  compression: Compression,
  bytes: Uint8Array,
  length: number,
): Promise<Uint8Array | undefined> {
  const content = Buffer.allocUnsafeSlow(length);
  let have = 0;
  const { decompress } = await decompressorOf(compression);
  const { end, trailingGarbage } = await decompress(
    { reader: new StreamReader(once(bytes)) },
    async (chunk) => {
      if (have + chunk.length > length) return true;
      content.set(chunk, have);
      have += chunk.length;
      return false;
    },
  );
  return end === 'complete' && !trailingGarbage && have === length ? content : undefined;
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
