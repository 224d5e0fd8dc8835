import { constants, gunzipSync } from 'node:zlib';
import { decompressBlock } from '../../src/codec/lz4/block.js';
import { Xxh32 } from '../../src/codec/lz4/xxh32.js';
import type { SegmentName } from '../../src/wal/file-name.js';
import { SEGMENT } from './arena.js';
import type { Inode } from './simulated-disk.js';

const decoded = new WeakMap<Inode, { version: number; content: Buffer }>();

/**
 * The WAL that a segment file holds, in whatever form; of a compressed one that is cut, what is
 * there. A partial one is compressed without the zeros at its end, which its readers add again.
 */
export function storedContent(inode: Inode, { compression, partial }: SegmentName): Buffer {
  if (compression === 'none') return inode.content;
  const before = decoded.get(inode);
  if (before?.version === inode.version) return before.content;
  const held = compression === 'gzip' ? gunzip(inode.content) : lz4(inode.content);
  const padding = partial ? SEGMENT - held.length : 0;
  const content = padding > 0 ? Buffer.concat([held, Buffer.alloc(padding)]) : held;
  decoded.set(inode, { version: inode.version, content });
  return content;
}

const NOTHING = Buffer.alloc(0);

function gunzip(file: Buffer): Buffer {
  try {
    return gunzipSync(file, { finishFlush: constants.Z_SYNC_FLUSH });
  } catch {
    return NOTHING;
  }
}

/** One frame as our encoder writes it: independent blocks, content size and checksum. */
function lz4(file: Buffer): Buffer {
  const out = Buffer.alloc(SEGMENT);
  let length = 0;
  let at = 15;
  try {
    for (;;) {
      const field = file.readUInt32LE(at);
      at += 4;
      if (field === 0) break;
      const block = file.subarray(at, at + (field & 0x7fffffff));
      at += block.length;
      if (field >>> 31) length += block.copy(out, length);
      else length = decompressBlock(block, out, length);
    }
    const content = out.subarray(0, length);
    const hash = new Xxh32();
    hash.update(content);
    return hash.digest() >>> 0 === file.readUInt32LE(at) ? content : NOTHING;
  } catch {
    return NOTHING;
  }
}
