import type { Duplex } from 'node:stream';
import zlib from 'node:zlib';
import { NotSupportedError } from '../errors.js';
import { storageError } from '../files/durable.js';
import type { FileSystem } from '../files/file-system.js';
import { readStream } from '../files/read-stream.js';
import type { Deliver, FormatResult, SourceFile } from './format.js';
import { compressThrough, STEP } from './through-stream.js';

/** Since Node.js 22.15; not in the types of the oldest supported version. */
const { createZstdCompress, createZstdDecompress } = zlib as unknown as {
  createZstdCompress?: (options: { chunkSize: number; params: Record<number, number> }) => Duplex;
  createZstdDecompress?: () => Duplex;
};
/** ZSTD_c_compressionLevel of zstd.h. */
const ZSTD_LEVEL = 100;

export async function decompress(
  { path, fs }: SourceFile,
  deliver: Deliver,
): Promise<FormatResult> {
  if (!createZstdDecompress) throw zstdMissing(path);
  const source = readStream(path, {}, fs);
  const stream = createZstdDecompress();
  source.on('error', (e) => stream.destroy(storageError('read file', path, e)));
  source.pipe(stream);
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      if (await deliver(chunk)) return { end: 'limit', trailingGarbage: false };
    }
    return { end: 'complete', trailingGarbage: false };
  } catch (e) {
    const { code, message } = e as NodeJS.ErrnoException;
    if (code === 'Z_BUF_ERROR') return { end: 'cut', trailingGarbage: false };
    if (!code?.startsWith('ZSTD_')) throw e;
    return { end: 'damaged', problem: message, trailingGarbage: false };
  } finally {
    source.destroy();
    stream.destroy();
  }
}

export async function compress(
  from: number,
  to: number,
  length: number,
  { level, fs }: { level?: number; fs: FileSystem },
): Promise<void> {
  if (!createZstdCompress) throw zstdMissing();
  const params = level === undefined ? {} : { [ZSTD_LEVEL]: level };
  const stream = createZstdCompress({ chunkSize: STEP / 2, params });
  await compressThrough(stream, from, to, length, fs);
}

function zstdMissing(path?: string): NotSupportedError {
  return new NotSupportedError(
    'zstd needs Node.js 22.15 or later',
    path === undefined ? {} : { path },
  );
}
