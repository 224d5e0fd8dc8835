import type { Duplex } from 'node:stream';
import { promisify } from 'node:util';
import zlib, { constants, type ZlibOptions } from 'node:zlib';
import CRC32 from 'crc-32';
import { storageError } from '../files/durable.js';
import type { FileSystem, GzipCodec } from '../files/file-system.js';
import { readStream } from '../files/read-stream.js';
import type { ByteSource, Compressed, Deliver, FormatResult } from './format.js';
import { compressThrough, STEP, transformed } from './through-stream.js';

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
/** Output bytes of one turn of the thread pool where nothing else is waited for. */
const LARGE_CHUNK = 1024 * 1024;

/**
 * Decompresses a gzip file (RFC 1952), with several members as one text. The members are told
 * apart here and not by node:zlib, which drops what it had decompressed when garbage follows: such
 * files are what pg_receivewal leaves when it goes on with a compressed partial.
 */
export async function decompress(
  { reader, file }: Compressed,
  deliver: Deliver,
): Promise<FormatResult> {
  for (let members = 0; ; members++) {
    if (members > 0 && (await reader.atEnd())) return { end: 'complete', trailingGarbage: false };
    const header = await readHeader(reader);
    if (header !== 'ok') {
      if (members > 0) return { end: 'complete', trailingGarbage: true };
      if (header === 'cut') return { end: 'cut', trailingGarbage: false };
      return { end: 'damaged', problem: 'no gzip header', trailingGarbage: false };
    }
    const result = await inflateMember(reader, file, deliver);
    if (result.end !== 'complete') return result;
  }
}

async function readHeader(reader: ByteSource): Promise<'ok' | 'cut' | 'none'> {
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
  reader: ByteSource,
  file: Compressed['file'],
  deliver: Deliver,
): Promise<FormatResult> {
  let crc = 0;
  let total = 0;
  const take: Deliver = (chunk) => {
    crc = crc32 ? crc32(chunk, crc >>> 0) | 0 : CRC32.buf(chunk, crc);
    total += chunk.length;
    return deliver(chunk);
  };
  const step = file
    ? await inflateFile(file, reader, () => total, take)
    : await inflateStream(reader, take);
  if (step.stopped) return { end: 'limit', trailingGarbage: false };
  if (step.problem !== undefined) {
    return { end: 'damaged', problem: step.problem, trailingGarbage: false };
  }
  const trailer = await reader.read(8);
  if (!trailer) return { end: 'cut', trailingGarbage: false };
  const view = new DataView(trailer.buffer, trailer.byteOffset, 8);
  if (view.getInt32(0, true) !== crc || view.getUint32(4, true) !== total >>> 0) {
    return { end: 'damaged', problem: 'checksum of the gzip content', trailingGarbage: false };
  }
  return { end: 'complete', trailingGarbage: false };
}

/** The reader stands behind what was inflated, unless something is wrong or enough was taken. */
interface Inflated {
  stopped: boolean;
  problem?: string;
}

async function inflateFile(
  { path, fs }: NonNullable<Compressed['file']>,
  reader: ByteSource,
  delivered: () => number,
  take: Deliver,
): Promise<Inflated> {
  const start = reader.position;
  const step = await inflate(path, start, CHUNK, 0, take, fs);
  if (step.problem === undefined) {
    if (!step.stopped) await reader.skip(step.consumed);
    return step;
  }
  // Once more in tiny steps, for the bytes directly before the damage.
  const again = await inflate(path, start, SMALL_CHUNK, delivered(), take, fs);
  return { ...again, problem: again.problem ?? step.problem };
}

/** Bytes come once only: of what an erroneous step produced nothing is delivered. */
async function inflateStream(reader: ByteSource, take: Deliver): Promise<Inflated> {
  const inflater = zlib.createInflateRaw({
    chunkSize: CHUNK,
    finishFlush: constants.Z_SYNC_FLUSH,
  });
  let last: Uint8Array = new Uint8Array(0);
  let fed = 0;
  const feed = async (): Promise<void> => {
    for (;;) {
      last = await reader.readUpTo(INPUT_CHUNK);
      if (last.length === 0) break;
      fed += last.length;
      await new Promise((resolve) => inflater.write(last, resolve));
      // The member ended in this chunk: nothing more is read.
      if (inflater.destroyed || inflater.bytesWritten < fed) return;
    }
    inflater.end();
  };
  feed().catch((e) => inflater.destroy(e));
  try {
    for await (const chunk of inflater as AsyncIterable<Buffer>) {
      if (await take(chunk)) return { stopped: true };
    }
    const behind = fed - inflater.bytesWritten;
    if (behind > 0) reader.unread(last.subarray(last.length - behind));
    return { stopped: false };
  } catch (e) {
    const { code, message } = e as NodeJS.ErrnoException;
    if (!code?.startsWith('Z_')) throw e;
    return { stopped: false, problem: message };
  } finally {
    inflater.destroy();
  }
}

/** Inflates what begins at `start`, without the first `skip` bytes of output. */
async function inflate(
  path: string,
  start: number,
  chunkSize: number,
  skip: number,
  take: Deliver,
  fs: FileSystem,
): Promise<Inflated & { consumed: number }> {
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

export async function decompressAtOnce(
  bytes: Uint8Array,
  append: (chunk: Uint8Array) => void,
  most: number,
): Promise<'complete' | 'uncertain'> {
  const stream = zlib.createGunzip({ chunkSize: LARGE_CHUNK });
  let taken = Promise.resolve();
  try {
    return await new Promise((resolve, reject) => {
      let delivered = 0;
      stream.on('data', (chunk: Buffer) => {
        delivered += chunk.length;
        // Not before the next step is under way.
        if (delivered <= most) taken = taken.then(() => append(chunk));
        else resolve('uncertain');
        taken.catch(reject);
      });
      stream.on('end', () => taken.then(() => resolve('complete'), reject));
      stream.on('error', (e: NodeJS.ErrnoException) => {
        if (e.code?.startsWith('Z_')) resolve('uncertain');
        else reject(e);
      });
      stream.end(bytes);
    });
  } finally {
    stream.destroy();
    // Nothing of this may be appended to what the careful way begins.
    await taken.catch(() => {});
  }
}

export async function compress(
  from: number,
  to: number,
  length: number,
  { level, fs }: { level?: number; fs: FileSystem },
): Promise<void> {
  await compressThrough(compressor(level, fs.zlib), from, to, length, fs);
}

export function compressStream(
  plain: AsyncIterable<Uint8Array>,
  { level }: { level?: number },
): AsyncGenerator<Uint8Array> {
  return transformed(compressor(level), plain);
}

export function compressWhole(
  plain: Uint8Array,
  { level }: { level?: number },
): Promise<Uint8Array> {
  // In one piece, mostly: several would be copied into another one, and all be garbage for a while.
  const chunkSize = Math.max(LARGE_CHUNK, plain.length >> 1);
  return inPool(plain, { ...settings(level), chunkSize });
}

const inPool = promisify<Uint8Array, ZlibOptions, Uint8Array>(zlib.gzip);

function compressor(level: number | undefined, codec: GzipCodec = zlib): Duplex {
  return codec.createGzip({ chunkSize: STEP / 4, ...settings(level) });
}

function settings(level: number | undefined): ZlibOptions {
  // The larger hash table costs 128 kB and takes a sixth off the time. Level 1 is for speed: a
  // window that stays in the CPU's first cache takes another eighth off, also of the size where
  // records are small; among full-page images it adds a twentieth to the size.
  const options = { memLevel: 9, windowBits: level === 1 ? 14 : 15 };
  return level === undefined ? options : { ...options, level };
}
