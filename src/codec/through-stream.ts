import type { Duplex } from 'node:stream';
import { StorageError } from '../errors.js';
import { writeFully } from '../files/durable.js';
import type { FileSystem } from '../files/file-system.js';
import { SpareBuffers } from '../files/spare-buffers.js';

/** Bytes into one step of a compressor: with node's own the turns of the thread pool took a third of the time. */
export const STEP = 256 * 1024;

/** Of conversions: each has two, and three at most go on at the same time. */
const STEP_BUFFERS = new SpareBuffers(STEP, 6);

/** What a stream makes of bytes. @throws what `bytes` throws, the stream's error */
export async function* transformed(
  stream: Duplex,
  bytes: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  // A stream that failed calls nobody back.
  const closed = new Promise((resolve) => stream.once('close', resolve));
  const feed = async (): Promise<void> => {
    for await (const chunk of bytes) {
      await Promise.race([new Promise((resolve) => stream.write(chunk, resolve)), closed]);
      if (stream.destroyed) return;
    }
    stream.end();
  };
  const fed = feed().catch((e) => {
    stream.destroy(e);
  });
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) yield chunk;
  } finally {
    stream.destroy();
    // Until then it may read from a file that is to be closed.
    await fed;
  }
}

/** Compresses the first `length` bytes of one file to the end of another. */
export async function compressThrough(
  stream: Duplex,
  from: number,
  to: number,
  length: number,
  fs: FileSystem,
): Promise<void> {
  // A stream that failed calls nobody back.
  const closed = new Promise<void>((resolve) => stream.once('close', resolve));
  const store = async (): Promise<void> => {
    let at = 0;
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      await writeFully(fs, to, chunk, at);
      at += chunk.length;
    }
  };
  const feed = async (): Promise<void> => {
    // One is compressed while the other is filled.
    const buffers = [STEP_BUFFERS.take(), STEP_BUFFERS.take()] as const;
    let taken = Promise.resolve();
    for (let at = 0, turn = 0; at < length; turn++) {
      const buffer = buffers[turn % 2] as Buffer;
      const bytesRead = await fs.read(from, buffer, Math.min(STEP, length - at), at);
      if (bytesRead === 0) throw new StorageError('the file became shorter while it was read');
      at += bytesRead;
      await Promise.race([taken, closed]);
      if (stream.destroyed) return;
      taken = new Promise((resolve, reject) => {
        stream.write(buffer.subarray(0, bytesRead), (e) => (e ? reject(e) : resolve()));
      });
      // Waited for with the next one; where reading fails, the stream is done for anyway.
      taken.catch(() => {});
    }
    await Promise.race([taken, closed]);
    if (stream.destroyed) return;
    for (const buffer of buffers) STEP_BUFFERS.giveBack(buffer);
    stream.end();
  };
  const stored = store();
  const fed = feed().catch((e) => {
    stream.destroy(e);
    throw e;
  });
  try {
    await Promise.all([stored, fed]);
  } finally {
    stream.destroy();
    // Until then they may use files that are to be closed.
    await Promise.allSettled([stored, fed]);
  }
}
