import zlib from 'node:zlib';
import { UsageError } from '../errors.js';
import { COMPRESSIONS, type Compression } from '../wal/file-name.js';
import type { Compressor, Decompressor } from './format.js';
import * as plain from './plain.js';

/** A compression: all that is known of it without loading what reads and writes it. */
export interface Codec {
  /** What all content begins with. */
  readonly magic: readonly number[];
  /**
   * What `level` may be, as the texts of `--compress` have it (common/compression.c, zlib.h,
   * lz4hc.h, zstd.h). The default lies outside where it is no level of its own.
   */
  readonly levels: {
    readonly min: number;
    readonly max: number;
    readonly byDefault: number;
    /** They are taken and change nothing: there is one way to compress. */
    readonly ignored?: true;
  };
  /** A receiver stores segments so: what pg_receivewal has. */
  readonly received: boolean;
  /** Bytes of content, where that is told without decompressing, from a file's size and last word. */
  readonly contentSize?: (size: number, lastWord: number) => number;
  readonly reads: () => Promise<Decompressor>;
  /** Absent of what is no compression. */
  readonly writes?: () => Promise<Compressor>;
  /** What compresses it from memory to memory where Node.js has no thread pool that does. */
  readonly inThread?: () => Promise<{ compressInto: CompressInto }>;
}

/**
 * What `compressStream` makes of `plain`, in `into`; its length.
 * @param level absent for the codec's default
 * @throws RangeError if it does not fit
 */
export type CompressInto = (
  plain: Uint8Array,
  into: Uint8Array,
  level?: number,
) => number | Promise<number>;

/**
 * The compressions: what is to be known about one stands here, its suffix in wal/file-name.ts, and
 * how it is read and written in its own file. Those are loaded when they are needed first: a command
 * that PostgreSQL starts for each segment must not wait for what it does not use.
 */
const TABLE = {
  none: {
    magic: [],
    levels: { min: 0, max: 0, byDefault: 0 },
    received: true,
    contentSize: (size) => size,
    reads: async () => plain,
  },
  gzip: {
    magic: [0x1f, 0x8b],
    levels: { min: 1, max: 9, byDefault: -1 },
    received: true,
    // ISIZE of RFC 1952.
    contentSize: (_size, lastWord) => lastWord,
    reads: () => import('./gzip.js'),
    writes: () => import('./gzip.js'),
  },
  lz4: {
    magic: [0x04, 0x22, 0x4d, 0x18],
    levels: { min: 1, max: 12, byDefault: 0, ignored: true },
    received: true,
    reads: () => import('./lz4/frame.js'),
    writes: () => import('./lz4/thread.js'),
    inThread: () => import('./lz4/compress.js'),
  },
  zstd: {
    magic: [0x28, 0xb5, 0x2f, 0xfd],
    levels: { min: -131072, max: 22, byDefault: 3 },
    received: false,
    reads: () => import('./zstd/zstd.js'),
    writes: () => import('./zstd/zstd.js'),
    ...('createZstdCompress' in zlib ? {} : { inThread: () => import('./zstd/zstd.js') }),
  },
} as const satisfies Readonly<Record<Compression, Codec>>;

export const CODECS: Readonly<Record<Compression, Codec>> = TABLE;

/** What compresses. */
export type CompressionMethod = {
  [C in Compression]: (typeof TABLE)[C] extends { writes: unknown } ? C : never;
}[Compression];

/** What a receiver can store segments as. */
export type ReceivedCompression = {
  [C in Compression]: (typeof TABLE)[C]['received'] extends true ? C : never;
}[Compression];

export const RECEIVED = COMPRESSIONS.filter(isReceived);

/** Of them, those that compress. */
export const RECEIVED_METHODS = RECEIVED.filter((name) => name !== 'none');

export function isReceived(compression: Compression): compression is ReceivedCompression {
  return CODECS[compression].received;
}

/** True if `level` is the default of that compression or within its bounds. */
export function isLevelOf(compression: Compression, level: number): boolean {
  const { min, max, byDefault } = CODECS[compression].levels;
  return level === byDefault || (level >= min && level <= max);
}

/** @param of what the level was given to, for the error. @throws UsageError */
export function requireLevel(of: string, method: CompressionMethod, level: number): void {
  if (Number.isInteger(level) && isLevelOf(method, level)) return;
  const { min, max } = CODECS[method].levels;
  throw new UsageError(`${of}: the level of ${method} must be from ${min} to ${max}`, {
    actual: `${level}`,
  });
}

const readers = new Map<Compression, Decompressor>();
const writers = new Map<CompressionMethod, Compressor>();

export async function decompressorOf(compression: Compression): Promise<Decompressor> {
  const known = readers.get(compression) ?? (await CODECS[compression].reads());
  readers.set(compression, known);
  return known;
}

export async function compressorOf(method: CompressionMethod): Promise<Compressor> {
  const known = writers.get(method) ?? (await TABLE[method].writes());
  writers.set(method, known);
  return known;
}

/**
 * Loads what is loaded lazily otherwise. Who runs for months does so at its start: its files may
 * be replaced by those of another version meanwhile.
 */
export async function loadCodecs(): Promise<void> {
  const methods = Object.keys(TABLE).filter((name) => 'writes' in CODECS[name as Compression]);
  await Promise.all([
    ...COMPRESSIONS.map(decompressorOf),
    ...methods.map((name) => compressorOf(name as CompressionMethod)),
  ]);
}

/**
 * What compresses well and keeps up with WAL as it comes: zstd where Node.js has it; in WebAssembly
 * it would be the bottleneck, which gzip's fastest is not.
 */
export function quickCompression(): { method: CompressionMethod; level?: number } {
  return 'createZstdCompress' in zlib ? { method: 'zstd' } : { method: 'gzip', level: 1 };
}
