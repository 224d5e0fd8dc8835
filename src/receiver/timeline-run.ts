import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ReplicationConnection } from '../connection/connection.js';
import { FsyncError, RewriteError, type WalkeepError } from '../errors.js';
import { BulkStage } from '../storage/bulk-stage.js';
import { type CompressOptions, compressFile } from '../storage/codec.js';
import { compressPartial } from '../storage/compressed-partial.js';
import type { FileSystem } from '../storage/file-system.js';
import { temporaryName } from '../storage/leftovers.js';
import type { OpenSegment } from '../storage/open-segment.js';
import { StreamProgress } from '../storage/progress.js';
import { SegmentFinisher } from '../storage/segment-finisher.js';
import { SegmentWriter } from '../storage/segment-writer.js';
import type { WalFault } from '../wal/fault.js';
import { compressionSuffix, segmentStart } from '../wal/file-name.js';
import { formatLsn, type Lsn } from '../wal/lsn.js';
import { type TimelineHistory, timelineAt } from '../wal/timeline.js';
import type { WalVerifier } from '../wal/verifier.js';
import type { WalOptions } from '../wal/walker.js';
import type { Archive } from './archive.js';
import { type VerifyMode, WalInspector } from './inspector.js';
import { RECEIVE_TIMEOUT, type WalReceiverOptions } from './options.js';
import type { WalReceiver } from './receiver.js';
import { storedStart } from './stored-start.js';
import { type StreamOutcome, StreamSession } from './stream.js';
import type { WalTarget } from './wal-target.js';
import type { Phase } from './watchdog.js';

/** Milliseconds between entries of the acknowledged position in the ledger. */
const LEDGER_INTERVAL = 10_000;

/** Segment size up to which the start waits for a zero-filled first segment, bytes. */
const SPARE_WAIT = 64 * 1024 * 1024;

/** One stream of one timeline into the directory: writer, finisher, compression, ledger. */
export class TimelineRun {
  private readonly o: WalReceiverOptions;
  private readonly connection: ReplicationConnection;
  private readonly archive: Archive;
  private readonly at: { lsn: Lsn; timeline: number };
  private readonly owner: WalReceiver;
  private readonly progress: StreamProgress;
  private readonly sync: boolean;
  private readonly fs: FileSystem;
  private history: TimelineHistory | undefined;
  private session: StreamSession | undefined;
  private recordedAt = performance.now();
  private recorded = 0;
  /** The file that a warning told of last. */
  private refilled = '';

  constructor(
    o: WalReceiverOptions,
    connection: ReplicationConnection,
    archive: Archive,
    at: { lsn: Lsn; timeline: number },
    owner: WalReceiver,
  ) {
    this.o = o;
    this.connection = connection;
    this.archive = archive;
    this.at = at;
    this.owner = owner;
    this.progress = new StreamProgress(at.lsn);
    this.sync = o.sync !== false;
    this.fs = archive.fs;
  }

  /** @param onPhase called when the server agreed to stream, and when its end is waited for */
  async stream(signal: AbortSignal, onPhase: (phase: Phase) => void): Promise<StreamOutcome> {
    const { o, at, archive } = this;
    const mode = archive.server.fileMode;
    // The server may have been on an ancestor yet when it was asked for its own.
    this.history = await archive.history(this.connection, at.timeline);
    const { anchored, compareUntil, soundUntil } = await storedStart({
      ...{ directory: o.directory, archive, sync: this.sync, fs: this.fs },
      wal: this.walOptions,
      verify: this.verifyMode,
      warn: (warning) => this.owner.tell('warning', warning),
    });
    const finisher = this.makeFinisher();
    const writer = new SegmentWriter({
      directory: o.directory,
      segmentSize: archive.server.segmentSize,
      timeline: at.timeline,
      mode,
      sync: this.sync,
      ...{ compareUntil, soundUntil },
      progress: this.progress,
      finisher,
      fs: this.fs,
      directIo: this.directIo,
      onRefill: (lsn, path, fresh) => this.tellRefill(lsn, path, fresh),
    });
    const stage = this.directIo ? makeStage(archive.server.segmentSize) : undefined;
    try {
      if (o.synchronous) {
        const spare = writer.prepareSpare();
        // Worth waiting for unless it would take seconds: only the first segment is affected.
        if (archive.server.segmentSize <= SPARE_WAIT) await spare;
      }
      const target = this.makeTarget(writer, stage, () => onPhase('ending'));
      this.session = this.makeSession(target, this.makeInspector(anchored));
      return await this.session.run(signal, () => onPhase('stream'));
    } catch (e) {
      const checked = this.verifyMode === 'strict';
      if (checked && e instanceof RewriteError) this.owner.refusals.noteRewrite(e);
      // Whatever ended the stream: keep and sync what was written. A failed sync outweighs it.
      const outweighed = (later: unknown): void => {
        if (later instanceof FsyncError) throw later;
      };
      await writer.close().catch(outweighed);
      await this.recordFlushed().catch(outweighed);
      throw e;
    } finally {
      stage?.close();
      this.noteStored();
    }
  }

  /** Refused WAL that came right must not be asked for once more: it may be gone by then. */
  private noteStored(): void {
    const { progress, history, owner } = this;
    if (history) owner.refusals.stored(progress.lsn(progress.written), history);
  }

  private tellRefill(lsn: Lsn, path: string, fresh: boolean): void {
    const { archive, at } = this;
    // What was stored and not acknowledged may have lost sectors in a power cut. A complete segment
    // in which WAL was refused is received into a new file.
    if (archive.asksAgain || lsn >= archive.acknowledged(at.timeline)) return;
    // Nor is a complete segment gone that another program moved away.
    const { timeline, completeLsn = 0n } = archive.ledger.state;
    if (fresh && timeline === at.timeline && lsn < completeLsn) return;
    if (this.refilled === path) return;
    this.refilled = path;
    this.owner.tell('warning', {
      code: 'WK_REFILL',
      message: fresh
        ? `"${path}" was gone with acknowledged WAL from ${formatLsn(lsn)} on; it is received again`
        : `"${path}" had lost acknowledged WAL from ${formatLsn(lsn)} on; it is received again`,
      hint: fresh
        ? 'Find out who removes files that are being received.'
        : 'The disk confirmed syncs that it did not do; check its write cache.',
    });
  }

  /** Past the page cache, unless the files are read again at once to be compressed. */
  private get directIo(): boolean {
    return this.o.directIo !== false && this.compressOptions === undefined;
  }

  /** The writer as the stream's target; its clean end gives an incomplete segment its name. */
  private makeTarget(
    writer: SegmentWriter,
    stage: BulkStage | undefined,
    onClosed: () => void,
  ): WalTarget {
    return {
      ...(stage ? { stage } : {}),
      writeSync: (chunks) => writer.writeSync(chunks),
      writeSynced: (chunks) => writer.writeSynced(chunks),
      write: (chunks) => writer.write(chunks),
      syncSync: () => writer.syncSync(),
      sync: () => writer.sync(),
      get pending() {
        return writer.pending;
      },
      close: async () => {
        await this.onClosed(await writer.close());
        onClosed();
      },
    };
  }

  private get verifyMode(): VerifyMode {
    return this.o.verify ?? 'strict';
  }

  private get walOptions(): WalOptions & { segmentSize: number; timeline: number } {
    const { at, archive, history } = this;
    return {
      startLsn: at.lsn,
      segmentSize: archive.server.segmentSize,
      timeline: at.timeline,
      ...(history ? { history } : {}),
      systemId: archive.server.systemId,
    };
  }

  private makeInspector(anchored: WalVerifier | undefined): WalInspector | undefined {
    const mode = this.verifyMode;
    if (mode === 'off') return undefined;
    return new WalInspector({
      ...this.walOptions,
      mode,
      anchored,
      onFault: (fault) => this.noteDamage(fault),
      onUnknownMagic: (magic) =>
        this.owner.tell('warning', {
          code: 'WK_UNKNOWN_MAGIC',
          message: `WAL pages have the unknown magic 0x${magic.toString(16).toUpperCase()}: a server newer than this program, or a fork; flags are not judged`,
        }),
    });
  }

  /** Bad WAL that is stored all the same (verify: warn): said, and kept in the ledger. */
  private noteDamage(fault: WalFault): void {
    const { timeline } = this.at;
    const message = `received WAL is damaged: ${fault.message} at ${formatLsn(fault.lsn)} (timeline ${timeline}); stored as it is`;
    this.owner.tell('warning', { code: 'WK_CORRUPT_WAL', message });
    this.archive
      .record({ type: 'damage', lsn: fault.lsn, timeline, why: fault.message })
      .catch((e) => this.session?.onFailure(e));
  }

  /** Keeps refused bytes as evidence in a dotfile; the archive itself gets none of them. */
  private keepEvidence(lsn: Lsn, bytes: Buffer, verifiedEnd: Lsn, error: WalkeepError): void {
    const end = (lsn + BigInt(bytes.length)) as Lsn;
    const { timeline: streamed } = this.at;
    // Before the start it may lie on an ancestor, whose stream leads here again.
    const timeline = this.history ? timelineAt(this.history, verifiedEnd) : streamed;
    this.noteStored();
    this.owner.refusals.note({ timeline, streamed, verifiedEnd, end, error });
    const place = formatLsn(lsn).replace('/', '-');
    const path = join(this.o.directory, `.walkeep-refused-${this.at.timeline}-${place}`);
    try {
      writeFileSync(path, bytes, { mode: this.archive.server.fileMode });
    } catch (e) {
      // Without the evidence the refusal stands all the same.
      const message = `could not keep refused WAL in "${path}": ${(e as Error).message}`;
      this.owner.tell('warning', { code: 'WK_EVIDENCE', message });
    }
  }

  private makeSession(target: WalTarget, inspector: WalInspector | undefined): StreamSession {
    const { o, at } = this;
    const synchronous = o.synchronous ?? false;
    return new StreamSession({
      connection: this.connection,
      timeline: at.timeline,
      progress: this.progress,
      target,
      ...(inspector ? { inspector } : {}),
      onRefused: (...refused) => this.keepEvidence(...refused),
      synchronous,
      writeReport: this.archive.writeReport,
      applyIsFlush: o.apply === 'flush',
      reportFlush: synchronous || o.slot !== undefined,
      statusInterval: o.statusInterval ?? 10_000,
      receiveTimeout: o.receiveTimeout ?? RECEIVE_TIMEOUT,
      onProgress: (serverEnd) => this.onProgress(serverEnd),
      ...(o.slot === undefined ? {} : { slot: o.slot }),
      ...(o.endLsn === undefined ? {} : { endLsn: o.endLsn }),
    });
  }

  private makeFinisher(): SegmentFinisher {
    const { o, archive } = this;
    const options = this.compressOptions;
    return new SegmentFinisher({
      directory: o.directory,
      segmentSize: archive.server.segmentSize,
      sync: this.sync,
      progress: this.progress,
      fs: this.fs,
      record: (lsn, timeline) => archive.record({ type: 'complete', lsn, timeline }),
      ...(options ? { convert: (s: OpenSegment) => this.compress(s, options) } : {}),
      onFinished: ({ end, timeline, path }) =>
        this.owner.tell('segment', {
          lsn: end,
          timeline,
          path,
          size: archive.server.segmentSize,
        }),
      onProgress: () => this.session?.regulate(),
      onFailure: (error) => this.session?.onFailure(error),
    });
  }

  private get compressOptions(): CompressOptions | undefined {
    const { method, level } = this.o.compression ?? { method: 'none' };
    if (method === 'none') return undefined;
    const { fileMode } = this.archive.server;
    const { sync, fs } = this;
    return { method, mode: fileMode, sync, fs, ...(level === undefined ? {} : { level }) };
  }

  /** Stores a full segment compressed under a dotfile's name, durably. */
  private async compress(segment: OpenSegment, options: CompressOptions) {
    const name = `${segment.name}${compressionSuffix(options.method)}`;
    const temporary = join(this.o.directory, temporaryName(name));
    await compressFile(segment.path, temporary, this.archive.server.segmentSize, options).catch(
      async (e) => {
        // Space is given back at once where its lack was the cause.
        await this.fs.unlink(temporary).catch(() => {});
        throw e;
      },
    );
    return { temporary, name };
  }

  /**
   * The writer closed at a clean end; the incomplete segment keeps a partial name. With compression
   * it gets its compressed form now, which replaces the plain one only once it is durable.
   */
  private async onClosed(open: OpenSegment | undefined): Promise<void> {
    await this.recordFlushed();
    if (!open) return;
    const options = this.compressOptions;
    const { segmentSize } = this.archive.server;
    const file = options
      ? await compressPartial(open, this.knownOf(open), options, {
          ...{ directory: this.o.directory, segmentSize, fs: this.fs },
        })
      : `${open.name}.partial`;
    this.owner.tell('partial', { file });
  }

  /** Bytes of a segment that are written or acknowledged, also by an earlier stream. */
  private knownOf({ segment, timeline, begin }: OpenSegment): number {
    const { segmentSize } = this.archive.server;
    const acknowledged = this.archive.acknowledged(timeline) - segmentStart(segment, segmentSize);
    const known = Math.max(this.progress.written - begin, Number(acknowledged));
    return Math.min(known, segmentSize);
  }

  private onProgress(serverEnd: Lsn): void {
    const { progress, at } = this;
    this.owner.tell('progress', {
      received: progress.lsn(progress.received),
      written: progress.lsn(progress.written),
      flushed: progress.lsn(progress.flushed),
      serverEnd,
      timeline: at.timeline,
    });
    if (progress.received === 0) return;
    this.noteStored();
    this.owner.noteProgress();
    const due = performance.now() - this.recordedAt >= LEDGER_INTERVAL;
    const recorded = due ? this.recordFlushed() : this.archive.record();
    recorded.catch((e) => this.session?.onFailure(e));
  }

  /** Notes in the ledger what was made durable, so that it is compared if it comes again. */
  private async recordFlushed(): Promise<void> {
    const { flushed } = this.progress;
    this.recordedAt = performance.now();
    if (!this.sync || flushed <= this.recorded) return;
    this.recorded = flushed;
    const lsn = this.progress.lsn(flushed);
    await this.archive.record({ type: 'flushed', lsn, timeline: this.at.timeline });
  }
}

/** None where there is no memory for it: WAL is written as it comes then. */
function makeStage(segmentSize: number): BulkStage | undefined {
  try {
    return new BulkStage(segmentSize);
  } catch {
    return undefined;
  }
}
