import { join } from 'node:path';
import { compareContent, hasAllOf, type StoredFile } from '../../archive/compare.js';
import { keepAsEvidence } from '../../archive/evidence.js';
import { contentLength } from '../../archive/good-wal.js';
import { temporaryName } from '../../archive/leftovers.js';
import { type CompressOptions, compressFile } from '../../codec/codec.js';
import { fsyncDir, storageError } from '../../files/durable.js';
import type { FileSystem } from '../../files/file-system.js';
import { storedForms, storedName } from '../../wal/file-name.js';
import type { OpenSegment } from './open-segment.js';
import { checkWal, type MakeVerifier } from './partial-seed.js';

interface PlaceOptions {
  directory: string;
  segmentSize: number;
  fs: FileSystem;
  /** As for `seedPartial`. */
  verifier?: MakeVerifier;
}

/**
 * Brings the partial of a writer that closed into its compressed form. It may hold more than this
 * stream has written, acknowledged by an earlier one: all of its content counts, and the plain file
 * and other forms go only once a durable file has all that they hold; one that came damaged is kept
 * as evidence. Where the compressed name is taken by a file with something else (`walkeep push`
 * brings what a promoted server archives) the partial stays as it is.
 *
 * @param known bytes of it that this stream wrote or that are known to be acknowledged: the last of
 *   them may be zeros
 * @returns the bare name that it has now
 * @throws StorageError
 */
export async function compressPartial(
  { name, path, fresh }: OpenSegment,
  known: number,
  compression: CompressOptions,
  { directory, segmentSize, fs, verifier }: PlaceOptions,
): Promise<string> {
  const plain = storedName(name, 'none', true);
  const wanted = storedName(name, compression.method, true);
  const length = fresh ? known : Math.max(known, await contentLength(path, fs));
  const temporary = join(directory, temporaryName(wanted));
  const covered: string[] = [];
  try {
    await compressFile(path, temporary, length, compression);
    // As late as possible: a push may bring one meanwhile.
    for (const { name: file, compression: form } of storedForms(name, true)) {
      if (file === plain) continue;
      const other = { path: join(directory, file), compression: form, limit: segmentSize };
      if (fs.sizeSync(other.path) === undefined) continue;
      if (await hasAllOf(path, other, segmentSize, fs)) covered.push(file);
      else if (verifier && (await isWrong(other, path, length, verifier, fs))) {
        keepAsEvidence(directory, file, fs);
      } else if (file === wanted) {
        await fs.unlink(temporary);
        return plain;
      }
    }
    await fs.rename(temporary, join(directory, wanted));
  } catch (e) {
    // Space is given back at once where its lack was the cause; the cause is what counts.
    await fs.unlink(temporary).catch(() => {});
    throw storageError('rename file', temporary, e);
  }
  if (compression.sync ?? true) await fsyncDir(directory, fs);
  for (const old of [plain, ...covered.filter((file) => file !== wanted)]) {
    await fs.unlink(join(directory, old)).catch((e) => {
      throw storageError('remove file', join(directory, old), e);
    });
  }
  return wanted;
}

/** True if another form holds no more than the plain one and its WAL is bad where they differ. */
async function isWrong(
  other: StoredFile & { limit: number },
  path: string,
  length: number,
  verifier: MakeVerifier,
  fs: FileSystem,
): Promise<boolean> {
  const { limit } = other;
  const { first, length: its } = await compareContent(path, other, limit, fs);
  if (first === undefined || its > length) return false;
  const good = async (file: StoredFile) =>
    (await checkWal([{ ...file, limit }], verifier, fs)).good;
  return (await good(other)) <= first && (await good({ path, compression: 'none' })) > first;
}
