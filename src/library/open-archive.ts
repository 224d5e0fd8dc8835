import { type ArchiveOptions, openArchive as openPlace } from '../archive/places/open-archive.js';
import {
  type BackupFile,
  type BackupList,
  listBackups,
  listFiles,
} from '../backups/list-backups.js';
import { type CheckReport, runCheck } from '../check/check.js';
import type { BackupDemands } from '../check/check-backups.js';
import type { LagDemands } from '../check/check-position.js';
import { type CleanupOptions, cleanupArchive, planCleanup } from '../cleanup/cleanup.js';
import { connect } from '../connection/connect.js';
import { resolveSettings } from '../connection/conninfo/resolve.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import { UsageError } from '../errors.js';
import { type FetchOptions, type FetchResult, fetchFile } from '../fetch/fetch.js';
import type { WalEvent } from '../find/event.js';
import { type FindOptions, type FindResult, findEvents } from '../find/find.js';
import { type ArchiveList, listArchive } from '../list/list.js';
import { aBigint, aName, aSignal, aText, type Checks, checkOptions, listOf } from '../options.js';
import { type PushOptions, type PushResult, pushFile } from '../push/push.js';
import type { RestoreOptions, RestorePlan, RestoreResult } from '../restore/options.js';
import { planRestore, restoreBackup } from '../restore/restore.js';
import { type VerifyOptions, type VerifyResult, verifyArchive } from '../verify/verify.js';
import { HandOver } from './hand-over.js';
import type { LoggedRecord } from './logged-record.js';
import { type ArchivedRecordsOptions, walRecords } from './wal-records.js';

/** How an archive is opened. */
export interface OpenArchiveOptions extends ArchiveOptions {
  /** Ends all that the archive is at, in addition to a method's own. */
  signal?: AbortSignal | undefined;
}

const CHECKS: Checks<OpenArchiveOptions> = {
  identityFiles: listOf(aName, 'a list of files'),
  identityCommand: aText,
  systemId: aBigint,
  signal: aSignal,
};

interface Signal {
  signal?: AbortSignal | undefined;
}

/** What a server and its archive are checked for. */
export interface CheckArchiveOptions extends BackupDemands, LagDemands, Signal {
  /** The server: a conninfo string or URI, or settings from `resolveSettings`. */
  connection: ConnectionSettings | string;
  /** The receiver's slot. */
  slot?: string | undefined;
  /** The receiver's application_name; default: that of the connection, or `walkeep`. */
  applicationName?: string | undefined;
}

/** What is removed, and what would be. */
export interface CleanupResult {
  removed: readonly string[];
  /** That a store retains: a lock is on it. */
  retained: readonly string[];
}

/**
 * An archive: a directory, a store, or several of one cluster that are read as one. Nothing is held
 * open between two calls; a receiver, a shipper and others may be at work on it.
 */
export class WalArchive {
  readonly places: readonly string[];
  private readonly keys: ArchiveOptions;
  private readonly closing = new AbortController();
  private readonly signal: AbortSignal;

  /** @internal */
  constructor(places: readonly string[], { signal, ...keys }: OpenArchiveOptions) {
    this.places = places;
    this.keys = keys;
    this.signal = signal ? AbortSignal.any([signal, this.closing.signal]) : this.closing.signal;
  }

  /** What WAL there is: timelines, ranges, gaps. */
  list(options: Signal = {}): Promise<ArchiveList> {
    return listArchive(this.only('list'), this.signalFor(options), this.keys);
  }

  /** Checks all of it, or a part: names, every record, base backups. */
  verify(options: Omit<VerifyOptions, 'keys'> = {}): Promise<VerifyResult> {
    return verifyArchive(this.only('verify'), this.with(options));
  }

  /** Commits, aborts, restore points, checkpoints, and branches, in their order. */
  async *find(
    options: Omit<FindOptions, 'keys' | 'between'> = {},
  ): AsyncGenerator<WalEvent, FindResult, undefined> {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.signalFor(options), stop.signal]);
    const events = new HandOver<WalEvent>();
    const between = () => events.settled();
    const { keys } = this;
    const finding = findEvents(this.places, { ...options, between, keys, signal }, (event) => {
      events.add(event);
      return false;
    }).finally(() => events.settled());
    finding.then(
      () => events.end(),
      (error) => events.end(error),
    );
    try {
      yield* events.items();
      return await finding;
    } finally {
      stop.abort();
      events.end();
      await finding.catch(() => {});
    }
  }

  /** Every record, checked. */
  records(
    options: Omit<ArchivedRecordsOptions, 'places' | 'keys'> = {},
  ): AsyncGenerator<LoggedRecord, void, undefined> {
    return walRecords({ ...this.with(options), places: this.places });
  }

  /** Brings a file to where restore_command wants it. `found: false` only if it is known. */
  fetch(
    name: string,
    target: string,
    options: Omit<FetchOptions, 'places' | 'name' | 'target' | 'keys'> = {},
  ): Promise<FetchResult> {
    this.signal.throwIfAborted();
    const { places, keys } = this;
    return fetchFile({ ...options, places, name, target, keys });
  }

  /** Takes a file of pg_wal, as archive_command asks: it is durable when this resolves. */
  push(path: string, options: PushOptions = {}): Promise<PushResult> {
    this.signal.throwIfAborted();
    return pushFile(this.only('push'), path, options);
  }

  /** Removes segments before the one named, as pg_archivecleanup; with `dryRun` it only tells. */
  async cleanup(
    oldest: string,
    { dryRun = false, ...options }: CleanupOptions & { dryRun?: boolean } = {},
  ): Promise<CleanupResult> {
    this.signal.throwIfAborted();
    const plan = await planCleanup(this.only('cleanup'), oldest, options, this.keys);
    if (dryRun) return { removed: plan.remove, retained: [] };
    return cleanupArchive(plan, () => this.signal.throwIfAborted(), this.keys);
  }

  /** Whether the archive and its server are safe together. */
  async check(options: CheckArchiveOptions): Promise<CheckReport> {
    const { connection, applicationName, signal: _, ...demands } = options;
    const signal = this.signalFor(options);
    signal.throwIfAborted();
    const settingsFor = async (fallbackDatabase?: string): Promise<ConnectionSettings> =>
      typeof connection === 'string'
        ? resolveSettings({
            ...{ conninfo: connection, fallbackApplicationName: 'walkeep' },
            ...(fallbackDatabase === undefined ? {} : { fallbackDatabase }),
          })
        : connection;
    const settings = await settingsFor();
    return runCheck({
      ...demands,
      directory: this.only('check'),
      applicationName: applicationName ?? settings.applicationName,
      connect: async (replication) => {
        const own = replication === 'off' ? await settingsFor('postgres') : settings;
        return connect(own, { replication, signal });
      },
    });
  }

  /** The base backups, with what each can be restored to. */
  backups(options: Signal & { id?: string } = {}): Promise<BackupList> {
    const { id } = options;
    const { keys } = this;
    return listBackups(this.only('backups'), { ...keys, id, signal: this.signalFor(options) });
  }

  /** What a base backup holds. */
  backupFiles(id: string, options: Signal = {}): Promise<BackupFile[]> {
    const { keys } = this;
    return listFiles(this.only('backupFiles'), id, { ...keys, signal: this.signalFor(options) });
  }

  /** What `restore` would do. Nothing is written. @throws UnreachableError, with the nearest target */
  planRestore(options: Omit<RestoreOptions, 'places' | 'keys'>): Promise<RestorePlan> {
    return planRestore({ ...this.with(options), places: this.places });
  }

  /** Restores a base backup, so that a server started on it recovers to the target. */
  restore(options: Omit<RestoreOptions, 'places' | 'keys'>): Promise<RestoreResult> {
    return restoreBackup({ ...this.with(options), places: this.places });
  }

  /** Ends what is under way: each of it rejects. Resolves at once. */
  async close(): Promise<void> {
    this.closing.abort(new UsageError('the archive was closed'));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private with<T extends Signal>(options: T): T & { keys: ArchiveOptions; signal: AbortSignal } {
    return { ...options, keys: this.keys, signal: this.signalFor(options) };
  }

  private signalFor({ signal }: Signal): AbortSignal {
    return signal ? AbortSignal.any([signal, this.signal]) : this.signal;
  }

  private only(method: string): string {
    const [place, second] = this.places;
    if (place !== undefined && second === undefined) return place;
    throw new UsageError(`${method} takes one archive, and ${this.places.length} are open`);
  }
}

/**
 * Opens the archive at a place: a directory, `s3://…`, `ssh://…`; of several of one cluster `find`,
 * `fetch`, `records` and `restore` make one. What is in it is not looked at yet.
 * @throws UsageError for what is no place; StoreAccessError, StoreUncertainError
 * @example
 * await using archive = await openArchive('s3://shop-wal/shop');
 * const { gaps } = await archive.list();
 */
export async function openArchive(
  places: string | readonly string[],
  options: OpenArchiveOptions = {},
): Promise<WalArchive> {
  checkOptions('openArchive', options, CHECKS);
  options.signal?.throwIfAborted();
  const all = typeof places === 'string' ? [places] : places;
  if (all.length === 0) throw new UsageError('openArchive: no archive is given');
  const { signal: _, ...keys } = options;
  for (const place of all) await (await openPlace(place, keys)).close();
  return new WalArchive(all, options);
}
