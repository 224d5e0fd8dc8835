import { promisify } from 'node:util';
import zlib from 'node:zlib';
import type { ObjectCodec } from '../archive/store-archive-writer.js';
import { NotSupportedError } from '../errors.js';
import type { ShipCompression } from './options.js';

const CHUNK = 256 * 1024;
const gunzip = promisify(zlib.gunzip);

/** @throws NotSupportedError for what would have to be stored less safely than was asked for */
export function objectCodec(
  compression: ShipCompression,
  recipients: readonly string[],
): ObjectCodec {
  if (recipients.length > 0) throw new NotSupportedError('encryption is not supported yet');
  if (compression.method === 'lz4') throw new NotSupportedError('lz4 is not supported yet');
  return {
    encode: async (plain) => {
      if (compression.method === 'none') return { pieces: [plain], stages: 'none' };
      const level = compression.method === 'gzip' ? (compression.level ?? 1) : 1;
      const stream = zlib.createGzip({ level, chunkSize: CHUNK });
      stream.end(plain);
      const pieces: Uint8Array[] = [];
      for await (const piece of stream) pieces.push(piece);
      return { pieces, stages: 'gzip' };
    },
    decode: async (bytes) => (bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzip(bytes) : bytes),
  };
}
