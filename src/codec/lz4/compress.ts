import { writeFully } from '../../files/durable.js';
import { type FileSystem, nodeFileSystem } from '../../files/file-system.js';
import { LZ4_BLOCK_SIZE, Lz4FrameEncoder } from './frame.js';

/**
 * Writes the first `length` bytes of the file `from` as one LZ4 frame to `to` (both file
 * descriptors). Every block ends a turn of the event loop.
 * @throws the errno error of read or write; ERANGE if the file is shorter
 */
export async function compressLz4(
  from: number,
  to: number,
  length: number,
  fs: FileSystem = nodeFileSystem,
): Promise<void> {
  let written = 0;
  const write = async (bytes: Uint8Array): Promise<void> => {
    await writeFully(fs, to, bytes, written);
    written += bytes.length;
  };
  const encoder = new Lz4FrameEncoder();
  const input = new Uint8Array(Math.min(LZ4_BLOCK_SIZE, length));
  await write(encoder.header(length));
  for (let at = 0; at < length; ) {
    const size = Math.min(input.length, length - at);
    for (let have = 0; have < size; ) {
      const bytesRead = await fs.read(from, input.subarray(have), size - have, at + have);
      if (bytesRead === 0) {
        throw Object.assign(new Error(`the file ends before ${length} bytes`), { code: 'ERANGE' });
      }
      have += bytesRead;
    }
    await write(encoder.block(input.subarray(0, size)));
    at += size;
  }
  await write(encoder.end());
}

/** All of `plain` as one LZ4 frame in `into`; its length. @throws RangeError if it does not fit */
export function compressInto(plain: Uint8Array, into: Uint8Array): number {
  const encoder = new Lz4FrameEncoder();
  let written = 0;
  const write = (bytes: Uint8Array): void => {
    into.set(bytes, written);
    written += bytes.length;
  };
  write(encoder.header(plain.length));
  for (let at = 0; at < plain.length; at += LZ4_BLOCK_SIZE) {
    write(encoder.block(plain.subarray(at, at + LZ4_BLOCK_SIZE)));
  }
  write(encoder.end());
  return written;
}
