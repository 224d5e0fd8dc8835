import { CODECS, RECEIVED, type ReceivedCompression, requireLevel } from '../codec/codecs.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import { UsageError, type WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import {
  aFunction,
  aName,
  aNumber,
  anLsn,
  anObject,
  aSwitch,
  aText,
  aTime,
  type Checks,
  checkOptions,
  either,
  listOf,
  oneOf,
  required,
} from '../options.js';
import type { MemberSlotKeeper } from '../server/member-slot.js';
import type { ReceiverWarning } from '../server/warning.js';
import type { Backfilled, BackfillOption } from './backfill/backfill.js';
import type { VerifyMode } from './inspector.js';
import type { MemberState } from './member-slots.js';

/** How completed segments are stored. `level` is the method's own scale, absent for its default. */
export interface CompressionOption {
  method: ReceivedCompression;
  level?: number;
}

/** The servers that may be promoted, on each of which the receiver's slot has to be. */
export interface MembersOption {
  /**
   * A conninfo string or settings, whose hosts are the members. They are asked by SQL: `dbname` is a
   * database that the role may connect to, for example postgres.
   */
  connection: ConnectionSettings | string;
  /**
   * `walkeep` creates the slot where it is missing, and moves it on as WAL becomes durable here;
   * `external` only looks: Patroni, CloudNativePG or the like keep it.
   */
  slots: MemberSlotKeeper;
  /** Milliseconds between looks. Default 10000. */
  interval?: number;
}

/** Default of `receiveTimeout`. */
export const RECEIVE_TIMEOUT = 30_000;

/** What a receiver is told. Times are milliseconds. */
export interface WalReceiverOptions {
  /** A conninfo string or URI as libpq takes it, or settings resolved with `resolveSettings`. */
  connection: ConnectionSettings | string;
  /** Existing directory that receives the segment files. */
  directory: string;
  /** Physical replication slot to use. */
  slot?: string;
  /**
   * Create the slot (with RESERVE_WAL) when the server does not have it, and anew when it keeps no
   * WAL: never used, or invalidated. Default false.
   */
  ensureSlot?: boolean;
  /** Sync and report every time new WAL has been written. Default false. */
  synchronous?: boolean;
  /**
   * Without `synchronous`: sync what was written at least so often, so that no more than that can be
   * lost with this machine. Absent: as segments complete.
   */
  syncInterval?: number;
  /** False skips every fsync; what is written counts as flushed, as with --no-sync. Default true. */
  sync?: boolean;
  /** Between unasked status replies; 0 sends none. Default 10000. */
  statusInterval?: number;
  /** Stop once a position beyond this one has been received. */
  endLsn?: Lsn;
  /** Reconnect after a lost connection. Default true. */
  reconnect?: boolean;
  /** Also retry when the very first connection fails for a passing reason. Default true. */
  retryFirstConnection?: boolean;
  /** Fixed delay between connections; absent: back-off with jitter from 0.1 s to 5 s. */
  retryDelay?: number;
  compression?: CompressionOption;
  /**
   * Write WAL that comes in bulk, and with `synchronous` that of commits, past the page cache
   * (O_DIRECT), where the file system can: cheaper, and other programs keep their pages. Default
   * true; never with compression.
   */
  directIo?: boolean;
  /**
   * Files are readable for their group (0640), whatever the server's data directory says; by default as
   * that says, which is what pg_receivewal does. The ledger tells other commands that store here.
   */
  allowGroupAccess?: boolean;
  /** Start beyond the ledger's end although WAL in between is missing; the gap is recorded. */
  acceptGap?: boolean;
  /** Refuse a silent gap against the ledger. False warns instead (upstream's outcome). Default true. */
  refuseGaps?: boolean;
  /**
   * Silence after which the server is asked for a sign of life; disconnected at twice that. Twice
   * that is also the time for an answer, and to connect without connect_timeout. 0: never. Default
   * 30000.
   */
  receiveTimeout?: number;
  /**
   * A silent server is asked for a sign of life after this time already, so that it is known how things
   * are; it is given up no sooner for that. Default: `receiveTimeout`.
   */
  probeAfter?: number;
  /**
   * Check of received WAL: page headers, record CRCs, the xl_prev chain. `strict` (the default)
   * never stores nor acknowledges what fails, `warn` stores it and says so.
   */
  verify?: VerifyMode;
  /**
   * With `synchronous`: `write` (default) tells the write position before the sync where
   * remote_write commits wait for it, `sync` only with the sync, as pg_receivewal does.
   */
  writeReport?: 'write' | 'sync';
  /**
   * `flush` reports apply = flush, so that remote_apply is satisfied although nothing is replayed
   * here: only where no other listed standby serves reads. Default `none`.
   */
  apply?: 'none' | 'flush';
  /** Look at synchronous_standby_names and warn of what would make commits hang. Default true. */
  checkSyncStandby?: boolean;
  /** Asked for a password when the server wants one and none is known. */
  promptPassword?: () => Promise<string>;
  /**
   * Awaited for each segment that is complete, durable and under its final name, one after the other.
   * Until it has resolved no later segment gets its final name, and with 8 waiting nothing more is
   * received; commits are confirmed meanwhile. What it throws ends the receiver with a SinkError.
   *
   * Its signal aborts when the receiver is to stop: all calls have 5 seconds together then, else a
   * SinkError ends it. Segments that were not offered yet are, by the next run.
   *
   * A segment is offered once. A crash between its final name and the end of the call, or a call that
   * throws or takes too long, leaves that one, the newest with a final name, to who looks at the
   * directory at the start.
   */
  onSegment?: (segment: ReceivedSegment, options: { signal: AbortSignal }) => void | Promise<void>;
  /** Keep, or watch, the slot on every member that may be promoted: a failover leaves no gap then. */
  members?: MembersOption;
  /**
   * Other archives of the cluster, of a second receiver: what the server has removed is taken from
   * there, verified, and so is what is missing inside the directory, or before it if it was empty.
   */
  backfill?: BackfillOption;
}

const MEMBERS: Checks<MembersOption> = {
  connection: required(either(aText, anObject)),
  slots: required(oneOf('walkeep', 'external')),
  interval: aTime,
};

const BACKFILL: Checks<BackfillOption> = {
  places: required(listOf(aName, 'a list of places')),
  keys: anObject,
  interval: aTime,
};

const COMPRESSION: Checks<CompressionOption> = {
  method: required(oneOf(...RECEIVED)),
  level: aNumber(0, Math.max(...RECEIVED.map((method) => CODECS[method].levels.max))),
};

/** Checks what a receiver is told. @throws UsageError */
export function checkReceiverOptions(options: WalReceiverOptions): void {
  checkOptions('WalReceiver', options, CHECKS);
  const { compression, synchronous, sync, members, slot, backfill } = options;
  if (members) {
    checkOptions('WalReceiver, members', members, MEMBERS);
    if (slot === undefined) throw new UsageError('WalReceiver: option "members" needs a "slot"');
  }
  if (backfill) checkOptions('WalReceiver, backfill', backfill, BACKFILL);
  if (compression) {
    checkOptions('WalReceiver, compression', compression, COMPRESSION);
    const { method, level } = compression;
    // Nothing comes of the level of what does not compress.
    if (method !== 'none' && level !== undefined) requireLevel('WalReceiver', method, level);
  }
  if (synchronous && sync === false) {
    throw new UsageError('cannot use --synchronous together with --no-sync');
  }
}

const CHECKS: Checks<WalReceiverOptions> = {
  connection: required(either(aText, anObject)),
  directory: required(aName),
  slot: aName,
  ensureSlot: aSwitch,
  synchronous: aSwitch,
  syncInterval: aTime,
  sync: aSwitch,
  statusInterval: aTime,
  endLsn: anLsn,
  reconnect: aSwitch,
  retryFirstConnection: aSwitch,
  retryDelay: aTime,
  compression: anObject,
  directIo: aSwitch,
  allowGroupAccess: aSwitch,
  acceptGap: aSwitch,
  refuseGaps: aSwitch,
  receiveTimeout: aTime,
  probeAfter: aTime,
  verify: oneOf('strict', 'warn', 'off'),
  writeReport: oneOf('write', 'sync'),
  apply: oneOf('none', 'flush'),
  checkSyncStandby: aSwitch,
  promptPassword: aFunction,
  members: anObject,
  backfill: anObject,
  onSegment: aFunction,
};

export type { Backfilled, BackfillOption, MemberState, ReceiverWarning };

/** A segment that is stored. */
export interface ReceivedSegment {
  /** Its end. */
  lsn: Lsn;
  timeline: number;
  path: string;
  /** Bytes of WAL, however it is stored. */
  size: number;
}

/** How far a receiver is. */
export interface ReceiverPosition {
  received: Lsn;
  written: Lsn;
  /** What the server was told to be durable. */
  flushed: Lsn;
  serverEnd: Lsn;
  timeline: number;
}

/** What a receiver counts while it runs. */
export interface ReceiverTally {
  /** Times that WAL which came was not stored: it failed the check, or was not what is stored. */
  refused: number;
  /**
   * Syncs of WAL while it streams, by the time from when it came: those of at most each of `bounds`
   * (seconds) and no less, and last those beyond; `seconds` of all together.
   */
  syncs: { bounds: readonly number[]; counts: readonly number[]; seconds: number };
}

/** The events of a WalReceiver. */
export interface ReceiverEvents {
  /** A connection was made and the server identified. */
  connect: [
    {
      host: string;
      port: number;
      serverVersion: number;
      systemId: bigint;
      timeline: number;
      flushLsn: Lsn;
    },
  ];
  /** With `ensureSlot`: the server had no slot of that name, and has one now. */
  slot: [{ name: string }];
  /** START_REPLICATION is about to be sent. */
  start: [{ lsn: Lsn; timeline: number }];
  /** A segment is complete, durable and under its final name. `lsn` is its end. */
  segment: [ReceivedSegment];
  /** A segment was taken from another archive: durable, and under its final name. */
  backfill: [Backfilled];
  /** The stream goes on on another timeline; `lsn` is where the old one was left. */
  timeline: [{ timeline: number; lsn: Lsn }];
  /** Positions moved (at most a few times a second). */
  progress: [ReceiverPosition];
  /** An incomplete segment was closed and keeps its `.partial` name (bare file name). */
  partial: [{ file: string }];
  /**
   * `run` ends without an error: the end LSN was reached or a stop was asked for. `lsn` is the last
   * position received; 0/0 on timeline 0 before any stream.
   */
  stop: [{ lsn: Lsn; timeline: number; reason: 'endpos' | 'signal' }];
  warning: [ReceiverWarning];
  /**
   * WAL was received that the timeline which is followed now does not have: from where that left
   * `timeline` to the last record that is stored. It stays in its files.
   */
  diverged: [{ timeline: number; from: Lsn; to: Lsn; followed: number }];
  /** With `members`: one was looked at for the first time, or is not what it was. */
  member: [MemberState];
  /** The connection is gone; `retryIn` is undefined when no further try is made. */
  disconnect: [{ error: WalkeepError; retryIn: number | undefined }];
}
