import { promisify } from 'node:util';
import zlib from 'node:zlib';
import type { ObjectCodec } from '../archive/store-archive-writer.js';
import type { ShipCompression } from './options.js';

const gzip = promisify(zlib.gzip);
const gunzip = promisify(zlib.gunzip);

export function objectCodec(
  compression: ShipCompression,
  _recipients: readonly string[],
): ObjectCodec {
  return {
    encode: async (plain) => {
      if (compression.method === 'none') return { bytes: plain, stages: 'none' };
      const bytes = await gzip(plain, { level: compression.level ?? 1 });
      return { bytes, stages: 'gzip' };
    },
    decode: async (bytes) => (bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzip(bytes) : bytes),
  };
}
