import { join } from 'node:path';
import { writeEvidence } from '../archive/evidence.js';
import { anchoredVerifier } from '../archive/lead-in.js';
import { comesAgain } from '../archive/ledger-entry.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { FsyncError, RewriteError, SinkError, type WalkeepError } from '../errors.js';
import type { FileSystem } from '../files/file-system.js';
import { formatLsn, type Lsn } from '../lsn.js';
import type { WalFault } from '../wal/fault.js';
import { type TimelineHistory, timelineAt } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import type { WalOptions } from '../wal/walker.js';
import { type VerifyMode, WalInspector } from './inspector.js';
import { RECEIVE_TIMEOUT, type ReceiverEvents, type WalReceiverOptions } from './options.js';
import type { Refusals } from './refusals.js';
import type { ReceivingDirectory } from './start/receiving-directory.js';
import { type StoredStart, storedStart } from './start/stored-start.js';
import { type StreamOutcome, StreamSession } from './stream.js';
import { openDirectoryTarget } from './target/directory-target.js';
import type { WriteReport } from './target/paced-target.js';
import type { FinishedSegment } from './target/segment-finisher.js';
import type { SyncTimes } from './target/sync-times.js';
import type { WalTarget } from './target/wal-target.js';
import type { Phase } from './watchdog.js';

/** Milliseconds between entries of the acknowledged position in the ledger. */
const LEDGER_INTERVAL = 10_000;

/** What a run tells the receiver that it is part of. */
export interface RunOwner {
  /** WAL that failed the check and is asked for again. */
  readonly refusals: Refusals;
  /** When the write position is told. */
  readonly writeReport: WriteReport;
  readonly syncTimes?: SyncTimes;
  tell<K extends keyof ReceiverEvents>(event: K, ...args: ReceiverEvents[K]): void;
  /** Awaited for each segment that has its final name. */
  finished?(segment: FinishedSegment): Promise<void>;
  /** WAL was stored for a while: the next failure is a new one. */
  noteProgress(): void;
  /** True while a primary of a later timeline is seen, which goes on from this one. */
  outrun?(timeline: number): boolean;
}

/** One stream of one timeline into the directory: what it finds, its target, checks and ledger. */
export class TimelineRun {
  private readonly o: WalReceiverOptions;
  private readonly connection: ReplicationConnection;
  private readonly archive: ReceivingDirectory;
  private readonly at: { lsn: Lsn; timeline: number };
  private readonly owner: RunOwner;
  private readonly sync: boolean;
  private readonly fs: FileSystem;
  private history: TimelineHistory | undefined;
  private target: WalTarget | undefined;
  private session: StreamSession | undefined;
  private recordedAt = performance.now();
  private recorded = 0;
  /** The segment that is being handed on. */
  private handedOn: string | undefined;
  /** The file that a warning told of last. */
  private refilled = '';

  constructor(
    o: WalReceiverOptions,
    connection: ReplicationConnection,
    archive: ReceivingDirectory,
    at: { lsn: Lsn; timeline: number },
    owner: RunOwner,
  ) {
    this.o = o;
    this.connection = connection;
    this.archive = archive;
    this.at = at;
    this.owner = owner;
    this.sync = o.sync !== false;
    this.fs = archive.fs;
  }

  /** Up to where WAL was taken and written. */
  get stored(): Lsn {
    const positions = this.target?.positions;
    return positions ? positions.lsn(positions.written) : this.at.lsn;
  }

  /** @param onPhase called when the server agreed to stream, and when its end is waited for */
  async stream(signal: AbortSignal, onPhase: (phase: Phase) => void): Promise<StreamOutcome> {
    const { o, at, archive } = this;
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
    this.target = await this.openTarget(stored);
    try {
      this.session = this.makeSession(this.target, this.makeInspector(anchored));
      return await this.session.run(signal, onPhase);
    } catch (e) {
      const checked = this.verifyMode === 'strict';
      if (checked && e instanceof RewriteError) this.owner.refusals.noteRewrite(e);
      // Whatever ended the stream: keep and sync what was written. What no other connection mends
      // outweighs it: a failed sync, and what the caller threw.
      const outweighed = (later: unknown): void => {
        if (later instanceof FsyncError || later instanceof SinkError) throw later;
      };
      await this.target.abandon().catch(outweighed);
      await this.recordFlushed().catch(outweighed);
      throw e;
    } finally {
      this.noteStored();
    }
  }

  /** Refused WAL that came right must not be asked for once more: it may be gone by then. */
  private noteStored(): void {
    if (this.history) this.owner.refusals.stored(this.stored, this.history);
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
      outrun: () => this.owner.outrun?.(at.timeline) ?? false,
      waitsFor: () => this.handedOn && `onSegment, called for "${this.handedOn}",`,
      onProgress: (received, serverEnd) => this.onProgress(received, serverEnd),
      ...(o.probeAfter === undefined ? {} : { probeAfter: o.probeAfter }),
      ...(o.slot === undefined ? {} : { slot: o.slot }),
      ...(o.endLsn === undefined ? {} : { endLsn: o.endLsn }),
    });
  }

  /** Where the stream goes: all that the acknowledgement waits for. */
  private openTarget(stored: Omit<StoredStart, 'anchored'>): Promise<WalTarget> {
    const { o, at, archive, owner } = this;
    const { segmentSize, fileMode } = archive.server;
    return openDirectoryTarget({
      ...{ directory: o.directory, timeline: at.timeline, startLsn: at.lsn, segmentSize },
      ...{ mode: fileMode, sync: this.sync, fs: this.fs, ...stored },
      ...{ synchronous: o.synchronous ?? false, writeReport: owner.writeReport },
      ...{ syncInterval: o.syncInterval, syncTimes: owner.syncTimes },
      ...{ compression: o.compression, directIo: o.directIo },
      record: (lsn, timeline) => archive.record({ type: 'complete', lsn, timeline }),
      recordFlushed: () => this.recordFlushed(),
      acknowledged: () => archive.acknowledged(at.timeline),
      verifierAt: (startLsn) => this.verifierAt(startLsn),
      onRefill: (lsn, path, fresh) => this.tellRefill(lsn, path, fresh),
      onRepair: ({ begin, why }, path) =>
        owner.tell('warning', {
          code: 'WK_STORED_DAMAGE',
          message: `"${path}" is damaged in the record at ${formatLsn(begin)}: ${why}; what comes again of that record takes its place`,
        }),
      oneByOne: o.onSegment !== undefined,
      onFinished: async (segment) => {
        this.handedOn = segment.path;
        await owner.finished?.(segment);
        this.handedOn = undefined;
      },
      onPartial: (file) => owner.tell('partial', { file }),
    });
  }

  private async verifierAt(startLsn: Lsn): Promise<WalVerifier> {
    const wal = { ...this.walOptions, startLsn };
    const anchored = await anchoredVerifier(this.o.directory, wal, this.fs);
    return anchored ?? new WalVerifier(wal);
  }

  private onProgress(received: Lsn, serverEnd: Lsn): void {
    const { target, at } = this;
    if (!target) return;
    const { positions } = target;
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
    this.recordedAt = performance.now();
    if (!this.target || !this.sync) return;
    const { positions } = this.target;
    const { flushed } = positions;
    if (flushed <= this.recorded) return;
    this.recorded = flushed;
    const lsn = positions.lsn(flushed);
    await this.archive.record({ type: 'flushed', lsn, timeline: this.at.timeline });
  }
}
