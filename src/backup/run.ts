import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import { holdLease, type Lease } from '../archive/backups/lease.js';
import type { BackupObject, BackupRecord, OutsideFile } from '../base/backup-record.js';
import { baseIndexLines, INDEX_COMPRESSION } from '../base/base-index.js';
import { parseBackupLabel } from '../base/label.js';
import { PageCheck } from '../base/page-check.js';
import { compressorOf, quickCompression } from '../codec/codecs.js';
import { CorruptObjectError, ServerError, WalkeepError } from '../errors.js';
import { INVALID_LSN, type Lsn } from '../lsn.js';
import { VERSION } from '../package.js';
import type { BackupFacts } from '../server/backup-facts.js';
import { claimBackup } from './claim.js';
import { commitBackup, leaveNothing, removeLeftovers } from './commit.js';
import { type Copied, type CopyListener, copyBackup } from './copy.js';
import { compareWithManifest } from './digests.js';
import { BackupObjects } from './objects.js';
import type {
  BackupProgress,
  TakeBackupOptions,
  TakenBackup,
  TakenCompression,
} from './options.js';
import { type BackupParent, requireBasedOn, requireChain, serverRefusal } from './parent.js';
import { BackupSink, type SinkOptions, VERBATIM } from './sink.js';
import type { BackupSource } from './source.js';
import { VolumeMemory } from './volumes.js';
import {
  type MissingWal,
  type NeededWal,
  requireStart,
  waitForWal,
  whyNotReceiving,
} from './wal.js';

const WAL_TIMEOUT = 300_000;
/** Where the server does not say (pg_config_manual.h). */
const XLOG_BLCKSZ = 8192;
/** Milliseconds between two reports of progress. */
const REPORT = 200;
/** Milliseconds in which a segment that the server has ended comes by itself. */
const UNFINISHED = 2000;
/**
 * Volumes that are stored at the same time: each has its memory. Of plain ones more are on their way,
 * as nothing is spent on compressing them; more than that gained nothing (measured).
 */
const UPLOADS = 2;
const PLAIN_UPLOADS = 4;

/** Takes one backup. @throws as `takeBackup` */
export class BackupRun {
  readonly #options: TakeBackupOptions;
  readonly #source: BackupSource;
  /** Aborted by the caller, or as soon as anything failed. */
  readonly #stop = new AbortController();
  readonly #began = performance.now();
  #progress: Omit<BackupProgress, 'stored' | 'files'> = { phase: 'checkpoint', id: '', bytes: 0 };
  /** Its record is being stored: after that nobody but the place knows whether the backup exists. */
  #committing = false;
  #objects: BackupObjects | undefined;
  #sink: BackupSink | undefined;
  readonly #parent: BackupParent | undefined;
  readonly #chain: readonly string[];
  /** The server has begun to send. */
  #started = false;

  /** @param parent of an incremental one */
  constructor(options: TakeBackupOptions, source: BackupSource, parent?: BackupParent) {
    this.#options = options;
    this.#source = source;
    this.#parent = parent;
    this.#chain = parent?.chain.map(({ id }) => id) ?? [];
  }

  async run(): Promise<TakenBackup> {
    const { signal } = this.#options;
    const abort = (): void => this.#stop.abort(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    const timer = setInterval(() => this.#report(), REPORT);
    timer.unref();
    try {
      this.#stop.signal.throwIfAborted();
      return await this.#claimed();
    } finally {
      clearInterval(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  async #claimed(): Promise<TakenBackup> {
    const { area, state } = this.#source;
    const signal = this.#stop.signal;
    const { id, claim } = await claimBackup(area, this.#parent ? 'I' : 'F', signal);
    this.#progress = { ...this.#progress, id };
    const lost = (): void => this.#stop.abort(lease?.signal.reason);
    let lease: Lease | undefined;
    try {
      // A standby begins with its last checkpoint: how far back that lies is known when it has begun.
      const all = { timeline: state.timeline, lsn: INVALID_LSN };
      const needs = { backups: this.#chain, wal: [all] };
      const onWait = (expire: string): void => {
        this.#source.warnings.add({
          code: 'WK_BUSY',
          message: `waiting for expire "${expire}" to end`,
        });
      };
      lease = await holdLease(area, { id, kind: 'backup', needs, signal, onWait });
      lease.signal.addEventListener('abort', lost);
      if (lease.signal.aborted) lost();
      if (this.#parent) await requireChain(area, this.#parent, signal);
      await this.#lookAtWal();
      const { warnings } = this.#source;
      const cleaned = await removeLeftovers(area, lease, signal, (w) => warnings.add(w));
      return { ...(await this.#take(id, claim, lease)), cleaned };
    } catch (e) {
      const error = this.#stop.signal.aborted ? this.#stop.signal.reason : e;
      this.#stop.abort(error);
      // A record that arrives late would be that of a backup without objects.
      if (!this.#committing) await leaveNothing(area, id);
      throw error;
    } finally {
      await lease?.release();
    }
  }

  /** Said before hours are spent: what nobody receives will not be there at the end. */
  async #lookAtWal(): Promise<void> {
    const { archive, state, warnings } = this.#source;
    if (this.#options.wal === 'include') return;
    const why = await whyNotReceiving(archive, state);
    if (why === undefined) return;
    warnings.add({
      code: 'WK_NOT_RECEIVED',
      message: `nobody seems to receive the WAL of this server into "${archive.place}": ${why}`,
      hint: 'Start "walkeep receive", and for a store "walkeep ship": the backup waits at its end until the archive has its WAL; or use --wal include.',
    });
  }

  async #take(
    id: string,
    claim: BackupObject,
    lease: Lease,
  ): Promise<Omit<TakenBackup, 'cleaned'>> {
    const { area, physical, state, facts, archive, recipients, warnings } = this.#source;
    const signal = this.#stop.signal;
    const {
      compression = quickCompression(),
      wal = 'archive',
      walTimeout = WAL_TIMEOUT,
      verifyChecksums = true,
    } = this.#options;
    const objects = new BackupObjects(area, id, { claim, recipients, signal });
    this.#objects = objects;
    const copied = await this.#copy(objects, lease, compression).catch((e) => {
      const refused = this.#parent && !this.#started && e instanceof ServerError;
      throw refused && !signal.aborted ? serverRefusal(e) : e;
    });
    const duration = performance.now() - this.#began;
    const { start, end, startTime, endTime, tablespaces, tars, manifest, bytes, sink } = copied;

    if (manifest.systemId !== undefined && manifest.systemId !== state.systemId) {
      throw new CorruptObjectError('the manifest is of another system', {
        expected: `${state.systemId}`,
        actual: `${manifest.systemId}`,
      });
    }
    compareWithManifest(manifest, sink.files, this.#algorithm);
    const labelFile = sink.verbatim.get('backup_label');
    if (!labelFile) throw new CorruptObjectError('the base backup has no backup_label');
    const label = parseBackupLabel(labelFile);
    const [parent] = this.#parent?.chain ?? [];
    const incrementalFrom = requireBasedOn(labelFile, id, parent);
    if (label.start !== start.lsn || label.timeline !== start.timeline) {
      throw new CorruptObjectError('the backup_label is of another backup');
    }
    const isJudged = await this.#judgePages(sink, start.lsn);
    await objects.put('backup_manifest', bytes);
    for (const [path, content] of sink.verbatim) await objects.put(VERBATIM[path], content);
    const index = { tars: tars.map((tar) => tar.index) };
    const lines = Buffer.from([...baseIndexLines(index)].join(''));
    const { compressWhole } = await compressorOf(INDEX_COMPRESSION);
    await objects.put('base.index', await compressWhole(lines, {}));
    const outside = await putOutside(objects, facts.configuration.files ?? []);

    if (wal === 'archive') {
      this.#progress = { ...this.#progress, phase: 'wal' };
      const known = { systemId: state.systemId, history: state.history };
      const needed = { ranges: manifest.walRanges, segmentSize: state.segmentSize, known };
      const onWait = (waitingFor: string): void => {
        this.#progress = { ...this.#progress, waitingFor };
      };
      const help = this.#helper(needed);
      await waitForWal(archive, needed, { timeout: walTimeout, signal, onWait, help });
    }

    const record: BackupRecord = {
      id,
      ...(parent && incrementalFrom ? { parent: parent.id, incrementalFrom } : {}),
      systemId: state.systemId,
      serverVersion: physical.serverVersion,
      segmentSize: state.segmentSize,
      blockSize: facts.walBlockSize ?? XLOG_BLCKSZ,
      from: label.from,
      label: label.label,
      start: { ...start, time: startTime.toISOString() },
      end: { ...end, time: endTime.toISOString() },
      walRanges: manifest.walRanges,
      wal: wal === 'include' ? 'included' : 'archive',
      codec: compression.method,
      encrypted: recipients !== undefined,
      pageChecksums: {
        enabled: facts.dataChecksums ?? false,
        checked: isJudged || (facts.dataChecksums === true && verifyChecksums),
      },
      tablespaces: tablespaces.flatMap(({ oid, location }) =>
        oid === undefined || location === undefined
          ? []
          : [{ oid, location, inPlace: !location.startsWith('/') }],
      ),
      tars: tars.map(({ name, oid, size, volumes }) => ({
        ...{ name, ...(oid === undefined ? {} : { oid }), size, volumes },
      })),
      objects: objects.stored,
      outside,
      warnings: warnings.messages,
      size: tars.reduce((sum, { size }) => sum + size, 0),
      walkeep: VERSION,
    };
    this.#progress = { ...this.#progress, phase: 'commit' };
    await commitBackup(area, record, {
      ...{ lease, keep: this.#options.keep, signal },
      onCommitting: () => {
        this.#committing = true;
      },
    });
    const stored = objects.stored.reduce((sum, { size }) => sum + size, 0);
    const whole = performance.now() - this.#began;
    return { id, record, stored, files: sink.files.size, duration: { whole, copy: duration } };
  }

  /** Once, when what is missing is the last and unfinished segment, and has not come by itself. */
  #helper({ ranges: [last], segmentSize }: NeededWal): (missing: MissingWal) => Promise<void> {
    const { tail, warnings } = this.#source;
    const stop = this.#stop.signal;
    const since = performance.now();
    let helped = false;
    return async (missing) => {
      const { end, timeline } = missing;
      const isTail = last && timeline === last.timeline && end === last.end;
      if (!tail || helped || !isTail || end % BigInt(segmentSize) === 0n) return;
      if (performance.now() - since < UNFINISHED) return;
      helped = true;
      try {
        await tail({ ...missing, end }, stop);
      } catch (e) {
        stop.throwIfAborted();
        if (!(e instanceof WalkeepError)) throw e;
        const { code, message } = e;
        warnings.add({ code, message: `could not store "${missing.name}" so far: ${message}` });
      }
    };
  }

  async #copy(
    objects: BackupObjects,
    lease: Lease,
    { method: codec, level }: TakenCompression,
  ): Promise<Copied> {
    const threads = Math.min(4, availableParallelism());
    const uploads = codec === 'none' ? PLAIN_UPLOADS : UPLOADS;
    const memory = new VolumeMemory({ codec, level, threads, uploads });
    const onFailure = (error: unknown): void => this.#stop.abort(error);
    const algorithm = this.#algorithm;
    const [parent] = this.#parent?.chain ?? [];
    const onVerbatim: SinkOptions['onVerbatim'] = (path, content) => {
      if (path === 'backup_label') requireBasedOn(content, lease.id, parent);
    };
    const sink = new BackupSink({
      ...{ memory, objects, algorithm, onVerbatim, onFailure },
    });
    this.#sink = sink;
    const listener: CopyListener = {
      onStart: (start, total) => {
        this.#started = true;
        if (this.#options.verifyPages) sink.pages = new PageCheck({ start: start.lsn });
        this.#progress = { ...this.#progress, phase: 'copy', ...(total && { total }) };
        // Where it cannot be told, as much is kept as before.
        lease.narrow({ backups: this.#chain, wal: [start] }).catch(() => {});
        if (this.#options.wal !== 'include') {
          const { archive, state } = this.#source;
          requireStart(archive, start, state.segmentSize).catch(onFailure);
        }
      },
      onBytes: (bytes) => {
        this.#progress.bytes = bytes;
      },
      onEnd: () => {
        this.#progress = { ...this.#progress, phase: 'store' };
      },
    };
    const isIncremental = parent !== undefined;
    const options = {
      ...{ label: lease.id, ...this.#options, isIncremental, manifestChecksums: algorithm },
    };
    if (this.#parent) {
      await this.#source.physical.uploadManifest(this.#parent.manifest, this.#stop.signal);
    }
    try {
      const to = { sink, memory };
      return await copyBackup(this.#source, options, to, listener, this.#stop.signal);
    } finally {
      await sink.close();
    }
  }

  async #judgePages({ pages, verbatim }: BackupSink, start: Lsn): Promise<boolean> {
    if (!pages) return false;
    const { judgePages } = await import('./pages.js');
    const { connect, verifyChecksums = true } = this.#options;
    return judgePages(pages, {
      ...{ control: verbatim.get('global/pg_control'), start, isStrict: verifyChecksums },
      connect: () => connect('off', () => {}),
      warn: (message) => this.#source.warnings.add({ code: 'WK_PAGE_CHECKSUM', message }),
    });
  }

  /** What the server takes of each file, as what comes is checked: it costs the server the least. */
  get #algorithm(): NonNullable<TakeBackupOptions['manifestChecksums']> {
    return this.#options.manifestChecksums ?? 'CRC32C';
  }

  #report(): void {
    const stored = this.#objects?.stored.reduce((sum, { size }) => sum + size, 0) ?? 0;
    const files = this.#sink?.files.size ?? 0;
    this.#options.onProgress?.({ ...this.#progress, stored, files });
  }
}

/** What the server has outside its data directory, under names that every place takes. */
async function putOutside(
  objects: BackupObjects,
  files: NonNullable<BackupFacts['configuration']['files']>,
): Promise<OutsideFile[]> {
  const outside: OutsideFile[] = [];
  for (const { path, kind, content } of files) {
    const plain = basename(path)
      .slice(-200)
      .replace(/[^A-Za-z0-9._-]/g, '_');
    const object = `outside/${String(outside.length).padStart(3, '0')}-${plain}`;
    if (content) await objects.put(object, content);
    outside.push({ path, kind, ...(content ? { object } : {}) });
  }
  return outside;
}
