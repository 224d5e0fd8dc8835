import { randomUUID } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { storageError } from '../../files/durable.js';
import { contentOf } from '../../store/content.js';
import { openFileStore } from '../../store/file/file-store.js';
import { isOfArchive } from '../../store/file/root.js';
import { RESERVED } from '../../store/key.js';
import { ARCHIVE_KEY } from '../store-keys.js';

/**
 * Makes a store of a directory, which need not be there, and begins an archive in it: else what comes
 * first, the WAL or a backup, would decide whether the directory is a store or a receiver's own, and
 * what came at the same time would look for it in the other one. In a receiver's directory none is
 * begun: its WAL would not be seen any more.
 * @throws StoreAccessError, StorageError
 */
export async function beginStore(
  path: string,
  { allowGroupAccess = false }: { allowGroupAccess?: boolean } = {},
): Promise<void> {
  const store = await openFileStore(path, { init: true, allowGroupAccess });
  try {
    const entries = await readdir(path).catch((e) => {
      throw storageError('open directory', path, e);
    });
    if (entries.some((name) => name !== RESERVED && (isOfArchive(name) || name === 'backups'))) {
      return;
    }
    // Which cluster's it is says the first that stores something.
    const marker = `${JSON.stringify({ format: 1, id: randomUUID() })}\n`;
    await store.create(ARCHIVE_KEY, contentOf(Buffer.from(marker)));
  } finally {
    await store.close();
  }
}
