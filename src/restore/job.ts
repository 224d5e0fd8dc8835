import type { BackupReader, Piece } from '../archive/backups/reader.js';
import { fsyncFile, storageError, writeFully } from '../files/durable.js';
import { CREATE_NEW, OPEN_EXISTING } from '../files/file-system.js';
import {
  type CombiningContext,
  type PlacedCombined,
  sameCombined,
  writeCombined,
} from './combine.js';
import { type ExpectedFile, type SameFile, sameIn } from './delta/compare.js';
import type { Owner, RestoreFileSystem } from './file-system.js';
import type { FilePart } from './layout.js';

/** Work that can be done in any order with that of others of its kind. Can be sent to a thread. */
export type RestoreJob =
  | {
      kind: 'write';
      piece: Piece;
      /** Of each of its frames. */
      parts: FilePart[][];
    }
  | { kind: 'sync'; paths: string[] }
  | { kind: 'compare'; files: ExpectedFile[] }
  | { kind: 'combine'; files: PlacedCombined[] }
  | { kind: 'compare-combined'; files: PlacedCombined[] };

/** What a job tells. @param same what of the files is as it is to be */
export type JobProgress = (done: number, same?: SameFile[]) => void;

export interface JobContext extends CombiningContext {
  reader: BackupReader;
  fs: RestoreFileSystem;
  owner: Owner | undefined;
  signal?: AbortSignal | undefined;
}

/** Bytes of a file whose writing takes no longer than asking another thread for it. */
const SMALL = 256 * 1024;

/** Calls on files that are under way at a time. */
const AT_A_TIME = 8;

/**
 * @param progress bytes of tar that were written, files that are durable, or bytes of files that
 *   were compared
 * @throws CorruptObjectError, StorageError, StoreUncertainError, the signal's reason
 */
export async function runJob(
  job: RestoreJob,
  context: JobContext,
  progress: JobProgress,
): Promise<void> {
  if (job.kind === 'compare') {
    const same: SameFile[] = [];
    await severalAtOnce(job.files, async (file) => {
      const found = await sameIn(file, context.fs);
      if (found) same.push(found);
      context.signal?.throwIfAborted();
    });
    const bytes = job.files.reduce((sum, { size }) => sum + size, 0);
    progress(bytes, same);
    return;
  }
  if (job.kind === 'compare-combined') {
    const same = await sameCombined(job.files, context);
    progress(
      job.files.reduce((sum, { size }) => sum + size, 0),
      same,
    );
    return;
  }
  if (job.kind === 'sync') {
    await severalAtOnce(job.paths, (path) => fsyncFile(path, context.fs));
    progress(job.paths.length);
    return;
  }
  if (job.kind === 'combine') {
    await writeCombined(job.files, context, progress);
    return;
  }
  let i = 0;
  for await (const { frame, content } of context.reader.read(job.piece, context.signal)) {
    const parts = job.parts[i++] ?? [];
    await severalAtOnce(parts, (part) => writePart(part, content, context));
    context.signal?.throwIfAborted();
    progress(frame.length);
  }
}

async function writePart(
  { path, mode, from, length, at, whole }: FilePart,
  content: Uint8Array,
  { fs, owner }: JobContext,
): Promise<void> {
  if (whole && length <= SMALL && fs.makeSmallFile) {
    try {
      fs.makeSmallFile(path, mode, content.subarray(from, from + length), owner);
    } catch (e) {
      throw storageError('write file', path, e);
    }
    return;
  }
  const fd = await (whole
    ? fs.open(path, CREATE_NEW, mode)
    : fs.open(path, OPEN_EXISTING, 0)
  ).catch((e) => {
    throw storageError('create file', path, e);
  });
  try {
    if (whole && owner) await fs.fchown(fd, owner);
    if (length > 0) await writeFully(fs, fd, content.subarray(from, from + length), at);
  } catch (e) {
    throw storageError('write file', path, e);
  } finally {
    await fs.close(fd);
  }
}

/** Makes a file of which several frames have a part. @throws StorageError */
export async function makeFile(
  { path, mode }: { path: string; mode: number },
  { fs, owner }: Pick<JobContext, 'fs' | 'owner'>,
): Promise<void> {
  try {
    const fd = await fs.open(path, CREATE_NEW, mode);
    try {
      if (owner) await fs.fchown(fd, owner);
    } finally {
      await fs.close(fd);
    }
  } catch (e) {
    throw storageError('create file', path, e);
  }
}

/** The first failure ends it, after what is under way has ended. */
export async function severalAtOnce<T>(
  items: readonly T[],
  act: (item: T) => Promise<void>,
): Promise<void> {
  const left = items.values();
  let failed = false;
  const work = async (): Promise<void> => {
    for (const item of left) {
      if (failed) return;
      try {
        await act(item);
      } catch (e) {
        failed = true;
        throw e;
      }
    }
  };
  const all = await Promise.allSettled(
    Array.from({ length: Math.min(AT_A_TIME, items.length) }, work),
  );
  const bad = all.find((one) => one.status === 'rejected');
  if (bad) throw bad.reason;
}
