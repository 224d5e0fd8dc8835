import { join } from 'node:path';

import { writeEvidence } from '../archive/evidence.js';

import { anchoredVerifier } from '../archive/lead-in.js';

import { comesAgain } from '../archive/ledger-entry.js';
import { temporaryName } from '../archive/leftovers.js';
import { type CompressOptions, compressFile } from '../codec/codec.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { FsyncError, RewriteError, type WalkeepError } from '../errors.js';
import type { FileSystem } from '../files/file-system.js';
import { formatLsn, type Lsn } from '../lsn.js';
import type { WalFault } from '../wal/fault.js';
import { compressionSuffix, segmentStart } from '../wal/file-name.js';
import { type TimelineHistory, timelineAt } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import type { WalOptions } from '../wal/walker.js';
import { type VerifyMode, WalInspector } from './inspector.js';
import { RECEIVE_TIMEOUT, type ReceiverEvents, type WalReceiverOptions } from './options.js';
import type { Refusals } from './refusals.js';
import type { Archive } from './start/receiving-directory.js';
import { storedStart } from './start/stored-start.js';
import { type StreamOutcome, StreamSession } from './stream.js';
import { compressPartial } from './target/compressed-partial.js';
import type { OpenSegment } from './target/open-segment.js';
import { PacedTarget, type WriteReport } from './target/paced-target.js';
import { TargetPositions } from './target/positions.js';
import { SegmentFinisher } from './target/segment-finisher.js';
import { SegmentWriter } from './target/segment-writer.js';
import type { WalTarget } from './target/wal-target.js';
import type { Phase } from './watchdog.js';

/** Milliseconds between entries of the acknowledged position in the ledger. */
const LEDGER_INTERVAL = 10_000;

/** Segment size up to which the start waits for a zero-filled first segment, bytes. */
const SPARE_WAIT = 64 * 1024 * 1024;

/** What a run tells the receiver that it is part of. */
export interface RunOwner {
  /** WAL that failed the check and is asked for again. */
  readonly refusals: Refusals;
  /** When the write position is told. */
  readonly writeReport: WriteReport;
  tell<K extends keyof ReceiverEvents>(event: K, ...args: ReceiverEvents[K]): void;
  /** WAL was stored for a while: the next failure is a new one. */
  noteProgress(): void;
}

/** One stream of one timeline into the directory: writer, finisher, compression, ledger. */
export class TimelineRun {
  private readonly o: WalReceiverOptions;
  private readonly connection: ReplicationConnection;
  private readonly archive: Archive;
  private readonly at: { lsn: Lsn; timeline: number };
  private readonly owner: RunOwner;
  private readonly positions: TargetPositions;
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
    owner: RunOwner,
  ) {
    this.o = o;
    this.connection = connection;
    this.archive = archive;
    this.at = at;
    this.owner = owner;
    this.positions = new TargetPositions(at.lsn);
    this.sync = o.sync !== false;
    this.fs = archive.fs;
  }

  /** Up to where WAL was taken and written. */
  get stored(): Lsn {
    return this.positions.lsn(this.positions.written);
  }

  /** @param onPhase called when the server agreed to stream, and when its end is waited for */
  async stream(signal: AbortSignal, onPhase: (phase: Phase) => void): Promise<StreamOutcome> {
    const { o, at, archive } = this;
    const mode = archive.server.fileMode;
    // The server may have been on an ancestor yet when it was asked for its own.
    this.history = await archive.history(this.connection, at.timeline);
    const { anchored, ...stored } = await storedStart({
      ...{ directory: o.directory, archive, sync: this.sync, fs: this.fs },
      wal: this.walOptions,
      checked: this.verifyMode !== 'off',
      refuses: this.verifyMode === 'strict',
      warn: (warning) => this.owner.tell('warning', warning),
    });
    await archive.noteAgain(at.lsn, at.timeline);
    const finisher = this.makeFinisher();
    const writer = new SegmentWriter({
      directory: o.directory,
      segmentSize: archive.server.segmentSize,
      timeline: at.timeline,
      mode,
      sync: this.sync,
      ...stored,
      positions: this.positions,
      finisher,
      fs: this.fs,
      directIo: this.directIo,
      onRefill: (lsn, path, fresh) => this.tellRefill(lsn, path, fresh),
      onRepair: ({ begin, why }, path) =>
        this.owner.tell('warning', {
          code: 'WK_STORED_DAMAGE',
          message: `"${path}" is damaged in the record at ${formatLsn(begin)}: ${why}; what comes again of that record takes its place`,
        }),
    });
    try {
      if (o.synchronous) {
        const spare = writer.prepareSpare();
        // Worth waiting for unless it would take seconds: only the first segment is affected.
        if (archive.server.segmentSize <= SPARE_WAIT) await spare;
      }
      const target = this.makeTarget(writer, () => onPhase('ending'));
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
      this.noteStored();
    }
  }

  /** Refused WAL that came right must not be asked for once more: it may be gone by then. */
  private noteStored(): void {
    const { positions, history, owner } = this;
    if (history) owner.refusals.stored(positions.lsn(positions.written), history);
  }

  private tellRefill(lsn: Lsn, path: string, fresh: boolean): void {
    const { archive, at } = this;
    // What was stored and not acknowledged may have lost sectors in a power cut. A complete segment
    // in which WAL was refused is received into a new file.
    if (archive.asksAgain || lsn >= archive.acknowledged(at.timeline)) return;
    // Nor is a complete segment gone that another program moved away, and what came again of it
    // since is not all that there was.
    if (comesAgain(archive.ledger.state, lsn)) return;
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

  /** The stream's target; its clean end gives an incomplete segment its name. */
  private makeTarget(writer: SegmentWriter, onClosed: () => void): WalTarget {
    return new PacedTarget({
      destination: writer,
      close: async () => {
        await this.onClosed(await writer.close());
        onClosed();
      },
      positions: this.positions,
      synchronous: this.o.synchronous ?? false,
      writeReport: this.owner.writeReport,
    });
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
      writeEvidence(path, bytes, { mode: this.archive.server.fileMode, fs: this.fs });
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
      target,
      ...(inspector ? { inspector } : {}),
      onRefused: (...refused) => this.keepEvidence(...refused),
      synchronous,
      applyIsFlush: o.apply === 'flush',
      reportFlush: synchronous || o.slot !== undefined,
      statusInterval: o.statusInterval ?? 10_000,
      receiveTimeout: o.receiveTimeout ?? RECEIVE_TIMEOUT,
      onProgress: (received, serverEnd) => this.onProgress(received, serverEnd),
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
      positions: this.positions,
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
      onProgress: () => this.session?.onRoom(),
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
          verifier: () => this.verifierAt(segmentStart(open.segment, segmentSize)),
        })
      : `${open.name}.partial`;
    this.owner.tell('partial', { file });
  }

  private async verifierAt(startLsn: Lsn): Promise<WalVerifier> {
    const wal = { ...this.walOptions, startLsn };
    const anchored = await anchoredVerifier(this.o.directory, wal, this.fs);
    return anchored ?? new WalVerifier(wal);
  }

  /** Bytes of a segment that are written or acknowledged, also by an earlier stream. */
  private knownOf({ segment, timeline, begin }: OpenSegment): number {
    const { segmentSize } = this.archive.server;
    const acknowledged = this.archive.acknowledged(timeline) - segmentStart(segment, segmentSize);
    const known = Math.max(this.positions.written - begin, Number(acknowledged));
    return Math.min(known, segmentSize);
  }

  private onProgress(received: Lsn, serverEnd: Lsn): void {
    const { positions, at } = this;
    this.owner.tell('progress', {
      received,
      written: positions.lsn(positions.written),
      flushed: positions.lsn(positions.flushed),
      serverEnd,
      timeline: at.timeline,
    });
    if (received === at.lsn) return;
    this.noteStored();
    this.owner.noteProgress();
    const due = performance.now() - this.recordedAt >= LEDGER_INTERVAL;
    const recorded = due ? this.recordFlushed() : this.archive.record();
    recorded.catch((e) => this.session?.onFailure(e));
  }

  /** Notes in the ledger what was made durable, so that it is compared if it comes again. */
  private async recordFlushed(): Promise<void> {
    const { flushed } = this.positions;
    this.recordedAt = performance.now();
    if (!this.sync || flushed <= this.recorded) return;
    this.recorded = flushed;
    const lsn = this.positions.lsn(flushed);
    await this.archive.record({ type: 'flushed', lsn, timeline: this.at.timeline });
  }
}
