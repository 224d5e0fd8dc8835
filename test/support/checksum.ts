import { createHash } from 'node:crypto';
import oracle from 'crc-32/crc32c.js';

/** A file's checksum as servers write it into a manifest, in hex. */
export function checksumOf(algorithm: 'CRC32C' | 'SHA256', content: Uint8Array | string): string {
  const bytes = Buffer.from(content);
  if (algorithm === 'SHA256') return createHash('sha256').update(bytes).digest('hex');
  const sum = Buffer.alloc(4);
  sum.writeInt32LE(oracle.buf(bytes));
  return sum.toString('hex');
}
