import { join } from 'node:path';
import { type Compression, compressionSuffix } from '../wal/file-name.js';
import { type CompressOptions, compressFile } from './codec.js';
import { fsyncDir, storageError } from './durable.js';
import type { FileSystem } from './file-system.js';
import { temporaryName } from './leftovers.js';
import type { OpenSegment } from './open-segment.js';
import { contentLength, hasAllOf } from './stored-content.js';

const COMPRESSED: readonly Compression[] = ['gzip', 'lz4', 'zstd'];

/**
 * Brings the partial of a writer that closed into its compressed form. It may hold more than this
 * stream has written, acknowledged by an earlier one: all of its content counts, and the plain file
 * and other forms go only once a durable file has all that they hold. Where the compressed name is
 * taken by a file with something else (`walkeep push` brings what a promoted server archives) the
 * partial stays as it is.
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
  { directory, segmentSize, fs }: { directory: string; segmentSize: number; fs: FileSystem },
): Promise<string> {
  const nameIn = (form: Compression) => `${name}${compressionSuffix(form)}.partial`;
  const wanted = nameIn(compression.method);
  const length = fresh ? known : Math.max(known, await contentLength(path, fs));
  const temporary = join(directory, temporaryName(wanted));
  const covered: string[] = [];
  try {
    await compressFile(path, temporary, length, compression);
    // As late as possible: a push may bring one meanwhile.
    for (const form of COMPRESSED) {
      const other = { path: join(directory, nameIn(form)), compression: form };
      if (fs.sizeSync(other.path) === undefined) continue;
      if (await hasAllOf(path, other, segmentSize, fs)) covered.push(nameIn(form));
      else if (form === compression.method) {
        await fs.unlink(temporary);
        return nameIn('none');
      }
    }
    await fs.rename(temporary, join(directory, wanted));
  } catch (e) {
    // Space is given back at once where its lack was the cause; the cause is what counts.
    await fs.unlink(temporary).catch(() => {});
    throw storageError('rename file', temporary, e);
  }
  if (compression.sync ?? true) await fsyncDir(directory, fs);
  for (const old of [nameIn('none'), ...covered.filter((file) => file !== wanted)]) {
    await fs.unlink(join(directory, old)).catch((e) => {
      throw storageError('remove file', join(directory, old), e);
    });
  }
  return wanted;
}
