import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Identities } from '../../codec/age/identities.js';
import { UsageError } from '../../errors.js';
import type { Archive } from '../archive.js';
import { ARCHIVE_KEY } from '../store-keys.js';
import { openDirectory } from './directory-archive.js';

/** Where the keys are that open what is encrypted. */
export interface ArchiveKeys {
  /** Files with the age identities that open what is encrypted. */
  identityFiles?: readonly string[] | undefined;
  /** A command that prints them; it is run without a shell. */
  identityCommand?: string | undefined;
}

/** What is known of an archive before it is opened. Can be sent to a thread. */
export interface ArchiveOptions extends ArchiveKeys {
  /** The cluster that is asked for; needed where a store has several. */
  systemId?: bigint | undefined;
}

/** Where a store looks for credentials, proxies and defaults. */
export type StoreEnvironment = Readonly<Record<string, string | undefined>>;

export interface OpenOptions extends ArchiveOptions {
  /** Default: that of the process. */
  env?: StoreEnvironment | undefined;
}

const URL = /^[a-z][a-z0-9+.-]+:\/\//i;
const FILE_URL = /^file:\/\//i;
const SSH_URL = /^ssh:\/\//i;

/**
 * True for what is no flat directory: a URL, or a directory that has an `archive.json`.
 * Of `file://` the path counts.
 */
export function isStore(place: string): boolean {
  if (URL.test(place) && !FILE_URL.test(place)) return true;
  return existsSync(join(directoryOf(place), ARCHIVE_KEY));
}

function directoryOf(place: string): string {
  return FILE_URL.test(place) ? fileURLToPath(place) : place;
}

/**
 * Milliseconds for a question with all its repetitions: PostgreSQL waits for the answer, and can
 * meanwhile neither be promoted nor ask again.
 */
const PATIENCE = 30_000;

/**
 * The archive at a place: a directory, flat as pg_receivewal's unless it has an `archive.json`, or a
 * store. What it has is not looked at yet.
 * @throws UsageError for what is no place; StoreAccessError, StoreUncertainError
 */
export async function openArchive(place: string, options: OpenOptions = {}): Promise<Archive> {
  if (!isStore(place)) return openDirectory(directoryOf(place));
  const [{ openStore }, { StoreArchive }] = await Promise.all([
    import('../../store/open.js'),
    import('./store-archive.js'),
  ]);
  const store = await openStore(place, { patience: { whole: PATIENCE }, env: options.env });
  const asStore = () => new StoreArchive(store, options.systemId, identitiesOf(options));
  if (!SSH_URL.test(place)) return asStore();
  const { SshArchive } = await import('./ssh-archive.js');
  return new SshArchive(store, asStore);
}

/** Had once, and only when something is to be read. */
export function identitiesOf({ identityFiles = [], identityCommand }: ArchiveKeys) {
  let found: Promise<Identities | undefined> | undefined;
  const load = async (): Promise<Identities | undefined> => {
    if (identityFiles.length === 0 && identityCommand === undefined) return undefined;
    const { Identities } = await import('../../codec/age/identities.js');
    const all = await Promise.all(identityFiles.map((path) => Identities.fromFile(path)));
    if (identityCommand !== undefined) all.push(await Identities.fromCommand(identityCommand));
    return Identities.join(all);
  };
  return () => {
    found ??= load();
    return found;
  };
}

/**
 * One archive or several, to be read as one, and closed when that is done.
 * @throws what opening one of them throws, and what `use` throws
 */
export async function withArchives<T>(
  places: string | readonly string[],
  options: ArchiveOptions,
  use: (archive: Archive) => Promise<T>,
): Promise<T> {
  const opened: Archive[] = [];
  try {
    for (const place of typeof places === 'string' ? [places] : places) {
      opened.push(await openArchive(place, options));
    }
    const [only, second] = opened;
    if (only && !second) return await use(only);
    if (!only) throw new UsageError('no archive is given');
    const { JoinedArchive } = await import('./joined-archive.js');
    return await use(new JoinedArchive(opened));
  } finally {
    for (const archive of opened) await archive.close();
  }
}
