import { EventEmitter } from 'node:events';
import { readLedger } from '../archive/ledger.js';
import { removeLeftovers } from '../archive/leftovers.js';
import { loadCodecs } from '../codec/codecs.js';
import { connect } from '../connection/connect.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { resolveSettings } from '../connection/conninfo/resolve.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import { abortableDelay } from '../delay.js';
import {
  AuthenticationError,
  DiskFullError,
  InternalError,
  StandbyError,
  WalkeepError,
} from '../errors.js';
import { nodeFileSystem } from '../files/file-system.js';
import { acquireDirectoryLock, type DirectoryLock, readLockHolder } from '../files/lock.js';
import type { Lsn } from '../lsn.js';
import { connectedStandbys, peerWarnings } from '../server/sync-peers.js';
import { readSyncStandby } from '../server/sync-standby.js';
import { Backfill, type Backfilled } from './backfill/backfill.js';
import { Filler, noteEmpty } from './backfill/filler.js';
import { DirectoryReceiver, type StopReason } from './directory-receiver.js';
import { DivergedWatch } from './diverged-watch.js';
import { DurablePlace, MemberSlots } from './member-slots.js';
import {
  checkReceiverOptions,
  RECEIVE_TIMEOUT,
  type ReceivedSegment,
  type ReceiverEvents,
  type ReceiverPosition,
  type ReceiverTally,
  type ReceiverWarning,
  type WalReceiverOptions,
} from './options.js';
import { Backoff, mayRetry } from './retry.js';
import { SinkCalls } from './sink-calls.js';
import type { WriteReport } from './target/paced-target.js';
import { SYNC_BOUNDS } from './target/sync-times.js';
import type { RunOwner } from './timeline-run.js';
import { overConnection, patient } from './watchdog.js';

/**
 * Receives WAL from a PostgreSQL server into segment files, as pg_receivewal does, until its end
 * position or the abort signal; over lost connections, failovers and timeline switches.
 *
 * @example
 * const receiver = new WalReceiver({ connection: 'host=/run/postgresql', directory: '/archive' });
 * receiver.on('segment', ({ path }) => console.log(path));
 * await receiver.run(AbortSignal.timeout(60_000));
 */
export class WalReceiver extends EventEmitter<ReceiverEvents> {
  private readonly o: WalReceiverOptions;
  private settings: ConnectionSettings | undefined;
  private connection: ReplicationConnection | undefined;
  /** Times in a row that no host could be connected to. */
  private failedRounds = 0;
  private readonly backoff: Backoff;
  private readonly receiver: DirectoryReceiver;
  /** Warnings about synchronous standbys, each said once. */
  private readonly toldSync = new Set<string>();
  /** Once is enough: every try that is refused stands in the server's log. */
  private askedPeers = false;
  private readonly durable = new DurablePlace();
  private members: MemberSlots | undefined;
  private lastPosition: ReceiverPosition | undefined;
  /** The latest timeline that a member was seen to write, as a primary that goes on from ours. */
  private seenTimeline = 0;
  /** Calls the caller's `onSegment`, in time. */
  private handOn: (segment: ReceivedSegment) => Promise<void> = async () => {};
  private readonly diverged: DivergedWatch;
  private readonly backfill: Backfill | undefined;
  private readonly filler: Filler | undefined;
  /** Ends the run, for a defect in what runs beside it. */
  private readonly failed = new AbortController();
  private readonly fail = (error: unknown): void => this.failed.abort(error);

  constructor(options: WalReceiverOptions) {
    super();
    checkReceiverOptions(options);
    // Who keeps the slot on every member makes it on the one that is received from.
    const keeps = options.members?.slots === 'walkeep';
    this.o = { ...options, ensureSlot: options.ensureSlot ?? keeps };
    this.backoff = new Backoff(options.retryDelay);
    const tell: RunOwner['tell'] = (event, ...args) => this.tell(event, ...args);
    this.diverged = new DivergedWatch(options.directory, tell);
    const { backfill, directory } = options;
    if (backfill) {
      const listener = {
        taken: (segment: Backfilled) => this.tell('backfill', segment),
        warn: (warning: ReceiverWarning) => this.tell('warning', warning),
      };
      this.backfill = new Backfill(directory, backfill, listener);
      this.filler = new Filler(this.backfill, backfill, this.fail);
    }
    const { backfill: others, filler } = this;
    this.receiver = new DirectoryReceiver(this.o, {
      tell,
      ...(options.onSegment ? { handOn: (segment) => this.handOn(segment) } : {}),
      ...(others ? { backfill: (...from) => others.goOn(...from) } : {}),
      onServer: (server) => filler?.follow(server),
      onLeft: (left, way) => this.diverged.look(left, way, this.fail),
      outrun: (timeline) => this.seenTimeline > timeline,
      onHeadway: () => this.backoff.reset(),
      chooseWriteReport: (connection, stop) => this.checkSyncStandby(connection, stop),
    });
  }

  /**
   * Runs until the end. One receiver runs once.
   * @returns the last position received
   * @throws WalkeepError what no retry can help, or any error with `reconnect: false`
   */
  async run(signal: AbortSignal = new AbortController().signal): Promise<Lsn> {
    await loadCodecs();
    const lock = await this.lock(signal);
    const stop = AbortSignal.any([signal, this.failed.signal]);
    const calls = new SinkCalls('onSegment', 0, stop);
    this.handOn = (segment) =>
      calls.run(`"${segment.path}"`, () => this.o.onSegment?.(segment, { signal: stop }));
    try {
      let reason: StopReason | undefined = lock ? undefined : 'signal';
      if (lock) await this.startMembers();
      while (reason === undefined) reason = await this.attempt(stop);
      await this.diverged.end();
      if (this.failed.signal.aborted) throw this.failed.signal.reason;
      const { last } = this.receiver;
      this.tell('stop', { ...last, reason });
      return last.lsn;
    } finally {
      await this.members?.end();
      calls.release();
      await this.filler?.end();
      await lock?.release();
    }
  }

  /** Begins to keep the members' slots, from what the ledger says is durable here. */
  private async startMembers(): Promise<void> {
    const { members, slot, directory } = this.o;
    if (!members || slot === undefined) return;
    const { connection, slots: keeper, interval } = members;
    const settings =
      typeof connection === 'string'
        ? await resolveSettings({
            ...{ conninfo: connection, fallbackDatabase: 'postgres' },
            fallbackApplicationName: 'walkeep',
          })
        : connection;
    // What is wrong with it the receiving tells.
    const ledger = await readLedger(directory).catch(() => undefined);
    const { systemId, end: lsn, timeline } = ledger ?? {};
    const known = lsn !== undefined && timeline !== undefined;
    this.durable.note(systemId, known ? { lsn, timeline } : undefined);
    this.members = new MemberSlots({
      ...{ settings, slot, keeper, interval },
      archived: () => this.durable.archived,
      tell: (state) => this.tell('member', state),
      sawPrimary: (written) => {
        this.seenTimeline = written;
      },
      fail: this.fail,
    });
  }

  /** What an event says of what is durable here. */
  private noteDurable<K extends keyof ReceiverEvents>(event: K, [told]: ReceiverEvents[K]): void {
    let news = false;
    if (event === 'connect') {
      const { systemId } = told as ReceiverEvents['connect'][0];
      news = this.durable.note(systemId, undefined);
    } else if (event === 'start') {
      // From there on WAL is needed: what lies before is here, or given up.
      news = this.durable.note(undefined, told as ReceiverEvents['start'][0]);
    } else if (event === 'progress') {
      const { flushed: lsn, timeline } = told as ReceiverEvents['progress'][0];
      news = this.durable.note(undefined, { lsn, timeline });
    }
    if (news) this.members?.lookNow();
  }

  /** As `progress` told it last; undefined before any stream. */
  get position(): ReceiverPosition | undefined {
    return this.lastPosition;
  }

  /** What was counted so far. */
  get tally(): ReceiverTally {
    const { refused, syncTimes } = this.receiver;
    const { counts, milliseconds } = syncTimes;
    const syncs = { bounds: SYNC_BOUNDS, counts: [...counts], seconds: milliseconds / 1000 };
    return { refused, syncs };
  }

  /**
   * When something came from the server last, as `performance.now()` says it; undefined before the first
   * connection.
   */
  get heardAt(): number | undefined {
    return this.connection?.lastReceivedAt;
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
    const { receiver } = this;
    const { receiveTimeout = RECEIVE_TIMEOUT, directory } = this.o;
    try {
      if (this.backfill) await noteEmpty(directory);
      return await overConnection(this.connect(signal), receiveTimeout, signal, (c, watchdog) => {
        this.connection = c;
        return receiver.serve(c, signal, (phase) => watchdog.enter(phase));
      });
    } catch (e) {
      if (signal.aborted && e === signal.reason) return 'signal';
      if (!(e instanceof WalkeepError)) throw e;
      // A stop that a dying connection overtakes is still a stop: the archive is in order.
      if (signal.aborted && mayRetry(e, true)) return 'signal';
      const { again, error } = receiver.afterFailure(e);
      const retryIn =
        again === 'at once' ? 0 : again === 'later' ? this.backoff.next(e) : undefined;
      this.tell('disconnect', { error, retryIn });
      if (retryIn === undefined) throw error;
      await abortableDelay(retryIn, signal);
      return signal.aborted ? 'signal' : undefined;
    }
  }

  private patient(receiveTimeout: number): ConnectionSettings {
    return patient(this.settings as ConnectionSettings, receiveTimeout, this.failedRounds);
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
      const connected = await connect(this.patient(receiveTimeout), options);
      this.failedRounds = 0;
      return connected;
    } catch (e) {
      this.failedRounds += 1;
      const { promptPassword } = this.o;
      if (!(e instanceof AuthenticationError && e.needsPassword && promptPassword)) throw e;
      this.settings = { ...this.settings, password: await promptPassword() };
      return connect(this.patient(receiveTimeout), options);
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
    if (synchronous && connection.parameters.get('in_hot_standby') === 'on') {
      throw new StandbyError('the server is a standby: no commit waits for who receives from it', {
        hint: 'With --synchronous connect to the primary: name all hosts and target_session_attrs=read-write. Without it, receiving from a standby is fine.',
      });
    }
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

  /** Emits; what a listener throws is its own defect, not the disk's or the server's. */
  private tell<K extends keyof ReceiverEvents>(event: K, ...args: ReceiverEvents[K]): void {
    if (event === 'progress') [this.lastPosition] = args as ReceiverEvents['progress'];
    if (this.o.members) this.noteDurable(event, args);
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
