import fs from 'node:fs';
import { promisify } from 'node:util';
import { LZ4_BLOCK_SIZE, Lz4FrameEncoder } from './lz4-frame.js';

const read = promisify(fs.read);
const write = promisify(fs.write);

/**
 * Writes the first `length` bytes of the file `from` as one LZ4 frame to `to` (both file
 * descriptors). Every block ends a turn of the event loop.
 * @throws the errno error of read or write; ERANGE if the file is shorter
 */
export async function compressLz4(from: number, to: number, length: number): Promise<void> {
  const encoder = new Lz4FrameEncoder();
  const input = new Uint8Array(Math.min(LZ4_BLOCK_SIZE, length));
  await writeAll(to, encoder.header(length));
  for (let at = 0; at < length; ) {
    const size = Math.min(input.length, length - at);
    for (let have = 0; have < size; ) {
      const { bytesRead } = await read(from, input, have, size - have, at + have);
      if (bytesRead === 0) {
        throw Object.assign(new Error(`the file ends before ${length} bytes`), { code: 'ERANGE' });
      }
      have += bytesRead;
    }
    await writeAll(to, encoder.block(input.subarray(0, size)));
    at += size;
  }
  await writeAll(to, encoder.end());
}

async function writeAll(fd: number, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await write(fd, bytes, done, bytes.length - done, null)).bytesWritten;
  }
}
