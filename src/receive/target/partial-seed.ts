import { join } from 'node:path';
import { compareContent, firstOtherWal, type StoredFile } from '../../archive/compare.js';
import { contentLength, feedStored, type StoredStretch } from '../../archive/good-wal.js';
import { temporaryName } from '../../archive/leftovers.js';
import type { SegmentFile } from '../../archive/listing.js';
import { decompressFile } from '../../codec/codec.js';
import { StorageError } from '../../errors.js';
import {
  createAnew,
  durableRename,
  fsyncError,
  readFully,
  storageError,
  writeFully,
} from '../../files/durable.js';
import { type FileSystem, OPEN_READ } from '../../files/file-system.js';
import { storedName } from '../../wal/file-name.js';
import type { WalVerifier } from '../../wal/verifier.js';
import { lengthWithoutZeros } from '../../wal/zeros.js';

/** Makes a verifier that stands at the segment's start. */
export type MakeVerifier = () => Promise<WalVerifier>;

interface SeedOptions {
  segmentSize: number;
  mode: number;
  sync: boolean;
  fs: FileSystem;
  /**
   * Where two files differ, the one whose records are good there is right, and the other one's WAL
   * came damaged; within a record that is unfinished in both the plain one, received last, is gone
   * on with. Absent: files that differ are refused.
   */
  verifier?: MakeVerifier;
}

/** A file whose content is to be in the plain partial. */
interface Source extends StoredFile {
  name: string;
  /** Bytes of it that count. */
  limit: number;
}

const STEP = 256 * 1024;

/**
 * Brings what is stored of a segment into its plain `.partial`, the one form in which WAL is
 * received: what compressed partials hold, and the good records of a complete file, if that is to
 * be received again. None of these is truncated or written over: what it holds may be acknowledged,
 * and stays until a file that has all of it is durable (contract, defect 1). Nor does the plain one
 * become shorter.
 *
 * @param files all files of that segment number, of any timeline
 * @throws StorageError if two files contradict each other
 */
export async function seedPartial(
  directory: string,
  base: string,
  files: readonly SegmentFile[],
  options: SeedOptions,
): Promise<void> {
  const { segmentSize, verifier, fs } = options;
  for (const { name, compression, partial } of files) {
    const isOfBase = name === storedName(base, compression, partial);
    const path = join(directory, name);
    const file = { path, name, compression };
    if (partial && compression !== 'none' && isOfBase) {
      await merge(directory, base, { ...file, limit: segmentSize }, options);
    } else if (!partial && isOfBase && verifier) {
      // The record that goes on in the next segment is not known to be bad.
      const { sound: limit } = await checkWal([{ ...file, limit: segmentSize }], verifier, fs);
      if (limit > 0) await merge(directory, base, { ...file, limit }, options);
    }
  }
}

async function merge(
  directory: string,
  base: string,
  source: Source,
  options: SeedOptions,
): Promise<void> {
  const { segmentSize, fs, verifier } = options;
  const path = join(directory, `${base}.partial`);
  const plain = { path, compression: 'none' as const, limit: segmentSize };
  const { length, first, last = 0 } = await compareContent(path, source, source.limit, fs);
  if (first === undefined) return;
  const stored = await contentLength(path, fs);
  if (first >= stored) return place(directory, base, source, 0, options);
  // Two that differ, perhaps only in what is part of no WAL.
  const contradiction = new StorageError(
    `"${source.name}" and "${base}.partial" hold different WAL`,
    { path, hint: 'Move the one that is wrong out of the directory.' },
  );
  if (!verifier) throw contradiction;
  const shared = { ...source, limit: Math.min(stored, length) };
  const other = await firstOtherWal(path, shared, await verifier(), fs);
  if (other === undefined) {
    if (length > stored) await place(directory, base, source, 0, options);
    return;
  }
  const { good } = await checkWal([source], verifier, fs);
  if (good <= other) return;
  if ((await checkWal([plain], verifier, fs)).good > other) throw contradiction;
  // What the plain one has behind may be acknowledged too: it stays where it goes on from there.
  const head = { ...source, limit: length };
  const both = async () => (await checkWal([head, { ...plain, from: length }], verifier, fs)).good;
  const goesOn = stored > length && (last < good || (await both()) > good);
  await place(directory, base, head, goesOn ? stored : 0, options);
}

/**
 * Of files read one behind the other: bytes up to the end of the last good record, and bytes that
 * are not known to be bad.
 */
export async function checkWal(
  files: readonly StoredStretch[],
  makeVerifier: MakeVerifier,
  fs: FileSystem,
): Promise<{ good: number; sound: number }> {
  const verifier = await makeVerifier();
  const begin = verifier.position;
  await feedStored(verifier, files, fs);
  const length = (end: bigint) => Math.max(0, Number(end - begin));
  return { good: length(verifier.validEnd), sound: length(verifier.verifiedEnd) };
}

/** Puts a file's content in the plain partial's place, with what that one has from there to `keep`. */
async function place(
  directory: string,
  base: string,
  { path, compression, limit }: Source,
  keep: number,
  { segmentSize, mode, sync, fs }: SeedOptions,
): Promise<void> {
  const target = join(directory, `${base}.partial`);
  const temporary = join(directory, temporaryName(`${base}.seed`));
  const fd = await createAnew(temporary, mode, fs).catch((e) => {
    throw storageError('create file', temporary, e);
  });
  try {
    let at = 0;
    const store = async (chunk: Uint8Array): Promise<void> => {
      // What holds nothing yet needs no space.
      if (lengthWithoutZeros(chunk) > 0) await writeFully(fs, fd, chunk, at);
      at += chunk.length;
    };
    await decompressFile(path, compression, store, { limit, fs });
    if (keep > at) await copyRange(target, fd, at, keep, fs);
    fs.ftruncateSync(fd, segmentSize);
    if (sync) {
      await fs.fsync(fd).catch((e) => {
        throw fsyncError(temporary, e);
      });
    }
  } catch (e) {
    await fs.unlink(temporary).catch(() => {});
    throw storageError('write file', temporary, e);
  } finally {
    await fs.close(fd);
  }
  await durableRename(temporary, target, fs);
}

async function copyRange(
  from: string,
  to: number,
  begin: number,
  end: number,
  fs: FileSystem,
): Promise<void> {
  const fd = await fs.open(from, OPEN_READ, 0);
  try {
    const buffer = Buffer.alloc(STEP);
    for (let at = begin; at < end; at += STEP) {
      const piece = buffer.subarray(0, Math.min(STEP, end - at));
      await readFully(fs, fd, piece, at);
      await writeFully(fs, to, piece, at);
    }
  } finally {
    await fs.close(fd);
  }
}
