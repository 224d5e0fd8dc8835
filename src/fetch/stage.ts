import fs from 'node:fs';
import { join } from 'node:path';
import { createGunzip } from 'node:zlib';
import { ArchiveAccessError, accessError, onArchive, VanishedError } from '../archive/access.js';
import { COMPRESSIONS, storedNames } from '../archive/stored-name.js';
import { CorruptWalError } from '../errors.js';
import { type FileSystem, nodeFileSystem } from '../files/file-system.js';
import { type Compression, MAX_SEGMENT_SIZE } from '../wal/file-name.js';
import { TargetFile } from './target.js';

/** Bytes a read. */
const READ_SIZE = 1024 * 1024;
/** Output bytes of one turn of the thread pool, which waits for this thread between two. */
const GUNZIP_STEP = 1024 * 1024;
/** Bytes behind which the disk begins to write them, while more are being decompressed. */
const FLUSH_STEP = 4 * 1024 * 1024;
/** Bytes, compressed or not, up to which gzip is done quickly. */
const ONE_STEP = 64 * 1024 * 1024;

/** A segment file that was found, in the archive or beside the target. */
export interface Source {
  path: string;
  compression: Compression;
  /** Bytes on disk. */
  size: number;
}

/** The files of a segment that are there now, best first. @throws ArchiveAccessError */
export function findSources(directory: string, base: string, partial: boolean): Source[] {
  return storedNames(base, partial).flatMap((name, i) => {
    const path = join(directory, name);
    const stat = onArchive('stat file', path, () => fs.statSync(path, { throwIfNoEntry: false }));
    return stat?.isFile() ? [{ path, compression: COMPRESSIONS[i]!, size: stat.size }] : [];
  });
}

/**
 * Refuses to take a name for absent that is there but is no file: a link to a disk that is not
 * mounted, a fifo. "Not there" would end recovery. @throws ArchiveAccessError
 */
export function refuseIrregular(directory: string, base: string, partial: boolean): void {
  for (const name of storedNames(base, partial)) {
    const path = join(directory, name);
    const stat = onArchive('stat file', path, () => fs.lstatSync(path, { throwIfNoEntry: false }));
    if (!stat || stat.isFile()) continue;
    throw new ArchiveAccessError(`"${path}" is there, but no file that could be read`, {
      path,
      hint: 'See what it is: a link must lead to a file, on a disk that is mounted.',
    });
  }
}

/** A segment's content on its way to the target's side, unchecked. */
export class Staging {
  readonly file: TargetFile;
  /**
   * Resolves when all is there.
   * @throws CorruptWalError if it cannot be decompressed or is larger than any segment
   * @throws ArchiveAccessError, VanishedError, NotSupportedError, TargetError, DiskFullError
   */
  readonly done: Promise<void>;
  /** What was read of it before `done` may have been written anew. */
  restarted = false;
  #filled = 0;
  #over = false;
  #wake: (() => void)[] = [];

  /** @param partial it may be growing, and may be cut where its writer ended */
  constructor(source: Source, target: string, partial: boolean) {
    this.file = TargetFile.create(target);
    this.done = this.#fill(source, partial).finally(() => {
      this.#over = true;
      this.#tell();
    });
    // Who reads along hears of it later.
    this.done.catch(() => {});
  }

  /**
   * Resolves when there are more than `bytes` from the start on, or will be no more; gives how
   * many there are.
   */
  async beyond(bytes: number): Promise<number> {
    while (this.#filled <= bytes && !this.#over) {
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    return this.#filled;
  }

  async #fill(source: Source, partial: boolean): Promise<void> {
    const { file } = this;
    if (source.compression !== 'none') await this.#decompress(source, partial);
    else if (partial) copyBackwards(source.path, file);
    else {
      requirePlausible(source.path, source.size);
      await file.copy(source.path);
    }
    this.#filled = file.size;
  }

  /** Behind what is there. */
  #append(bytes: Uint8Array): void {
    this.file.write(bytes, this.#filled);
    const before = this.#filled;
    this.#filled += bytes.length;
    if (Math.floor(before / FLUSH_STEP) < Math.floor(this.#filled / FLUSH_STEP)) this.file.flush();
    this.#tell();
  }

  #tell(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  async #decompress(source: Source, partial: boolean): Promise<void> {
    const { path, compression } = source;
    let failure: unknown;
    const append = (bytes: Uint8Array): void => {
      try {
        this.#append(bytes);
      } catch (e) {
        failure = e;
        throw e;
      }
    };
    if (compression !== 'gzip' || partial || !(await gunzipQuickly(source, append))) {
      this.restarted = this.#filled > 0;
      this.#filled = 0;
      const result = await decompressCarefully(source, append).catch((e) => {
        // The target's disk is full, say: nothing that the archive is to blame for.
        throw failure ?? accessError('read file', path, e);
      });
      if (this.restarted) this.file.resize(this.#filled);
      requirePlausible(path, this.#filled);
      if (result.end !== 'complete' && !partial) {
        const problem = result.problem ?? 'it ends before its end';
        throw new CorruptWalError(`could not decompress "${path}": ${problem}`, { path });
      }
    }
    this.file.flush();
  }
}

/** Brings what there is of a partial beside the target. @throws as `Staging.done` */
export async function stagePartial(source: Source, target: string): Promise<TargetFile> {
  const { file, done } = new Staging(source, target, true);
  try {
    await done;
    return file;
  } catch (e) {
    await file.discard();
    throw e;
  }
}

function requirePlausible(path: string, size: number): void {
  if (size <= MAX_SEGMENT_SIZE) return;
  throw new CorruptWalError(`"${path}" is larger than any WAL segment`, { path });
}

/**
 * Copies a plain file that may be growing, piece by piece from its end to its start: what a later
 * piece was seen to hold was written after all that is in the earlier ones, so the whole is a
 * state that the file once had.
 */
function copyBackwards(path: string, file: TargetFile): void {
  const buffer = Buffer.allocUnsafeSlow(READ_SIZE);
  const fd = onArchive('open file', path, () => fs.openSync(path, 'r'));
  try {
    const { size } = onArchive('stat file', path, () => fs.fstatSync(fd));
    requirePlausible(path, size);
    file.resize(size);
    for (let end = size; end > 0; ) {
      const start = Math.max(0, end - READ_SIZE);
      for (let at = start; at < end; ) {
        const n = onArchive('read file', path, () => fs.readSync(fd, buffer, 0, end - at, at));
        // Shortened meanwhile: not the file that was found.
        if (n === 0) throw new VanishedError(path);
        file.write(buffer.subarray(0, n), at);
        at += n;
      }
      end = start;
    }
  } finally {
    fs.closeSync(fd);
  }
}

type Append = (bytes: Uint8Array) => void;

/** Whatever can be decompressed, up to one byte more than any segment has. */
async function decompressCarefully(
  { path, compression }: Source,
  append: Append,
): Promise<{ end: string; problem?: string }> {
  const most = MAX_SEGMENT_SIZE + 1;
  let bytes = 0;
  const deliver = async (chunk: Uint8Array): Promise<boolean> => {
    const wanted = chunk.length > most - bytes ? chunk.subarray(0, most - bytes) : chunk;
    bytes += wanted.length;
    append(wanted);
    return bytes >= most;
  };
  if (compression !== 'lz4') {
    const { decompressFile } = await import('../codec/codec.js');
    return decompressFile(path, compression, append, { limit: most });
  }
  // Not by way of codec.js: what all that loads takes as long as the decompressing.
  const [{ decompressLz4 }, { ByteReader }] = await Promise.all([
    import('../codec/lz4/frame.js'),
    import('../codec/byte-reader.js'),
  ]);
  const reader = await ByteReader.open(path, AT_ONCE);
  try {
    return await decompressLz4(reader, deliver);
  } finally {
    await reader.close();
  }
}

/** Nothing else is waiting for this thread: a turn of the thread pool would be lost time. */
const AT_ONCE: FileSystem = {
  ...nodeFileSystem,
  open: async (path, flags, mode) => fs.openSync(path, flags, mode),
  read: async (fd, buffer, length, position) => fs.readSync(fd, buffer, 0, length, position),
  close: async (fd) => fs.closeSync(fd),
};

/**
 * Decompresses a gzip file in the thread pool, in a few large steps. False if it is too large or
 * anything is wrong with it, which the careful way then judges.
 */
async function gunzipQuickly({ path, size }: Source, append: Append): Promise<boolean> {
  if (size > ONE_STEP) return false;
  const compressed = onArchive('read file', path, () => fs.readFileSync(path));
  const stream = createGunzip({ chunkSize: GUNZIP_STEP });
  let taken = Promise.resolve();
  try {
    await new Promise<void>((resolve, reject) => {
      let bytes = 0;
      stream.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        // Not before the next step is under way.
        if (bytes <= ONE_STEP) taken = taken.then(() => append(chunk));
        else stream.destroy(new RangeError('too large'));
        taken.catch(reject);
      });
      stream.on('end', () => resolve(taken));
      stream.on('error', reject);
      stream.end(compressed);
    });
    return true;
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (e instanceof RangeError || code?.startsWith('Z_')) return false;
    throw e;
  } finally {
    stream.destroy();
    // Nothing of this may be appended to what the careful way begins.
    await taken.catch(() => {});
  }
}
