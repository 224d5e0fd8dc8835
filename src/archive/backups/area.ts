import { stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { ArchiveAccessError, StoreAccessError, UsageError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import { openFileStore } from '../../store/file/file-store.js';
import { openStore } from '../../store/open.js';
import type { ObjectStore } from '../../store/store.js';
import { isStore, type StoreEnvironment } from '../places/open-archive.js';
import { systemsOf } from '../shipping/systems.js';
import { systemPrefix } from '../store-keys.js';

/** Where the base backups of one cluster lie, whatever kind of place it is. */
export interface BackupArea {
  /** For messages, and to open it again in a thread. */
  readonly place: string;
  readonly store: ObjectStore;
  /** Before all keys: `systems/<sysid>/` in a store, nothing in a directory archive. */
  readonly prefix: string;
  close(): Promise<void>;
}

export interface AreaOptions {
  /** The cluster that is meant; needed where a store has several. */
  systemId?: bigint | undefined;
  /** What is kept beside objects in a directory archive is made. */
  writable?: boolean | undefined;
  /** Take also a store that cannot create only what is absent. */
  unfenced?: boolean | undefined;
  env?: StoreEnvironment | undefined;
  signal?: AbortSignal | undefined;
}

/** Nothing was stored in it yet, which the store itself said. */
export class EmptyStoreError extends UsageError {}

/**
 * Opens a place for its base backups. In a directory archive they lie in `backups/` beside the WAL.
 * @throws StorageError for a directory that is not there or no archive; EmptyStoreError; UsageError for
 *   no place, or a store of several clusters; StoreAccessError, StoreUncertainError
 */
export async function openBackupArea(place: string, options: AreaOptions): Promise<BackupArea> {
  const { systemId, writable = false, unfenced, env, signal } = options;
  if (!isStore(place)) {
    const path = /^file:/i.test(place) ? fileURLToPath(place) : place;
    // What a store says of a directory that is gone, to begin one there, would mislead.
    await stat(path).catch((e) => {
      throw storageError('open directory', path, e);
    });
    const store = await openFileStore(path, { init: writable }).catch((cause) => {
      if (!(cause instanceof StoreAccessError)) throw cause;
      throw new ArchiveAccessError(`"${path}" is not the archive of anything`, {
        ...{ path, cause },
        hint: 'See that its disk is mounted, and that it is the directory that "walkeep receive" writes to.',
      });
    });
    return { place, store, prefix: '', close: () => store.close() };
  }
  const store = await openStore(place, { unfenced, env });
  try {
    const prefix = systemPrefix(systemId ?? (await onlySystem(store, place, signal)));
    return { place, store, prefix, close: () => store.close() };
  } catch (e) {
    await store.close();
    throw e;
  }
}

async function onlySystem(
  store: ObjectStore,
  place: string,
  signal: AbortSignal | undefined,
): Promise<bigint> {
  const [only, ...others] = await systemsOf(store, signal);
  if (only !== undefined && others.length === 0) return BigInt(only);
  if (only === undefined) throw new EmptyStoreError(`"${place}" has nothing of any cluster yet`);
  throw new UsageError(`"${place}" has backups or WAL of several clusters`, {
    detail: `System identifiers ${[only, ...others].join(', ')}.`,
    hint: 'Say which one with --system-id.',
  });
}
