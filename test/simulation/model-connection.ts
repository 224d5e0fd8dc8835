import type { ReplicationConnection } from '../../src/connection/connection.js';
import type { WalStream } from '../../src/connection/wal-stream.js';
import { ConnectionError, InternalError, WalkeepError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import type { CopyBothHandler } from '../../src/protocol/frame-reader.js';
import type {
  SlotPosition,
  StartReplicationOptions,
  StreamEnd,
  SystemIdentification,
  TimelineHistoryFile,
} from '../../src/protocol/replication.js';
import type { StandbyStatus } from '../../src/protocol/status-reply.js';
import { historyFileName } from '../../src/wal/file-name.js';
import type { ModelServer } from './model-server.js';
import { SEGMENT, type TimelineWal } from './model-wal.js';
import type { Random } from './random.js';
import type { VirtualClock } from './virtual-clock.js';

/** MAX_SEND_SIZE of walsender.c. */
const MAX_MESSAGE = 128 * 1024;
/** One read buffer, used again for every read as the real one is. */
const READ = Buffer.alloc(512 * 1024);

/** Told of each status reply before the server takes it. */
export type OnStatus = (wal: TimelineWal, start: number, sent: number, s: StandbyStatus) => void;

/** Asked of a byte that is to be damaged in a stream that began at `start`; false spares it. */
export type OnDamage = (wal: TimelineWal, at: number, start: number) => boolean;

interface Stream {
  wal: TimelineWal;
  handler: CopyBothHandler;
  start: number;
  sent: number;
  /** Bytes of the XLogData message under way that are still to come. */
  message: number;
  paused: boolean;
  ended: boolean;
  settle: ((end: StreamEnd) => void) | undefined;
}

/** A connection to the model server; what the receiver uses of a ReplicationConnection. */
export class ModelConnection {
  readonly serverVersion: number;
  readonly target = { host: '/model', port: 5432 };
  /** Resolves once it is over. */
  readonly ended: Promise<void>;
  lastReceivedAt = 0;
  /** Set: a bit of the WAL that is delivered next is flipped. */
  damage: OnDamage | undefined;
  private stream: Stream | undefined;
  private over = false;
  private settleEnded = (): void => {};
  private readonly server: ModelServer;
  private readonly random: Random;
  private readonly clock: VirtualClock;
  private readonly onStatus: OnStatus;

  constructor(
    server: ModelServer,
    random: Random,
    clock: VirtualClock,
    version: number,
    onStatus: OnStatus,
  ) {
    this.serverVersion = version;
    this.server = server;
    this.random = random;
    this.clock = clock;
    this.onStatus = onStatus;
    this.lastReceivedAt = clock.now;
    this.ended = new Promise((resolve) => {
      this.settleEnded = resolve;
    });
  }

  get closed(): boolean {
    return this.over;
  }

  private set closed(over: boolean) {
    this.over = over;
    if (over) this.settleEnded();
  }

  /** As the type that the receiver takes. */
  get asConnection(): ReplicationConnection {
    return this as unknown as ReplicationConnection;
  }

  /** True while WAL can be delivered. */
  get flowing(): boolean {
    const s = this.stream;
    return !this.closed && s !== undefined && !s.paused && !s.ended;
  }

  /** Up to where WAL was sent, and of which timeline. */
  get position(): { timeline: number; sent: number } | undefined {
    const s = this.stream;
    return s && { timeline: s.wal.id, sent: s.sent };
  }

  show(): Promise<string> {
    return Promise.resolve('0700');
  }

  segmentSize(): Promise<number> {
    return Promise.resolve(SEGMENT);
  }

  identifySystem(): Promise<SystemIdentification> {
    const { systemId, timeline, flushLsn } = this.server.state();
    return Promise.resolve({ systemId, timeline, flushLsn, database: null });
  }

  timelineHistory(timeline: number): Promise<TimelineHistoryFile> {
    const content = Buffer.from(this.server.historyText(timeline));
    return Promise.resolve({ fileName: historyFileName(timeline), content });
  }

  readReplicationSlot(): Promise<SlotPosition> {
    const { restartLsn } = this.server;
    const lsn = restartLsn === undefined ? undefined : (BigInt(restartLsn) as Lsn);
    const owner = this.server.lineage.findLast((t) => t.fork < (restartLsn ?? 0));
    return Promise.resolve({ restartLsn: lsn, restartTimeline: owner?.id ?? 1 });
  }

  async startReplication(
    options: StartReplicationOptions,
    handler: CopyBothHandler,
  ): Promise<WalStream | StreamEnd> {
    if (this.closed) throw new ConnectionError('the connection was closed');
    const { timeline, startLsn } = options as { timeline: number; startLsn: bigint };
    const start = Number(startLsn);
    const wal = this.server.checkStart(timeline, start);
    if (this.server.endOf(timeline) === start) return this.nextTimeline(wal);
    const stream: Stream = {
      wal,
      handler,
      start,
      sent: start,
      message: 0,
      paused: false,
      ended: false,
      settle: undefined,
    };
    this.stream = stream;
    return {
      sendStatus: (status) => {
        if (!this.closed && !stream.settle) this.onStatus(wal, start, stream.sent, status);
      },
      pause: () => {
        stream.paused = true;
      },
      resume: () => {
        stream.paused = false;
      },
      finish: () =>
        new Promise((resolve, reject) => {
          if (this.closed) reject(new ConnectionError('the connection was closed'));
          else resolve(stream.ended ? this.nextTimeline(wal) : { kind: 'shutdown' });
        }),
    };
  }

  /** One socket read: as much of the stream as it brings, cut anywhere; or all there is. */
  deliver(all = false): void {
    const s = this.stream as Stream;
    const limit = this.server.endOf(s.wal.id) ?? s.wal.end;
    this.lastReceivedAt = this.clock.now;
    if (s.sent === limit && s.message === 0) {
      if (this.server.endOf(s.wal.id) === undefined) return;
      s.ended = true;
      this.guarded(s, () => s.handler.onServerCopyDone());
      return;
    }
    let room = Math.min(all ? READ.length : this.random.size(READ.length), limit - s.sent);
    let used = 0;
    this.guarded(s, () => {
      while (room > 0 && !this.closed) {
        if (s.message === 0) {
          s.message = Math.min(this.random.size(MAX_MESSAGE), limit - s.sent);
          s.handler.onWalHeader(BigInt(s.sent), BigInt(limit), 0n, s.message);
        }
        const n = Math.min(room, s.message, SEGMENT - (s.sent % SEGMENT));
        const from = s.sent % SEGMENT;
        s.wal.segment(Math.floor(s.sent / SEGMENT)).copy(READ, used, from, from + n);
        this.spoil(s, used, n);
        s.handler.onWalBytes(READ.subarray(used, used + n));
        s.sent += n;
        s.message -= n;
        used += n;
        room -= n;
        if (s.message === 0) s.handler.onWalMessageEnd();
      }
      s.handler.onReadEnd();
    });
    // Whoever kept a view of it has other bytes now.
    READ.fill(0xee, 0, used);
  }

  /** Flips a bit among the `n` bytes at `begin` of the read buffer. */
  private spoil(s: Stream, begin: number, n: number): void {
    if (!this.damage) return;
    const k = this.random.below(n);
    if (!this.damage(s.wal, s.sent + k, s.start)) return;
    this.damage = undefined;
    READ[begin + k] = (READ[begin + k] as number) ^ (1 << this.random.below(8));
  }

  keepalive(): void {
    const s = this.stream as Stream;
    if (s.message > 0) return;
    this.lastReceivedAt = this.clock.now;
    const asks = this.random.chance(0.5);
    this.guarded(s, () => {
      s.handler.onKeepalive(BigInt(this.server.endOf(s.wal.id) ?? s.wal.end), 0n, asks);
      s.handler.onReadEnd();
    });
  }

  /** The network or the server breaks the connection off. */
  breakOff(): void {
    this.fail(new ConnectionError('simulated loss of the connection'));
  }

  /** By the receiver. */
  destroy(): void {
    this.closed = true;
  }

  private nextTimeline(wal: TimelineWal): StreamEnd {
    const startLsn = BigInt(this.server.endOf(wal.id) as number) as Lsn;
    const next = this.server.lineage[this.server.lineage.indexOf(wal) + 1] as TimelineWal;
    return { kind: 'timeline', timeline: next.id, startLsn };
  }

  private guarded(stream: Stream, act: () => void): void {
    if (this.closed) return;
    try {
      act();
    } catch (e) {
      this.fail(e instanceof WalkeepError ? e : new InternalError(String(e)), stream);
    }
  }

  private fail(error: WalkeepError, stream = this.stream): void {
    if (this.closed) return;
    this.closed = true;
    if (stream && !stream.ended) stream.handler.onFailure(error);
  }
}
