import { join } from 'node:path';
import { storageError } from '../files/durable.js';
import { CREATE_NEW, type FileSystem } from '../files/file-system.js';

/**
 * Gives a file of WAL that is not the right one a name that nothing reads. What was kept so before
 * may be all that is left of something, and stays too. @throws StorageError
 */
export function keepAsEvidence(directory: string, file: string, fs: FileSystem): void {
  const path = join(directory, file);
  let evidence = join(directory, `.${file}.replaced`);
  for (let n = 2; fs.sizeSync(evidence) !== undefined; n++) {
    evidence = join(directory, `.${file}.replaced.${n}`);
  }
  try {
    fs.renameSync(path, evidence);
  } catch (e) {
    // Another program has moved it away meanwhile.
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw storageError('rename file', path, e);
  }
}

/**
 * Writes bytes that were not stored to a file that nothing reads, in the place of what has its name.
 * Throws Node's errors.
 */
export function writeEvidence(
  path: string,
  bytes: Uint8Array,
  { mode, fs }: { mode: number; fs: FileSystem },
): void {
  // Not written to: it may be a link to another file.
  if (fs.sizeSync(path) !== undefined) fs.unlinkSync(path);
  const fd = fs.openSync(path, CREATE_NEW, mode);
  try {
    for (let at = 0; at < bytes.length; ) {
      const n = fs.writevSync(fd, [bytes.subarray(at)], at);
      if (n === 0) throw new Error('wrote nothing');
      at += n;
    }
  } finally {
    fs.closeSync(fd);
  }
}
