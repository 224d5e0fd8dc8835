import { formatLsn, type Lsn } from '../lsn.js';
import type { ServerFacts, WalSender } from '../server/server-facts.js';
import { formatBinaryBytes, formatSeconds } from '../units.js';
import type { ArchiveFacts } from './archive-facts.js';
import { type CheckResult, judge } from './result.js';

/** What would be lost if the server were lost now. */
export interface RecoveryPoint {
  /** Bytes between the archive's durable end and the server's flush position. */
  bytes: bigint;
  /** Seconds of work in them at most; undefined where nothing tells. */
  seconds: number | undefined;
  /** Seconds since the server last heard of the receiver; undefined where that is not visible. */
  silence: number | undefined;
}

/** How far the archive may be behind; what is left out bounds nothing. */
export interface LagLimit {
  /** Bytes of WAL. */
  bytes?: number | undefined;
  /** Milliseconds. */
  age?: number | undefined;
}

/** What is asked of the recovery point. */
export interface LagDemands {
  /** A warning beyond it, instead of beyond two segments. */
  warning?: LagLimit | undefined;
  /** A failure beyond it, instead of beyond 64 segments. */
  critical?: LagLimit | undefined;
}

/** Segments that the archive may be behind: a flush comes with the end of each at the latest. */
const FEW = 2n;
const MANY = 64n;

/** The archive's end against the server's; undefined if the archive has nothing of this server. */
export function recoveryPoint(
  { state }: ServerFacts,
  archive: ArchiveFacts,
  walSender: WalSender | undefined,
): RecoveryPoint | undefined {
  const from = durableEnd(state.timeline, archive, walSender);
  if (from === undefined) return undefined;
  // The archive was looked at later: it may be ahead of what the server said.
  const bytes = state.flushLsn > from ? state.flushLsn - from : 0n;
  const silence = silenceOf(walSender);
  const seconds = bytes === 0n ? 0 : secondsBehind(archive, walSender, silence);
  return { bytes, seconds, silence };
}

/** The receiver stamps its replies with its own clock, which is ours where the archive is local. */
function silenceOf(walSender: WalSender | undefined): number | undefined {
  const { repliedAt } = walSender ?? {};
  return repliedAt === undefined ? undefined : Math.max(0, Date.now() / 1000 - repliedAt);
}

/**
 * How old the WAL can be that is not durable here. The lag that the server shows was measured with
 * the last reply and stands still with a receiver that stands still: the time since counts too.
 */
function secondsBehind(
  { lastWriteAge, lastSegmentAge }: ArchiveFacts,
  walSender: WalSender | undefined,
  silence: number | undefined,
): number | undefined {
  // What comes late now may have been written any time ago.
  if (walSender?.state === 'catchup') return undefined;
  const { writeLsn, flushLsn, flushLag = 0 } = walSender ?? {};
  if (silence === undefined || flushLsn === undefined) return inSeconds(lastWriteAge);
  if (writeLsn === flushLsn) return silence + flushLag;
  // Flushed with each segment only: all that is missing came after the last one was full.
  const since = inSeconds(lastSegmentAge);
  return since === undefined ? undefined : Math.max(since, silence + flushLag);
}

const inSeconds = (ms: number | undefined) => (ms === undefined ? undefined : ms / 1000);

/**
 * Up to where the archive is durable: what the receiver has reported to the server, and counts
 * anew at each start, or the ledger. Where neither is to be seen, up to where the files have WAL.
 */
export function durableEnd(
  timeline: number,
  { end, catalog: { ledger } }: ArchiveFacts,
  walSender: WalSender | undefined,
): Lsn | undefined {
  const reported = walSender?.flushLsn;
  if (reported === undefined) return end?.lsn;
  const recorded = ledger?.timeline === timeline ? ledger.end : undefined;
  return recorded !== undefined && recorded > reported ? recorded : reported;
}

/** Seconds without an answer beyond those after which a receiver is asked. */
const ANSWER = 10;
/** Seconds without a reply that are too many where the server never asks. */
const QUIET = 60;
/** Milliseconds behind which nothing was written just now: the archive is looked at after the server. */
const SETTLED = 10_000;

/** True if the server lacks WAL of its timeline that the archive has. */
function isBehind({ state }: ServerFacts, { end, lastWriteAge }: ArchiveFacts): boolean {
  if (end?.timeline !== state.timeline || (lastWriteAge ?? 0) < SETTLED) return false;
  return end.lsn > state.flushLsn + BigInt(state.segmentSize);
}

/** How far the archive is behind. */
export function checkPosition(
  server: ServerFacts,
  archive: ArchiveFacts,
  point: RecoveryPoint | undefined,
  { walSenderTimeout, warning, critical }: LagDemands & { walSenderTimeout?: number | undefined },
): CheckResult {
  const { ok, warn, fail } = judge('recovery point');
  const { flushLsn, segmentSize } = server.state;
  if (!point || !archive.end) {
    return fail(
      `nothing of the server's WAL up to ${formatLsn(flushLsn)} is in the directory`,
      'Start "walkeep receive".',
    );
  }
  if (isBehind(server, archive)) {
    return warn(
      `the archive has WAL up to ${formatLsn(archive.end.lsn)}, the server only up to ${formatLsn(flushLsn)}`,
      'A standby that lags behind catches up; a server that was restored from an older copy goes its own way: use a new directory for it.',
    );
  }
  const { bytes, seconds, silence } = point;
  const time = seconds === undefined ? 'an unknown time' : `at most ${formatSeconds(seconds)}`;
  if (bytes === 0n) return ok(`the archive has all WAL up to ${formatLsn(flushLsn)}`);
  const patience = walSenderTimeout ? walSenderTimeout / 2 + ANSWER : QUIET;
  const silent = silence !== undefined && silence > patience;
  const quiet = silent ? `; the receiver has said nothing for ${formatSeconds(silence)}` : '';
  const text = `${formatBinaryBytes(Number(bytes))} behind the server (${formatLsn(flushLsn)}), ${time}${quiet}`;
  const hint = 'See that the receiver runs, and that network and disk keep up.';
  const segments = (n: bigint): LagLimit => ({ bytes: Number(n * BigInt(segmentSize)) });
  const tooFar = beyond(point, critical ?? segments(MANY));
  if (tooFar !== undefined) return fail(critical ? `${text}; ${tooFar}` : text, hint);
  const far = beyond(point, warning ?? segments(FEW));
  if (far !== undefined) return warn(warning ? `${text}; ${far}` : text, hint);
  // Of a time that nothing tells nobody knows that it is short enough.
  const timed = warning?.age !== undefined || critical?.age !== undefined;
  const unsure = seconds === undefined && timed;
  return silent || unsure ? warn(text, hint) : ok(text);
}

/** Which limit was passed, in words; undefined if none was. */
function beyond({ bytes, seconds }: RecoveryPoint, limit: LagLimit): string | undefined {
  if (limit.bytes !== undefined && bytes > BigInt(limit.bytes)) {
    return `it may be ${formatBinaryBytes(limit.bytes)}`;
  }
  if (limit.age !== undefined && seconds !== undefined && seconds > limit.age / 1000) {
    return `it may be ${formatSeconds(limit.age / 1000)}`;
  }
  return undefined;
}
