import { join } from 'node:path';
import { StorageError } from '../errors.js';
import { compressionSuffix } from '../wal/file-name.js';
import type { WalVerifier } from '../wal/verifier.js';
import { decompressFile } from './codec.js';
import { createAnew, durableRename, fsyncError, storageError, writeFully } from './durable.js';
import type { FileSystem } from './file-system.js';
import { WalComparison } from './same-wal.js';
import type { SegmentFile } from './wal-directory.js';

/** What a segment begins with when its WAL is received again. */
export interface Seed {
  /** Bytes from the start of the segment that an earlier partial holds. */
  length: number;
  /** Compressed partials that the finished segment replaces, bare names. */
  superseded: string[];
}

interface PlaceOptions {
  segmentSize: number;
  mode: number;
  sync: boolean;
  fs: FileSystem;
}

/**
 * Brings what compressed partials of a segment hold into its plain `.partial`, the one form in
 * which WAL is received. A compressed partial is never truncated or written over in place: what
 * it holds may be acknowledged, and stays until a file that covers it is durable (contract,
 * defect 1).
 *
 * @param files all files of that segment number, of any timeline
 * @param options.measure find `length` also where there is only a plain partial (else 0)
 * @param options.verifier one that stands at the segment's start. Where two partials differ, the one
 *   whose records are good there is right, and the other one's WAL came damaged; within a record that
 *   is unfinished in both the plain one, received last, is gone on with
 * @throws StorageError if two partials contradict each other
 */
export async function seedPartial(
  directory: string,
  base: string,
  files: readonly SegmentFile[],
  options: PlaceOptions & { measure: boolean; verifier?: MakeVerifier },
): Promise<Seed> {
  const target = join(directory, `${base}.partial`);
  const compressed = files.filter(
    (f) =>
      f.partial &&
      f.compression !== 'none' &&
      f.name === `${base}${compressionSuffix(f.compression)}.partial`,
  );
  const superseded = compressed.map((f) => f.name);
  if (compressed.length === 0 && !options.measure) return { length: 0, superseded };
  let best = await readPlain(target, options.fs);
  let improved = false;
  for (const file of compressed) {
    const content = await readCompressed(join(directory, file.name), file, options);
    const at = await firstDifference(content, best, options.verifier);
    const right =
      at === undefined ? undefined : await theRightOne(content, best, at, options.verifier);
    if (at !== undefined && !right) {
      throw new StorageError(`"${file.name}" and "${base}.partial" hold different WAL`, {
        path: target,
        hint: 'Move the one that is wrong out of the directory.',
      });
    }
    if (right === best) continue;
    if (right === content || content.length > best.length) {
      best = content;
      improved = true;
    }
  }
  if (improved) await place(target, `${base}.seed`, directory, best, options);
  return { length: best.length, superseded };
}

/**
 * Puts the good records of a complete segment into its `.partial`, in place of any that is there:
 * what came after them was refused and is received again, what they are must not change.
 *
 * @param verifier stands at the segment's start
 * @throws StorageError
 */
export async function seedFromComplete(
  directory: string,
  base: string,
  file: SegmentFile,
  verifier: WalVerifier,
  options: PlaceOptions,
): Promise<Seed> {
  const path = join(directory, file.name);
  const begin = verifier.position;
  const content = await readCompressed(path, file, options);
  verifier.feed(content);
  const good = content.subarray(0, Math.max(0, Number(verifier.validEnd - begin)));
  await place(join(directory, `${base}.partial`), `${base}.seed`, directory, good, options);
  return { length: good.length, superseded: [] };
}

type MakeVerifier = () => Promise<WalVerifier>;

/** Index of the first byte in which two contents are other WAL, as far as both reach. */
async function firstDifference(
  a: Buffer,
  b: Buffer,
  makeVerifier: MakeVerifier | undefined,
): Promise<number | undefined> {
  const shared = Math.min(a.length, b.length);
  if (a.compare(b, 0, shared, 0, shared) === 0) return undefined;
  const verifier = await makeVerifier?.();
  if (verifier) return new WalComparison(verifier).feed(a, b);
  return a.findIndex((byte, i) => byte !== b[i]);
}

/** Of two contents that differ at `at`; undefined if both are good there. */
async function theRightOne(
  compressed: Buffer,
  plain: Buffer,
  at: number,
  makeVerifier: MakeVerifier | undefined,
): Promise<Buffer | undefined> {
  if (!makeVerifier) return undefined;
  const goodLength = async (content: Buffer): Promise<number> => {
    const verifier = await makeVerifier();
    const begin = verifier.position;
    verifier.feed(content);
    return Number(verifier.validEnd - begin);
  };
  if ((await goodLength(compressed)) <= at) return plain;
  return (await goodLength(plain)) <= at ? compressed : undefined;
}

/** The content of a padded partial up to its last byte that is not zero. */
function trimmed(content: Buffer): Buffer {
  let end = content.length;
  while (end > 0 && content[end - 1] === 0) end -= 1;
  return content.subarray(0, end);
}

async function readPlain(path: string, fs: FileSystem): Promise<Buffer> {
  if (fs.sizeSync(path) === undefined) return Buffer.alloc(0);
  return trimmed(
    await fs.readFile(path).catch((e) => {
      throw storageError('read file', path, e);
    }),
  );
}

/** Not padded: zeros at its end are WAL that was received. */
async function readCompressed(
  path: string,
  file: SegmentFile,
  { segmentSize, fs }: PlaceOptions,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  await decompressFile(path, file.compression, (chunk) => void chunks.push(Buffer.from(chunk)), {
    limit: segmentSize,
    fs,
  });
  return Buffer.concat(chunks);
}

async function place(
  target: string,
  temporaryName: string,
  directory: string,
  content: Buffer,
  { segmentSize, mode, sync, fs }: PlaceOptions,
): Promise<void> {
  const temporary = join(directory, `.walkeep-${temporaryName}`);
  const fd = await createAnew(temporary, mode, fs).catch((e) => {
    throw storageError('create file', temporary, e);
  });
  try {
    await writeFully(fs, fd, content, 0);
    fs.ftruncateSync(fd, segmentSize);
    if (sync) {
      await fs.fsync(fd).catch((e) => {
        throw fsyncError(temporary, e);
      });
    }
  } catch (e) {
    throw storageError('write file', temporary, e);
  } finally {
    await fs.close(fd);
  }
  await durableRename(temporary, target, fs);
}
