import zlib, { constants } from 'node:zlib';
import CRC32 from 'crc-32';
import { storageError } from '../files/durable.js';
import type { FileSystem } from '../files/file-system.js';
import { readStream } from '../files/read-stream.js';
import type { ByteReader } from './byte-reader.js';
import type { Deliver, FormatResult } from './lz4/frame.js';

const FHCRC = 2;
const FEXTRA = 4;
const FNAME = 8;
const FCOMMENT = 16;

/** Since Node.js 20.15; not in the types of the oldest supported version. */
const { crc32 } = zlib as unknown as { crc32?: (bytes: Uint8Array, crc: number) => number };

/** Output bytes of one step of the inflater. What an erroneous step produced is lost to us. */
const CHUNK = 256 * 1024;
/** Input bytes of one step: as many as fill such an output where WAL compresses little. */
const INPUT_CHUNK = 128 * 1024;
const SMALL_CHUNK = constants.Z_MIN_CHUNK;

/**
 * Decompresses a gzip file (RFC 1952), with several members as one text. The members are told
 * apart here and not by node:zlib, which drops what it had decompressed when garbage follows: such
 * files are what pg_receivewal leaves when it goes on with a compressed partial.
 */
export async function decompressGzip(
  path: string,
  reader: ByteReader,
  deliver: Deliver,
  fs: FileSystem,
): Promise<FormatResult> {
  for (let members = 0; ; members++) {
    if (members > 0 && (await reader.atEnd())) return { end: 'complete', trailingGarbage: false };
    const header = await readHeader(reader);
    if (header !== 'ok') {
      if (members > 0) return { end: 'complete', trailingGarbage: true };
      if (header === 'cut') return { end: 'cut', trailingGarbage: false };
      return { end: 'damaged', problem: 'no gzip header', trailingGarbage: false };
    }
    const result = await inflateMember(path, reader, deliver, fs);
    if (result.end !== 'complete') return result;
  }
}

async function readHeader(reader: ByteReader): Promise<'ok' | 'cut' | 'none'> {
  const start = (await reader.read(10))?.slice();
  if (!start) return 'cut';
  if (start[0] !== 0x1f || start[1] !== 0x8b || start[2] !== 8) return 'none';
  const flags = start[3] as number;
  if (flags & FEXTRA) {
    const length = await reader.read(2);
    if (!length) return 'cut';
    const size = (length[0] as number) | ((length[1] as number) << 8);
    if (!(await reader.read(size))) return 'cut';
  }
  for (const field of [FNAME, FCOMMENT]) {
    if ((flags & field) === 0) continue;
    let byte: Uint8Array | undefined;
    do {
      byte = await reader.read(1);
      if (!byte) return 'cut';
    } while (byte[0] !== 0);
  }
  if (flags & FHCRC && !(await reader.read(2))) return 'cut';
  return 'ok';
}

async function inflateMember(
  path: string,
  reader: ByteReader,
  deliver: Deliver,
  fs: FileSystem,
): Promise<FormatResult> {
  const start = reader.position;
  let crc = 0;
  let total = 0;
  const take: Deliver = (chunk) => {
    crc = crc32 ? crc32(chunk, crc >>> 0) | 0 : CRC32.buf(chunk, crc);
    total += chunk.length;
    return deliver(chunk);
  };
  let step = await inflate(path, start, CHUNK, 0, take, fs);
  if (step.problem !== undefined) {
    // Once more in tiny steps, for the bytes directly before the damage.
    const again = await inflate(path, start, SMALL_CHUNK, total, take, fs);
    step = { ...again, problem: again.problem ?? step.problem };
  }
  if (step.stopped) return { end: 'limit', trailingGarbage: false };
  if (step.problem !== undefined) {
    return { end: 'damaged', problem: step.problem, trailingGarbage: false };
  }
  reader.seek(start + step.consumed);
  const trailer = await reader.read(8);
  if (!trailer) return { end: 'cut', trailingGarbage: false };
  const view = new DataView(trailer.buffer, trailer.byteOffset, 8);
  if (view.getInt32(0, true) !== crc || view.getUint32(4, true) !== total >>> 0) {
    return { end: 'damaged', problem: 'checksum of the gzip content', trailingGarbage: false };
  }
  return { end: 'complete', trailingGarbage: false };
}

/** Inflates what begins at `start`, without the first `skip` bytes of output. */
async function inflate(
  path: string,
  start: number,
  chunkSize: number,
  skip: number,
  take: Deliver,
  fs: FileSystem,
): Promise<{ consumed: number; stopped: boolean; problem?: string }> {
  const source = readStream(path, { start, highWaterMark: INPUT_CHUNK }, fs);
  const inflater = (fs.zlib ?? zlib).createInflateRaw({
    chunkSize,
    finishFlush: constants.Z_SYNC_FLUSH,
  });
  source.on('error', (e) => inflater.destroy(storageError('read file', path, e)));
  source.pipe(inflater);
  let before = skip;
  try {
    for await (const chunk of inflater as AsyncIterable<Buffer>) {
      const wanted = chunk.subarray(Math.min(before, chunk.length));
      before -= chunk.length - wanted.length;
      if (wanted.length > 0 && (await take(wanted))) return { consumed: 0, stopped: true };
    }
    return { consumed: inflater.bytesWritten, stopped: false };
  } catch (e) {
    const { code, message } = e as NodeJS.ErrnoException;
    if (!code?.startsWith('Z_')) throw e;
    return { consumed: 0, stopped: false, problem: message };
  } finally {
    source.destroy();
    inflater.destroy();
  }
}
