import { join } from 'node:path';
import { storageError } from '../files/durable.js';
import type { FileSystem } from '../files/file-system.js';

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
