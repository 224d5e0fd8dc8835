import { EventEmitter } from 'node:events';
import { removeLeftovers } from '../archive/leftovers.js';
import { readStoredHistory } from '../archive/stored-history.js';
import { connect } from '../connection/connect.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { resolveSettings } from '../connection/conninfo/resolve.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import {
  AuthenticationError,
  ConnectionError,
  DiskFullError,
  InternalError,
  RewriteError,
  SystemIdentifierError,
  TimelineConflictError,
  WalkeepError,
  WalRemovedError,
} from '../errors.js';
import { nodeFileSystem } from '../files/file-system.js';
import { acquireDirectoryLock, type DirectoryLock, readLockHolder } from '../files/lock.js';
import { INVALID_LSN, type Lsn } from '../lsn.js';
import { readServerState } from '../server/server-state.js';
import { connectedStandbys, peerWarnings } from '../server/sync-peers.js';
import { readSyncStandby } from '../server/sync-standby.js';
import {
  checkReceiverOptions,
  RECEIVE_TIMEOUT,
  type ReceiverEvents,
  type WalReceiverOptions,
} from './options.js';
import { Refusals } from './refusals.js';
import { type AskedStream, RemovedWal } from './removed-wal.js';
import { abortableDelay, Backoff, mayRetry } from './retry.js';
import { explainBehind, isSameWal } from './start/compare-server.js';
import { Archive } from './start/receiving-directory.js';
import type { WriteReport } from './target/paced-target.js';
import { type RunOwner, TimelineRun } from './timeline-run.js';
import { type Phase, patient, Watchdog } from './watchdog.js';

type StopReason = ReceiverEvents['stop'][0]['reason'];

/**
 * Receives WAL from a PostgreSQL server into segment files, as pg_receivewal does, until its end
 * position or the abort signal; over lost connections, failovers and timeline switches.
 *
 * @example
 * const receiver = new WalReceiver({ connection: 'host=/run/postgresql', directory: '/archive' });
 * receiver.on('segment', ({ path }) => console.log(path));
 * await receiver.run(AbortSignal.timeout(60_000));
 */
export class WalReceiver extends EventEmitter<ReceiverEvents> implements RunOwner {
  private readonly o: WalReceiverOptions;
  private settings: ConnectionSettings | undefined;
  private readonly backoff: Backoff;
  private connectedOnce = false;
  private streamed = false;
  /** The last position received, over all streams. */
  private last: { lsn: Lsn; timeline: number } = { lsn: INVALID_LSN, timeline: 0 };
  /** The stream asked for last on this connection. */
  private asked: AskedStream | undefined;
  /** What servers said that they lack. */
  private readonly removed = new RemovedWal();
  /** A slot that the server refused as invalid is created anew, once before WAL comes again. */
  private slotInvalid: 'no' | 'replace' | 'replaced' = 'no';
  /** A server that contradicts what is stored was asked once more, with no WAL since. */
  private doubted = false;
  /** The server's WAL before this position was found to be what is stored. */
  private compared: Lsn | undefined;
  /** WAL that failed the check and is asked for again. */
  readonly refusals = new Refusals();
  /** Warnings about synchronous standbys, each said once. */
  private readonly toldSync = new Set<string>();
  /** Once is enough: every try that is refused stands in the server's log. */
  private askedPeers = false;

  constructor(options: WalReceiverOptions) {
    super();
    checkReceiverOptions(options);
    this.o = options;
    this.backoff = new Backoff(options.retryDelay);
  }

  /**
   * Runs until the end. One receiver runs once.
   * @returns the last position received
   * @throws WalkeepError what no retry can help, or any error with `reconnect: false`
   */
  async run(signal: AbortSignal = new AbortController().signal): Promise<Lsn> {
    const lock = await this.lock(signal);
    try {
      let reason: StopReason | undefined = lock ? undefined : 'signal';
      while (reason === undefined) reason = await this.attempt(signal);
      this.tell('stop', { ...this.last, reason });
      return this.last.lsn;
    } finally {
      await lock?.release();
    }
  }

  /** The directory's lock; undefined if the signal came first. A full disk is waited for. */
  private async lock(signal: AbortSignal): Promise<DirectoryLock | undefined> {
    for (;;) {
      try {
        return await acquireDirectoryLock(this.o.directory, { signal });
      } catch (e) {
        if (signal.aborted && e === signal.reason) return undefined;
        if (!(e instanceof DiskFullError) || this.o.reconnect === false) throw e;
        await this.freeOwnSpace();
        const retryIn = this.backoff.next(e);
        this.tell('disconnect', { error: e, retryIn });
        await abortableDelay(retryIn, signal);
        if (signal.aborted) return undefined;
      }
    }
  }

  /** What a killed receiver left may be what fills the disk, so that no lock can be had. */
  private async freeOwnSpace(): Promise<void> {
    const { directory } = this.o;
    // Who takes the lock in this very moment has no space to make files with yet.
    if (await readLockHolder(directory)) return;
    await removeLeftovers(directory, nodeFileSystem).catch(() => {});
  }

  /** One connection with its streams. Says why when there is nothing more to do. */
  private async attempt(signal: AbortSignal): Promise<StopReason | undefined> {
    let connection: ReplicationConnection | undefined;
    let watchdog: Watchdog | undefined;
    try {
      connection = await this.connect(signal);
      watchdog = new Watchdog(connection, signal, this.o.receiveTimeout ?? RECEIVE_TIMEOUT);
      const reason = await this.serve(connection, watchdog, signal);
      await connection.close();
      return reason;
    } catch (e) {
      if (signal.aborted && e === signal.reason) return 'signal';
      const error = watchdog?.error ?? asWalkeepError(e);
      // A stop that a dying connection overtakes is still a stop: the archive is in order.
      if (signal.aborted && mayRetry(error, true)) return 'signal';
      const anew = this.makesSlotAnew(error);
      if (anew) this.slotInvalid = 'replace';
      const leadsOn = !anew && this.removed.leadsOn(error, this.asked);
      const retryIn =
        leadsOn || anew ? 0 : this.retries(error) ? this.backoff.next(error) : undefined;
      const told = retryIn === undefined ? this.refusals.final(error) : error;
      this.tell('disconnect', { error: told, retryIn });
      if (retryIn === undefined) throw told;
      connection?.destroy();
      await abortableDelay(retryIn, signal);
      return signal.aborted ? 'signal' : undefined;
    } finally {
      watchdog?.release();
      connection?.destroy();
    }
  }

  /** What a stream is asked for, for the case that the server lacks it. */
  private asks(archive: Archive, timeline: number): AskedStream {
    const { history, segmentSize } = archive.server;
    // What came damaged is stored up to somewhere: a gap would begin before the stored end.
    const refused = this.refusals.current !== undefined;
    // pg_receivewal knows of no ledger and would have started at the server's position.
    const unknown = this.o.refuseGaps === false && archive.start.reason === 'ledger';
    return {
      ...{ timeline, history, segmentSize },
      completeBeyond: archive.completeBeyond && !refused,
      unproved: refused ? undefined : archive.unproved,
      mayGoOver: (this.o.acceptGap === true || unknown) && !refused,
    };
  }

  /** Once: a slot that the server invalidates, while it may still have the WAL that is wanted. */
  private makesSlotAnew(error: WalkeepError): boolean {
    const { ensureSlot, slot, reconnect } = this.o;
    if (!ensureSlot || slot === undefined || reconnect === false) return false;
    if (this.slotInvalid !== 'no') return false;
    return error instanceof WalRemovedError && error.sqlstate === '55000';
  }

  private retries(error: WalkeepError): boolean {
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

  private async connect(signal: AbortSignal): Promise<ReplicationConnection> {
    const { connection, receiveTimeout = RECEIVE_TIMEOUT } = this.o;
    if (typeof connection !== 'string') this.settings ??= connection;
    this.settings ??= await resolveSettings({
      conninfo: connection as string,
      fallbackApplicationName: 'walkeep',
    });
    const options = {
      signal,
      replication: 'physical' as const,
      onNotice: (n: { message: string }) => this.warn('WK_SERVER_NOTICE', n.message),
    };
    try {
      return await connect(patient(this.settings, receiveTimeout), options);
    } catch (e) {
      const { promptPassword } = this.o;
      if (!(e instanceof AuthenticationError && e.needsPassword && promptPassword)) throw e;
      this.settings = { ...this.settings, password: await promptPassword() };
      return connect(patient(this.settings, receiveTimeout), options);
    }
  }

  /** Streams on one connection, timeline after timeline, until a stop. */
  private async serve(
    connection: ReplicationConnection,
    watchdog: Watchdog,
    signal: AbortSignal,
  ): Promise<StopReason> {
    this.asked = undefined;
    const server = await readServerState(connection, {
      read: (timeline) => readStoredHistory(this.o.directory, timeline),
      warn: (code, message) => this.warn(code, message),
    });
    this.connectedOnce = true;
    this.tell('connect', {
      host: connection.target.host,
      port: connection.target.port,
      serverVersion: connection.serverVersion,
      systemId: String(server.systemId),
      timeline: server.timeline,
      flushLsn: server.flushLsn,
    });
    const archive = await Archive.open(this.o, connection, server, {
      removed: this.removed,
      slotInvalid: this.slotInvalid === 'replace',
      refused: this.refusals.current,
      writeReport: await this.checkSyncStandby(connection, signal),
      warn: (code, message) => this.warn(code, message),
    });
    if (this.slotInvalid === 'replace') this.slotInvalid = 'replaced';
    try {
      let { lsn, timeline } = archive.start;
      await this.compareFirst(connection, archive);
      this.tell('start', { lsn, timeline });
      for (;;) {
        if (this.o.endLsn !== undefined && lsn > this.o.endLsn) {
          this.last = { lsn, timeline };
          return 'endpos';
        }
        const run = new TimelineRun(this.o, connection, archive, { lsn, timeline }, this);
        watchdog.enter('command');
        this.asked = this.asks(archive, timeline);
        const onPhase = (phase: Phase) => {
          watchdog.enter(phase);
          this.streamed = true;
        };
        const outcome = await run
          .stream(signal, onPhase)
          .catch((e) => {
            throw explainBehind(e, server, { lsn, timeline });
          })
          .finally(() => {
            this.reached(run.stored, timeline);
          });
        this.last = { lsn: outcome.lsn, timeline };
        if (outcome.kind === 'stopped') return outcome.reason;
        if (outcome.end.kind === 'shutdown') {
          throw new ConnectionError('replication stream was terminated before stop point', {
            lsn: outcome.lsn,
            hint: 'The server shut down.',
          });
        }
        watchdog.enter('command');
        const next = await archive.follow(connection, timeline, outcome.lsn, outcome.end);
        ({ lsn, timeline } = next);
        this.tell('timeline', { timeline, lsn: outcome.lsn });
        this.backoff.reset();
      }
    } finally {
      await archive.close();
    }
  }

  /**
   * Before WAL that does not fit is called damaged, and while the server's ends before the stored:
   * is it the server that is archived here?
   */
  private async compareFirst(connection: ReplicationConnection, archive: Archive): Promise<void> {
    const { server, start, fs } = archive;
    const behind = server.timeline === start.timeline && server.flushLsn < start.lsn;
    const end =
      this.refusals.doubtedJoint(server.segmentSize) ?? (behind ? server.flushLsn : undefined);
    if (end === undefined || end === this.compared) return;
    try {
      await isSameWal(connection, this.o.directory, server, end, fs);
      this.compared = end;
    } catch (e) {
      // On its way it may have been the same.
      if (e instanceof RewriteError) this.refusals.noteRewrite(e);
      throw e;
    }
  }

  /**
   * Warns of what would make commits hang, and finds out when the write position has to be told:
   * at once only where the server's commits wait for it, since every commit pays for that reply.
   */
  private async checkSyncStandby(
    connection: ReplicationConnection,
    signal: AbortSignal,
  ): Promise<WriteReport> {
    const { synchronous = false, apply = 'none', writeReport, checkSyncStandby } = this.o;
    if (checkSyncStandby === false) return writeReport === 'sync' ? 'sync' : 'slow';
    const applicationName = this.settings?.applicationName ?? '';
    const state = await readSyncStandby(connection, { applicationName, synchronous, apply });
    const others = state.listed?.names.some(
      (n) => n.toLowerCase() !== applicationName.toLowerCase(),
    );
    if (state.listed && others && this.settings && !this.askedPeers) {
      this.askedPeers = true;
      const connected = await connectedStandbys(this.settings, signal);
      state.warnings.push(...peerWarnings(state.listed, applicationName, connected));
    }
    for (const { code, message, hint } of state.warnings) {
      if (this.toldSync.has(message)) continue;
      this.toldSync.add(message);
      this.tell('warning', { code, message, ...(hint === undefined ? {} : { hint }) });
    }
    if (writeReport === 'sync') return 'sync';
    return state.synchronousCommit === 'remote_write' ? 'write' : 'slow';
  }

  /** A stream begins anew at the start of a segment: that alone takes nothing back. */
  private reached(lsn: Lsn, timeline: number): void {
    if (timeline !== this.last.timeline || lsn > this.last.lsn) this.last = { lsn, timeline };
  }

  /** Called by a stream that stores WAL for a while: the next failure is a new one. */
  noteProgress(): void {
    this.removed.reset();
    this.slotInvalid = 'no';
    this.doubted = false;
    this.backoff.reset();
  }

  /** Emits; what a listener throws is its own defect, not the disk's or the server's. */
  tell<K extends keyof ReceiverEvents>(event: K, ...args: ReceiverEvents[K]): void {
    const emit = this.emit as (event: K, ...args: ReceiverEvents[K]) => boolean;
    try {
      emit.call(this, event, ...args);
    } catch (cause) {
      if (cause instanceof WalkeepError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new InternalError(`a listener of "${event}" failed: ${reason}`, { cause });
    }
  }

  private warn(code: string, message: string): void {
    this.tell('warning', { code, message });
  }
}

function asWalkeepError(e: unknown): WalkeepError {
  if (e instanceof WalkeepError) return e;
  throw e;
}
