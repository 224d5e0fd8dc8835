import { availableParallelism } from 'node:os';
import { type BackupArea, openBackupArea } from '../archive/backups/area.js';
import { readBackups, readRecord } from '../archive/backups/catalog.js';
import { holdLease, type Lease } from '../archive/backups/lease.js';
import type { BackupReader } from '../archive/backups/reader.js';
import { judgeBackups } from '../archive/backups/state.js';
import { openChain } from '../archive/combine/chain.js';
import type { ArchiveKeys } from '../archive/places/open-archive.js';
import type { BackupObject, BackupRecord } from '../base/backup-record.js';
import { baseIndexLines, INDEX_COMPRESSION } from '../base/base-index.js';
import { parseManifest } from '../base/manifest.js';
import { manifestBytes } from '../base/manifest-writer.js';
import { parseRecipients, type Recipients } from '../codec/age/recipients.js';
import { compressorOf, quickCompression } from '../codec/codecs.js';
import { CorruptObjectError, UnreachableTargetError, UsageError } from '../errors.js';
import { VERSION } from '../package.js';
import { claimBackup } from './claim.js';
import { commitBackup, leaveNothing, removeLeftovers } from './commit.js';
import { digitsFor } from './copy.js';
import { lastModifiedOf, MergeStream, WAL } from './merge-stream.js';
import { BackupObjects } from './objects.js';
import type { BackupProgress, BackupWarning, TakenCompression } from './options.js';
import { BackupSink, type ReceivedTar, VERBATIM } from './sink.js';
import { VolumeMemory } from './volumes.js';

/** How a chain of backups is made into one. */
export interface MergeOptions {
  /** The archive that all of it is in. */
  place: string;
  /** The incremental backup that the result is as. */
  id: string;
  /** Default: as that one has it. */
  compression?: TakenCompression | undefined;
  /** age recipients; needed where any of the chain is encrypted. */
  recipients?: readonly string[] | undefined;
  keys?: (ArchiveKeys & { systemId?: bigint | undefined }) | undefined;
  /** Not to be expired. */
  keep?: boolean | undefined;
  unfenced?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?:
    | ((progress: Pick<BackupProgress, 'phase' | 'id' | 'bytes' | 'total'>) => void)
    | undefined;
  onWarning?: ((warning: BackupWarning) => void) | undefined;
}

/** A full backup that was made of a chain. */
export interface MergedBackup {
  id: string;
  record: BackupRecord;
  /** What it was made of, the full one first. */
  from: string[];
  /** Bytes of all its objects. */
  stored: number;
  files: number;
  /** Milliseconds. */
  duration: number;
  /** Unfinished ones that were removed. */
  cleaned: string[];
}

/**
 * Makes of an incremental backup and all that it is based on a full one, inside the place and without
 * the server. It begins and ends where that one does, so that the same WAL goes with it. The chain
 * stays until it is expired. One that fails leaves nothing behind, one that is killed is cleaned up by
 * the next backup.
 * @throws UsageError, CorruptObjectError that names the file and its backup, EncryptedError, what the
 *   place throws, the signal's reason
 */
export async function mergeBackup(options: MergeOptions): Promise<MergedBackup> {
  const { place, recipients = [], keys = {}, unfenced, signal } = options;
  const parsed = recipients.length > 0 ? await parseRecipients(recipients) : undefined;
  const { systemId } = keys;
  const area = await openBackupArea(place, { systemId, writable: true, unfenced, signal });
  try {
    return await new MergeRun(options, area, parsed).run();
  } finally {
    await area.close();
  }
}

/** Volumes that are stored at the same time. */
const UPLOADS = 2;

class MergeRun {
  readonly #options: MergeOptions;
  readonly #area: BackupArea;
  readonly #recipients: Recipients | undefined;
  readonly #stop = new AbortController();
  readonly #began = performance.now();
  #committing = false;

  constructor(options: MergeOptions, area: BackupArea, recipients: Recipients | undefined) {
    this.#options = options;
    this.#area = area;
    this.#recipients = recipients;
  }

  async run(): Promise<MergedBackup> {
    const { signal } = this.#options;
    const abort = (): void => this.#stop.abort(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    try {
      this.#stop.signal.throwIfAborted();
      return await this.#claimed(await this.#records());
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** The full backup first. @throws UsageError, CorruptObjectError */
  async #records(): Promise<BackupRecord[]> {
    const { id, place } = this.#options;
    const found = await readBackups(this.#area, this.#stop.signal);
    const backup = judgeBackups(found, { leases: [], now: new Date() }).find((b) => b.id === id);
    const record = backup?.found.record;
    if (!backup || (!record && !backup.problem)) {
      throw new UsageError(`"${place}" has no complete backup ${id}`, {
        hint: '"walkeep backups" lists those that there are.',
      });
    }
    if (!record || backup.state !== 'complete') {
      throw new CorruptObjectError(`backup ${id} cannot be merged: ${backup.problem}`, { key: id });
    }
    if (record.parent === undefined) {
      throw new UsageError(`${id} is a full backup: there is nothing to merge`);
    }
    const records = [...backup.chain.toReversed(), record];
    const encrypted = records.find((one) => one.encrypted);
    if (encrypted && !this.#recipients) {
      throw new UsageError(`${encrypted.id} is encrypted, and is not to be stored unencrypted`, {
        hint: 'Say with --recipients-file to whom the merged one is encrypted.',
      });
    }
    return records;
  }

  async #claimed(records: BackupRecord[]): Promise<MergedBackup> {
    const signal = this.#stop.signal;
    const last = records.at(-1) as BackupRecord;
    const { id, claim } = await claimBackup(this.#area, 'F', signal);
    const lost = (): void => this.#stop.abort(lease?.signal.reason);
    const warn = (warning: BackupWarning): void => this.#options.onWarning?.(warning);
    let lease: Lease | undefined;
    try {
      const { timeline, lsn } = last.start;
      const needs = { backups: records.map((one) => one.id), wal: [{ timeline, lsn }] };
      const onWait = (expire: string): void =>
        warn({ code: 'WK_BUSY', message: `waiting for expire "${expire}" to end` });
      lease = await holdLease(this.#area, { id, kind: 'backup', needs, signal, onWait });
      lease.signal.addEventListener('abort', lost);
      if (lease.signal.aborted) lost();
      await this.#requireThere(records);
      const cleaned = await removeLeftovers(this.#area, lease, signal, warn);
      return { ...(await this.#merge(id, claim, records, lease)), cleaned };
    } catch (e) {
      const error = signal.aborted ? signal.reason : e;
      this.#stop.abort(error);
      if (!this.#committing) await leaveNothing(this.#area, id);
      throw error;
    } finally {
      await lease?.release();
    }
  }

  /** Now that a lease keeps it so. */
  async #requireThere(records: readonly BackupRecord[]): Promise<void> {
    for (const { id } of records) {
      const { record } = await readRecord(this.#area, id, this.#stop.signal);
      if (!record) throw new UnreachableTargetError(`backup "${id}" was removed a moment ago`);
    }
  }

  async #merge(
    id: string,
    claim: BackupObject,
    records: readonly BackupRecord[],
    lease: Lease,
  ): Promise<Omit<MergedBackup, 'cleaned'>> {
    const { keys, keep } = this.#options;
    const signal = this.#stop.signal;
    const links = records.map((record) => ({ record, area: this.#area }));
    const chain = await openChain(links, keys, signal);
    const reader = chain.readers.at(-1) as BackupReader;
    const { record: last } = reader;
    const manifest = parseManifest(
      await reader.content('backup_manifest', signal),
      reader.key('backup_manifest'),
    );
    const stream = await MergeStream.open(chain, manifest, signal);
    const recipients = this.#recipients;
    const objects = new BackupObjects(this.#area, id, { claim, recipients, signal });
    const compression = this.#options.compression ?? sameCompression(last);
    const { tars, sink } = await this.#store(id, stream, reader, objects, compression);
    const lastModified = lastModifiedOf(manifest);
    const files = [...sink.files].filter(([path]) => !WAL.test(path));
    const bytes = manifestBytes(
      last.systemId,
      files.map(([path, { size, digest }]) => ({
        ...{ path, size, lastModified: lastModified(path) },
        checksum: { algorithm: 'SHA256', hex: Buffer.from(digest, 'latin1').toString('hex') },
      })),
      manifest.walRanges,
    );
    await objects.put('backup_manifest', bytes);
    for (const [path, content] of sink.verbatim) await objects.put(VERBATIM[path], content);
    const lines = [...baseIndexLines({ tars: tars.map((tar) => tar.index) })].join('');
    const { compressWhole } = await compressorOf(INDEX_COMPRESSION);
    await objects.put('base.index', await compressWhole(Buffer.from(lines), {}));
    await putOthers(reader, objects, signal);

    const { parent: _, incrementalFrom: __, ...same } = last;
    const record: BackupRecord = {
      ...same,
      ...{ id, codec: compression.method, encrypted: recipients !== undefined },
      // Its pages are of all of them.
      pageChecksums: {
        enabled: last.pageChecksums.enabled,
        checked: records.every((one) => one.pageChecksums.checked),
      },
      tars: tars.map(({ name, oid, size, volumes }) => ({
        ...{ name, ...(oid === undefined ? {} : { oid }), size, volumes },
      })),
      objects: objects.stored,
      warnings: [`made of ${records.map((one) => one.id).join(', ')}`],
      size: tars.reduce((sum, { size }) => sum + size, 0),
      walkeep: VERSION,
    };
    await commitBackup(this.#area, record, {
      ...{ lease, keep, signal },
      onCommitting: () => {
        this.#committing = true;
      },
    });
    const stored = objects.stored.reduce((sum, { size }) => sum + size, 0);
    const duration = performance.now() - this.#began;
    return {
      id,
      record,
      from: records.map((one) => one.id),
      stored,
      files: sink.files.size,
      duration,
    };
  }

  async #store(
    id: string,
    stream: MergeStream,
    { record: last }: BackupReader,
    objects: BackupObjects,
    { method: codec, level }: TakenCompression,
  ): Promise<{ tars: ReceivedTar[]; sink: BackupSink }> {
    const threads = Math.min(4, availableParallelism());
    const memory = new VolumeMemory({ codec, level, threads, uploads: UPLOADS });
    const onFailure = (error: unknown): void => this.#stop.abort(error);
    const sink = new BackupSink({ memory, objects, algorithm: 'SHA256', onFailure });
    const total = stream.size;
    sink.digits = digitsFor(total);
    try {
      for (const [n, { name, oid }] of last.tars.entries()) {
        sink.onArchive({ name, oid });
        await stream.tar(n, async (bytes) => {
          // Nothing is read faster than it is stored.
          await memory.room(this.#stop.signal);
          sink.onData(bytes);
          this.#options.onProgress?.({ phase: 'copy', id, bytes: sink.bytes, total });
        });
      }
      const { tars } = await sink.end();
      this.#stop.signal.throwIfAborted();
      return { tars, sink };
    } finally {
      await sink.close();
      memory.clear();
    }
  }
}

function sameCompression({ codec }: BackupRecord): TakenCompression {
  const quick = quickCompression();
  return quick.method === codec ? quick : { method: codec };
}

/** What belongs to the last backup besides its files: configuration from outside. */
async function putOthers(
  reader: BackupReader,
  objects: BackupObjects,
  signal: AbortSignal,
): Promise<void> {
  for (const { name } of reader.record.objects) {
    if (/^(outside|wal)\//.test(name)) await objects.put(name, await reader.object(name, signal));
  }
}
