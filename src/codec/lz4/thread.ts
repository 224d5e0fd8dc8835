import { setImmediate } from 'node:timers/promises';
import { type FileSystem, nodeFileSystem } from '../../files/file-system.js';
import { inPieces } from '../pieces.js';
import { COMPRESSING_THREAD } from '../thread.js';
import { compressLz4 } from './compress.js';
import { LZ4_BLOCK_SIZE, Lz4FrameEncoder } from './frame.js';

/** Between other work in this thread: what is shipped comes piece by piece. */
export async function* compressStream(
  plain: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const encoder = new Lz4FrameEncoder();
  yield encoder.header();
  for await (const { piece } of inPieces(plain, LZ4_BLOCK_SIZE)) yield encoder.block(piece).slice();
  yield encoder.end();
}

/** Every block ends a turn of the event loop. */
export async function compressWhole(plain: Uint8Array): Promise<Uint8Array> {
  const encoder = new Lz4FrameEncoder();
  const parts: Uint8Array[] = [encoder.header(plain.length)];
  for (let at = 0; at < plain.length; at += LZ4_BLOCK_SIZE) {
    parts.push(encoder.block(plain.subarray(at, at + LZ4_BLOCK_SIZE)).slice());
    await setImmediate();
  }
  parts.push(encoder.end());
  return Buffer.concat(parts);
}

/**
 * `compressLz4` in a worker thread. Where there is none this thread does it.
 * @throws as `compressLz4`
 */
export async function compress(
  from: number,
  to: number,
  length: number,
  { fs }: { fs: FileSystem },
): Promise<void> {
  // The thread knows descriptors of the system only.
  if (fs !== nodeFileSystem || !COMPRESSING_THREAD.isPossible) {
    return compressLz4(from, to, length, fs);
  }
  await COMPRESSING_THREAD.run({ kind: 'file', from, to, length });
}
