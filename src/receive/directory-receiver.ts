import { readStoredHistory } from '../archive/history.js';
import type { Ledger } from '../archive/ledger.js';
import { GROUP_READ } from '../archive/places/group-access.js';
import type { ReplicationConnection } from '../connection/connection.js';
import {
  RewriteError,
  SystemIdentifierError,
  TimelineConflictError,
  type WalkeepError,
  WalRemovedError,
} from '../errors.js';
import { type FileSystem, nodeFileSystem } from '../files/file-system.js';
import { INVALID_LSN, type Lsn } from '../lsn.js';
import { readServerState, type ServerState } from '../server/server-state.js';
import type { TimelineHistory } from '../wal/timeline.js';
import type { ReceivedSegment, ReceiverEvents, WalReceiverOptions } from './options.js';
import { Refusals } from './refusals.js';
import { mayRetry } from './retry.js';
import { explainBehind, isSameWal } from './start/compare-server.js';
import type { Bridge } from './start/find-start.js';
import { ReceivingDirectory } from './start/receiving-directory.js';
import { type AskedStream, RemovedWal } from './start/removed-wal.js';
import type { WriteReport } from './target/paced-target.js';
import type { FinishedSegment } from './target/segment-finisher.js';
import { SyncTimes } from './target/sync-times.js';
import { type RunOwner, TimelineRun } from './timeline-run.js';
import { followTimelines, type WalPlace } from './timelines.js';
import type { Phase } from './watchdog.js';

export type StopReason = ReceiverEvents['stop'][0]['reason'];

/** What is around a DirectoryReceiver. */
export interface Surroundings {
  tell: RunOwner['tell'];
  /** Awaited for each segment that has its final name, before a later one gets it. */
  handOn?: ((segment: ReceivedSegment) => Promise<void>) | undefined;
  /** WAL was stored for a while, or a timeline ended in good order. */
  onHeadway(): void;
  /** Asked on each connection. */
  chooseWriteReport(connection: ReplicationConnection, signal: AbortSignal): Promise<WriteReport>;
  /** A timeline was left, where it may have been received further. */
  onLeft?(timeline: number, way: TimelineHistory): void;
  /** True while a primary of a later timeline is seen elsewhere. */
  outrun?(timeline: number): boolean;
  /**
   * Takes what follows `from` from other archives of the cluster; says how many segments that were.
   * @throws BackfillError, the signal's reason
   */
  backfill?(from: Lsn, server: ServerState, ledger: Ledger, signal: AbortSignal): Promise<number>;
  /** A stream is about to begin. */
  onServer?(server: ServerState): void;
  /** Absent: the disk. */
  fs?: FileSystem;
}

/**
 * Receives into a directory over one connection after the other, which it is given, and remembers
 * between them what they came to: WAL that was refused, or that the server lacks; what was doubted.
 * That decides where the next one starts, and whether it helps.
 */
export class DirectoryReceiver {
  /** The last position received, over all streams. */
  last: WalPlace = { lsn: INVALID_LSN, timeline: 0 };
  /** Of all streams. */
  readonly syncTimes = new SyncTimes();
  private readonly o: WalReceiverOptions;
  private readonly around: Surroundings;
  private readonly fs: FileSystem;
  private connectedOnce = false;
  private streamed = false;
  /** The stream asked for last on this connection. */
  private asked: AskedStream | undefined;
  /** What servers said that they lack. */
  private readonly removed = new RemovedWal();
  /** WAL that failed the check and is asked for again. */
  private readonly refusals = new Refusals();
  /** A slot that the server refused as invalid is created anew, once before WAL comes again. */
  private slotInvalid: 'no' | 'replace' | 'replaced' = 'no';
  /** The server lacks what follows, and other archives have to be asked, or were in vain. */
  private bridge: 'no' | 'wanted' | 'vain' = 'no';
  /** A server that contradicts what is stored was asked once more, with no WAL since. */
  private doubted = false;
  /** The server's WAL before this position was found to be what is stored. */
  private compared: WalPlace['lsn'] | undefined;

  constructor(options: WalReceiverOptions, around: Surroundings) {
    this.o = options;
    this.around = around;
    this.fs = around.fs ?? nodeFileSystem;
  }

  /** Times that WAL which came was not stored. */
  get refused(): number {
    return this.refusals.total;
  }

  /**
   * Streams over a connection, timeline after timeline, until a stop.
   * @param onPhase told what the connection is at; it begins with `command`
   */
  async serve(
    connection: ReplicationConnection,
    signal: AbortSignal,
    onPhase: (phase: Phase) => void,
  ): Promise<StopReason> {
    const { o, fs } = this;
    const { tell } = this.around;
    const warn = (code: string, message: string) => tell('warning', { code, message });
    this.asked = undefined;
    const server = await readServerState(connection, {
      read: (timeline) => readStoredHistory(o.directory, timeline, fs),
      warn,
    });
    if (o.allowGroupAccess) server.fileMode |= GROUP_READ;
    this.connectedOnce = true;
    tell('connect', {
      host: connection.target.host,
      port: connection.target.port,
      serverVersion: connection.serverVersion,
      systemId: server.systemId,
      timeline: server.timeline,
      flushLsn: server.flushLsn,
    });
    const writeReport = await this.around.chooseWriteReport(connection, signal);
    const archive = await ReceivingDirectory.open(o, connection, server, {
      removed: this.removed,
      slotInvalid: this.slotInvalid === 'replace',
      refused: this.refusals.current,
      finished: (segment) => this.finished(segment, server.segmentSize),
      slotCreated: (name) => tell('slot', { name }),
      ...{ warn, fs },
      bridge: this.bridgeTo(server, signal),
    });
    if (this.slotInvalid === 'replace') this.slotInvalid = 'replaced';
    try {
      const left = archive.ledger.state.timeline;
      if (left !== undefined && left !== server.timeline)
        this.around.onLeft?.(left, server.history);
      const { lsn, timeline } = archive.start;
      await this.compareFirst(connection, archive);
      tell('start', { lsn, timeline });
      this.around.onServer?.(server);
      const stopped = await followTimelines({ lsn, timeline }, o.endLsn, {
        stream: (at) => this.stream(connection, archive, at, writeReport, signal, onPhase),
        follow: async (at, received, end) => {
          onPhase('command');
          const next = await archive.follow(connection, at.timeline, end);
          if (received > end.startLsn) {
            this.around.onLeft?.(at.timeline, await archive.history(connection, next.timeline));
          }
          tell('timeline', { timeline: next.timeline, lsn: received });
          this.around.onHeadway();
          return next;
        },
      });
      this.last = { lsn: stopped.lsn, timeline: stopped.timeline };
      return stopped.reason === 'endpos' ? 'endpos' : 'signal';
    } finally {
      await archive.close();
    }
  }

  /**
   * Takes note of a connection that failed, and says whether another one may help: at once from
   * another start, later, or never.
   * @returns also the error to tell
   */
  afterFailure(error: WalkeepError): { again: 'at once' | 'later' | 'never'; error: WalkeepError } {
    if (this.makesSlotAnew(error)) {
      this.slotInvalid = 'replace';
      return { again: 'at once', error };
    }
    if (this.removed.leadsOn(error, this.asked)) return { again: 'at once', error };
    if (this.seeksBridge(error)) return { again: 'at once', error };
    if (this.mayPass(error)) return { again: 'later', error };
    return { again: 'never', error: this.refusals.final(error) };
  }

  private async stream(
    connection: ReplicationConnection,
    archive: ReceivingDirectory,
    at: WalPlace,
    writeReport: WriteReport,
    signal: AbortSignal,
    onPhase: (phase: Phase) => void,
  ) {
    const owner: RunOwner = {
      ...{ refusals: this.refusals, writeReport, tell: this.around.tell },
      syncTimes: this.syncTimes,
      finished: (segment) => this.finished(segment, archive.server.segmentSize),
      noteProgress: () => this.noteProgress(),
      outrun: (timeline) => this.around.outrun?.(timeline) ?? false,
    };
    const run = new TimelineRun(this.o, connection, archive, at, owner);
    onPhase('command');
    this.asked = this.asks(archive, at.timeline);
    try {
      const outcome = await run.stream(signal, (phase) => {
        onPhase(phase);
        this.streamed = true;
      });
      this.last = { lsn: outcome.lsn, timeline: at.timeline };
      return outcome;
    } catch (e) {
      // A stream begins anew at the start of a segment: that alone takes nothing back.
      const { last } = this;
      if (at.timeline !== last.timeline || run.stored > last.lsn) {
        this.last = { lsn: run.stored, timeline: at.timeline };
      }
      throw explainBehind(e, archive.server, at);
    }
  }

  /** What a stream is asked for, for the case that the server lacks it. */
  private asks(archive: ReceivingDirectory, timeline: number): AskedStream {
    const { history, segmentSize } = archive.server;
    // What came damaged is stored up to somewhere: a gap would begin before the stored end.
    const refused = this.refusals.current !== undefined;
    // pg_receivewal knows of no ledger and would have started at the server's position.
    const unknown = this.o.refuseGaps === false && archive.start.reason === 'ledger';
    return {
      ...{ timeline, history, segmentSize },
      completeBeyond: archive.completeBeyond && !refused,
      unproved: refused ? undefined : archive.unproved,
      // Not before those were asked who may have it.
      mayGoOver: (this.o.acceptGap === true || unknown) && !refused && !this.mayBridge,
    };
  }

  /** How other archives are asked for what the server lacks. */
  private bridgeTo(server: ServerState, signal: AbortSignal): Bridge | undefined {
    const { backfill } = this.around;
    if (!backfill) return undefined;
    return {
      wanted: this.bridge === 'wanted',
      cross: async (from, ledger) => {
        const taken = await backfill(from, server, ledger, signal);
        this.bridge = taken > 0 ? 'no' : 'vain';
        return taken;
      },
    };
  }

  /** True if nobody was asked yet for what the server lacks. */
  private get mayBridge(): boolean {
    return this.around.backfill !== undefined && this.bridge === 'no';
  }

  /** WAL that the server has removed another archive may have. */
  private seeksBridge(error: WalkeepError): boolean {
    // Without a name it is the slot that is invalid.
    if (!(error instanceof WalRemovedError) || error.file === undefined) return false;
    if (!this.mayBridge) return false;
    this.bridge = 'wanted';
    return true;
  }

  /** Once: a slot that the server invalidates, while it may still have the WAL that is wanted. */
  private makesSlotAnew(error: WalkeepError): boolean {
    const { ensureSlot, slot, reconnect } = this.o;
    if (!ensureSlot || slot === undefined || reconnect === false) return false;
    if (this.slotInvalid !== 'no') return false;
    return error instanceof WalRemovedError && error.sqlstate === '55000';
  }

  private mayPass(error: WalkeepError): boolean {
    if (this.o.reconnect === false) return false;
    if (!this.connectedOnce && this.o.retryFirstConnection === false) return false;
    const passes = this.refusals.mayAskAgain(error) || mayRetry(error, this.streamed);
    return passes || this.asksOnceMore(error);
  }

  /** What a server says of itself carries no checksum: on its way it may have been damaged. */
  private asksOnceMore(error: WalkeepError): boolean {
    const doubtful =
      error instanceof TimelineConflictError || error instanceof SystemIdentifierError;
    if (!doubtful || !this.streamed || this.doubted) return false;
    this.doubted = true;
    return true;
  }

  /**
   * Before WAL that does not fit is called damaged, and while the server's ends before the stored:
   * is it the server that is archived here?
   */
  private async compareFirst(
    connection: ReplicationConnection,
    archive: ReceivingDirectory,
  ): Promise<void> {
    const { server, start } = archive;
    const behind = server.timeline === start.timeline && server.flushLsn < start.lsn;
    const end =
      this.refusals.doubtedJoint(server.segmentSize) ?? (behind ? server.flushLsn : undefined);
    if (end === undefined || end === this.compared) return;
    try {
      await isSameWal(connection, this.o.directory, server, end, this.fs);
      this.compared = end;
    } catch (e) {
      // On its way it may have been the same.
      if (e instanceof RewriteError) this.refusals.noteRewrite(e);
      throw e;
    }
  }

  private async finished({ end, ...of }: FinishedSegment, size: number): Promise<void> {
    const segment = { lsn: end, ...of, size };
    this.around.tell('segment', segment);
    await this.around.handOn?.(segment);
  }

  /** A stream has stored WAL for a while: the next failure is a new one. */
  private noteProgress(): void {
    this.removed.reset();
    this.slotInvalid = 'no';
    this.bridge = 'no';
    this.doubted = false;
    this.around.onHeadway();
  }
}
