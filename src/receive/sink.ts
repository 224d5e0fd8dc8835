import { connect } from '../connection/connect.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { resolveSettings } from '../connection/conninfo/resolve.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import { SystemIdentifierError, WalkeepError, WalRemovedError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import {
  aBigint,
  aFunction,
  aName,
  anLsn,
  anObject,
  aSwitch,
  aText,
  aTime,
  aTimeline,
  type Checks,
  checkOptions,
  either,
  oneOf,
  required,
} from '../options.js';
import { readServerHistory } from '../server/server-history.js';
import { readServerState, readSlot, type ServerState } from '../server/server-state.js';
import { floorToSegment } from '../wal/file-name.js';
import { childTimeline, rootHistory, type TimelineHistory, timelineAt } from '../wal/timeline.js';
import { type VerifyMode, WalInspector } from './inspector.js';
import { RECEIVE_TIMEOUT } from './options.js';
import { SinkCalls } from './sink-calls.js';
import { checkFork } from './start/history-files.js';
import { lookedForChild } from './start/removed-wal.js';
import { type StreamOutcome, StreamSession } from './stream.js';
import { sinkTarget } from './target/sink-target.js';
import { followTimelines, type WalPlace } from './timelines.js';
import { overConnection, patient, type Watchdog } from './watchdog.js';

/** What a sink is told before the first WAL comes. */
export interface SinkOpening {
  /** Where the stream begins. */
  lsn: Lsn;
  timeline: number;
  /** Bytes. */
  segmentSize: number;
  systemId: bigint;
  /** As server_version_num: 180004 for 18.4. */
  serverVersion: number;
  /** Of `timeline`: what it branched off, and where. */
  history: TimelineHistory;
  /** Aborted when the stream is to end. */
  signal: AbortSignal;
}

/** Another timeline that a stream goes on with. */
export interface SinkTimeline {
  timeline: number;
  /** The first byte on it, and behind the last one of the timeline before. */
  lsn: Lsn;
  history: TimelineHistory;
}

/**
 * A destination for WAL. The server is told that WAL is flushed only when a `flush` that began
 * after its `write` has resolved; that is what synchronous commits and slots rely on.
 *
 * What a method throws ends the stream with a SinkError; nothing more is acknowledged.
 */
export interface WalSink {
  /** Called once, before anything is written. */
  open?(stream: SinkOpening): void | Promise<void>;
  /**
   * Takes the next bytes, which begin at `lsn`; the chunk is the sink's own. No gaps, and one call
   * at a time: until it has resolved, what arrives waits in memory (4 MiB, then the server has to
   * wait). With synchronous_commit = remote_write commits wait for this only.
   */
  write(chunk: Buffer, lsn: Lsn): void | Promise<void>;
  /**
   * Resolves when all that was written before the call is durable. One call at a time, but `write`
   * may be called meanwhile.
   */
  flush(): void | Promise<void>;
  /**
   * The timeline ended, as a promotion does; what is written next begins at `lsn` on `timeline`.
   * All before is flushed. False ends the stream here. Absent: it is followed.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: returning nothing is following
  timeline?(next: SinkTimeline): boolean | void | Promise<boolean | void>;
  /**
   * Called once, however the stream ended; at a clean end all is flushed. A call that took too long
   * (`sinkTimeout`, or a stop) may still be under way.
   */
  close?(): void | Promise<void>;
}

const SINK_TIMEOUT = 60_000;

/** What `streamWal` is told. Times are milliseconds. */
export interface StreamWalOptions {
  /** A conninfo string or URI as libpq takes it, or settings from `resolveSettings`. */
  connection: ConnectionSettings | string;
  /**
   * Where to start, usually the end of what the sink has. Default: the slot's position, else the
   * server's flush position, both rounded down to the start of a segment.
   */
  startLsn?: Lsn;
  /** Timeline of `startLsn`. Default: the one that it belongs to in the server's history. */
  timeline?: number;
  /** Stop once a position beyond this one has been received. */
  endLsn?: Lsn;
  /** Physical replication slot to use. */
  slot?: string;
  /** Refuse a server with another system identifier. */
  systemId?: bigint;
  /**
   * Flush whenever WAL was written, and tell the server at once (default). False: flush once a
   * `statusInterval` and when the server asks.
   */
  synchronous?: boolean;
  /** Between unasked status replies; 0 sends none. Default 10000. */
  statusInterval?: number;
  /** Silence after which the server is asked for a sign of life; given up at twice that. 0: never. Default 30000. */
  receiveTimeout?: number;
  /**
   * Time for one call of a method of the sink; one that has not returned by then ends the stream, so
   * that the server can shut down. 0: never. Default 60000. After the signal aborts all calls have 5
   * seconds together.
   */
  sinkTimeout?: number;
  /**
   * `strict` (default): WAL that fails a check (page headers, record CRCs) ends the stream before
   * the sink gets it. `off`: nothing is checked. Where the start is within a page, or behind the
   * switch to the next segment, the check begins with the next page.
   */
  verify?: Exclude<VerifyMode, 'warn'>;
}

const CHECKS: Checks<StreamWalOptions> = {
  connection: required(either(aText, anObject)),
  startLsn: anLsn,
  timeline: aTimeline,
  endLsn: anLsn,
  slot: aName,
  systemId: aBigint,
  synchronous: aSwitch,
  statusInterval: aTime,
  receiveTimeout: aTime,
  sinkTimeout: aTime,
  verify: oneOf('strict', 'off'),
};
const SINK: Checks<WalSink> = {
  open: aFunction,
  write: required(aFunction),
  flush: required(aFunction),
  timeline: aFunction,
  close: aFunction,
};

/**
 * Streams WAL into a sink of your own over one connection, from timeline to timeline. Lost
 * connections are yours to retry: errors with `retryable` pass, begin again where the sink ends.
 *
 * @returns the end of what was received, all of it flushed: at `endLsn`, when the signal aborts,
 *   or where `sink.timeline` said so
 * @throws UsageError, SinkError, ConnectionError (also when the server shuts down), CorruptWalError, and what
 *   `connect` throws; the signal's reason if it aborts before a stream came about
 * @example
 * const chunks: Buffer[] = [];
 * const sink = { write: (chunk: Buffer) => void chunks.push(chunk), flush: () => save(chunks) };
 * await streamWal({ connection: 'host=/run/postgresql' }, sink, AbortSignal.timeout(60_000));
 */
export async function streamWal(
  options: StreamWalOptions,
  sink: WalSink,
  signal: AbortSignal = new AbortController().signal,
): Promise<Lsn> {
  checkOptions('streamWal', options, CHECKS);
  // A sink is an object of the caller's, with fields of its own.
  checkOptions('streamWal, sink', sink, SINK, { others: 'ignored' });
  const calls = new SinkCalls('sink', options.sinkTimeout ?? SINK_TIMEOUT, signal);
  const close = () => calls.run('close', () => sink.close?.());
  let lsn: Lsn;
  try {
    try {
      lsn = await overOneConnection(options, sink, calls, signal);
    } catch (e) {
      // The first failure is the one to tell.
      await close().catch(() => {});
      throw e;
    }
    await close();
    return lsn;
  } finally {
    calls.release();
  }
}

async function overOneConnection(
  options: StreamWalOptions,
  sink: WalSink,
  calls: SinkCalls,
  signal: AbortSignal,
): Promise<Lsn> {
  const { receiveTimeout = RECEIVE_TIMEOUT } = options;
  const opened = open(options.connection, receiveTimeout, signal);
  let run: SinkRun | undefined;
  try {
    return await overConnection(opened, receiveTimeout, signal, (connection, watchdog) => {
      run = new SinkRun(options, sink, calls, connection, watchdog);
      return run.run(signal);
    });
  } catch (e) {
    const passing = e === signal.reason || (e instanceof WalkeepError && e.retryable);
    if (!signal.aborted || !passing) throw e;
    // A stop that a dying connection overtakes is still a stop, if the sink had its last flush.
    if (run?.closedAt === undefined) throw signal.reason;
    return run.closedAt;
  }
}

async function open(
  connection: ConnectionSettings | string,
  receiveTimeout: number,
  signal: AbortSignal,
) {
  const conninfo = { fallbackApplicationName: 'walkeep' };
  const settings =
    typeof connection === 'string'
      ? await resolveSettings({ ...conninfo, conninfo: connection })
      : connection;
  return connect(patient(settings, receiveTimeout), { signal });
}

/** The streams of one connection. */
class SinkRun {
  /** Where the last stream that was ended cleanly had got to, all flushed. */
  closedAt: Lsn | undefined;
  private readonly o: StreamWalOptions;
  private readonly sink: WalSink;
  private readonly calls: SinkCalls;
  private readonly connection: ReplicationConnection;
  private readonly watchdog: Watchdog;

  constructor(
    options: StreamWalOptions,
    sink: WalSink,
    calls: SinkCalls,
    connection: ReplicationConnection,
    watchdog: Watchdog,
  ) {
    this.o = options;
    this.sink = sink;
    this.calls = calls;
    this.connection = connection;
    this.watchdog = watchdog;
  }

  async run(signal: AbortSignal): Promise<Lsn> {
    const server = await readServerState(this.connection);
    const { systemId } = this.o;
    if (systemId !== undefined && systemId !== server.systemId) {
      throw new SystemIdentifierError('the server is of another cluster', {
        expected: String(systemId),
        actual: String(server.systemId),
      });
    }
    const first = await this.choose(server);
    const { systemId: cluster, segmentSize } = server;
    const opening = {
      ...{ ...first, segmentSize, systemId: cluster, signal },
      serverVersion: this.connection.serverVersion,
      history:
        ancestorOf(server.history, first.timeline) ?? (await this.history(first.timeline, server)),
    };
    await this.calls.run('open', () => this.sink.open?.(opening));
    const { lsn } = await followTimelines(first, this.o.endLsn, {
      stream: (at) =>
        this.stream(at, server, signal).catch((e) => {
          throw withLaterTimeline(e, at.timeline, server);
        }),
      follow: async ({ timeline: parent }, _, end) => {
        const next = { timeline: end.timeline, lsn: end.startLsn };
        const history = await this.history(next.timeline, server);
        checkFork(history, { parent, lsn: next.lsn });
        const told = { ...next, history };
        const go = await this.calls.run('change the timeline', () => this.sink.timeline?.(told));
        return go === false ? undefined : next;
      },
    });
    return lsn;
  }

  private async choose(server: ServerState): Promise<WalPlace> {
    const { startLsn, timeline, slot } = this.o;
    const { segmentSize, history } = server;
    if (startLsn !== undefined) {
      return { lsn: startLsn, timeline: timeline ?? timelineAt(history, startLsn) };
    }
    const place =
      slot === undefined ? undefined : await readSlot(this.connection, slot, { ensure: false });
    if (place?.restartLsn !== undefined) {
      const lsn = floorToSegment(place.restartLsn, segmentSize);
      return { lsn, timeline: timeline ?? place.restartTimeline ?? timelineAt(history, lsn) };
    }
    const lsn = floorToSegment(server.flushLsn, segmentSize);
    return { lsn, timeline: timeline ?? server.timeline };
  }

  private async stream(
    at: WalPlace,
    server: ServerState,
    signal: AbortSignal,
  ): Promise<StreamOutcome> {
    const { watchdog, connection, o } = this;
    const { slot, endLsn, synchronous = true, statusInterval = 10_000 } = o;
    watchdog.enter('command');
    const inspector = await this.makeInspector(at, server);
    const { sink, calls } = this;
    const target = sinkTarget({
      startLsn: at.lsn,
      // The stream gives an asynchronous target copies of its own.
      write: (chunk, lsn) => calls.run('write', () => sink.write(chunk as Buffer, lsn)),
      flush: () => calls.run('flush', () => sink.flush()),
      ...{ synchronous, flushInterval: statusInterval },
    });
    const session = new StreamSession({
      ...{ connection, timeline: at.timeline, target, synchronous, statusInterval },
      ...(inspector ? { inspector } : {}),
      ...(slot === undefined ? {} : { slot }),
      ...(endLsn === undefined ? {} : { endLsn }),
      reportFlush: true,
      applyIsFlush: false,
      receiveTimeout: o.receiveTimeout ?? RECEIVE_TIMEOUT,
      onProgress: () => {},
    });
    return session.run(signal, (phase) => {
      if (phase === 'ending') this.closedAt = target.positions.lsn(target.positions.flushed);
      watchdog.enter(phase);
    });
  }

  private async makeInspector(
    { lsn, timeline }: WalPlace,
    server: ServerState,
  ): Promise<WalInspector | undefined> {
    if (this.o.verify === 'off') return undefined;
    const blockSize = Number(await this.connection.show('wal_block_size'));
    const page = BigInt(blockSize);
    return new WalInspector({
      mode: 'strict',
      feedLsn: lsn,
      startLsn: (((lsn + page - 1n) / page) * page) as Lsn,
      segmentSize: server.segmentSize,
      systemId: server.systemId,
      ...{ blockSize, timeline, history: await this.history(timeline, server) },
      onFault: () => {},
      onUnknownMagic: () => {},
    });
  }

  private async history(timeline: number, server: ServerState): Promise<TimelineHistory> {
    if (timeline === server.timeline) return server.history;
    if (timeline === 1) return rootHistory(1);
    const { content } = await this.connection.timelineHistory(timeline);
    return readServerHistory(timeline, content);
  }
}

/** The history of a timeline that is in another one's. */
function ancestorOf({ ancestors }: TimelineHistory, timeline: number): TimelineHistory | undefined {
  const at = ancestors.findIndex((a) => a.timeline === timeline);
  return at < 0 ? undefined : { timeline, ancestors: ancestors.slice(0, at) };
}

/** Says where the end of a timeline is to be had that the server looked for in vain. */
function withLaterTimeline(error: unknown, timeline: number, server: ServerState): unknown {
  if (!(error instanceof WalRemovedError)) return error;
  if (!lookedForChild(error, { ...server, timeline })) return error;
  const { message, sqlstate, severity, file } = error;
  const next = childTimeline(server.history, timeline);
  return new WalRemovedError(message, {
    ...{ sqlstate, severity, file, cause: error },
    hint: `The server has no file for the end of timeline ${timeline}: begin at the same place with timeline ${next}, whose segment begins with the same WAL.`,
  });
}
