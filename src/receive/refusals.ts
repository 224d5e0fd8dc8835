import {
  CorruptWalError,
  type RewriteError,
  type WalkeepError,
  WalRemovedError,
} from '../errors.js';
import type { Lsn } from '../lsn.js';
import { floorToSegment } from '../wal/file-name.js';
import { LONG_PAGE_HEADER } from '../wal/page.js';
import { type TimelineHistory, timelineEnd } from '../wal/timeline.js';

/** Tries after which a server that keeps sending bad WAL is given up. */
const MAX_TRIES = 3;

/** Where WAL was refused: asked for again from the segment of `verifiedEnd`. */
export interface Refusal {
  /** The one that V lies on. */
  timeline: number;
  /** The one that was streamed: later if the bad record began before that stream did. */
  streamed: number;
  /** V: nothing below is known to be bad; bytes from here on may be replaced. */
  verifiedEnd: Lsn;
  /** Behind the bytes that failed: once WAL up to here is stored, it came right. */
  end: Lsn;
  error: WalkeepError;
}

/**
 * Remembers refused WAL over reconnects. The record that failed may have come damaged over the
 * network or out of a bad page of memory, so it is asked for again, a bounded number of times.
 */
export class Refusals {
  current: Refusal | undefined;
  /** Times that anything was refused. */
  total = 0;
  private tries = 0;
  private rewrite: { error: RewriteError; tries: number } | undefined;

  note(refusal: Refusal): void {
    this.total += 1;
    this.current = refusal;
    this.tries += 1;
  }

  /** Other bytes than the stored ones came; on their way they may have been the same. */
  noteRewrite(error: RewriteError): void {
    this.total += 1;
    this.rewrite = { error, tries: (this.rewrite?.tries ?? 0) + 1 };
  }

  /**
   * WAL is stored up to `written` on the timeline of `history`. Beyond V that says nothing yet: the
   * start of a long record that turns out bad at its end is stored again with every try.
   */
  stored(written: Lsn, history: TimelineHistory): void {
    const rewritten = this.rewrite?.error.lsn;
    if (rewritten !== undefined && written > rewritten) this.rewrite = undefined;
    const refused = this.current;
    if (!refused || written < cameRight(refused, history)) return;
    this.current = undefined;
    this.tries = 0;
  }

  /**
   * On the last try: the start of the segment in which WAL was refused, if no record before that in
   * the segment was good. What comes first is what does not fit to the segment before, if any.
   */
  doubtedJoint(segmentSize: number): Lsn | undefined {
    const { current, tries } = this;
    if (!current || tries < MAX_TRIES) return undefined;
    const joint = floorToSegment(current.error.lsn ?? current.verifiedEnd, segmentSize);
    return current.verifiedEnd <= joint + BigInt(LONG_PAGE_HEADER) ? joint : undefined;
  }

  /** True if the refused WAL should be asked for once more. */
  mayAskAgain(error: WalkeepError): boolean {
    if (error === this.rewrite?.error) return this.rewrite.tries <= MAX_TRIES;
    return error === this.current?.error && this.tries <= MAX_TRIES;
  }

  /** The error to end with: that the WAL is bad outweighs that it can no longer be had again. */
  final(error: WalkeepError): WalkeepError {
    const refused = this.current;
    if (!refused || !(error === refused.error || error instanceof WalRemovedError)) return error;
    const why =
      error === refused.error
        ? 'the server keeps sending damaged WAL'
        : 'received WAL was damaged, and the server no longer has it';
    return new CorruptWalError(`${why}: ${refused.error.message}`, {
      lsn: refused.verifiedEnd,
      cause: refused.error,
      detail:
        'Receiving stopped; no record behind the last good one was acknowledged to its end, so commits that wait for this receiver wait from now on. The refused bytes are kept in .walkeep-refused-* files.',
      hint: 'Check the server (pg_waldump there, memory, disk). --verify=warn goes on and stores the WAL as it comes.',
    });
  }
}

/** Up to where WAL has to be stored for a refusal to be over. */
function cameRight({ streamed, verifiedEnd, end }: Refusal, history: TimelineHistory): bigint {
  const fork = timelineEnd(history, streamed);
  if (fork === undefined || fork >= end) return end;
  // From the fork on nothing that was refused is part of this history.
  return fork <= verifiedEnd ? 0n : fork;
}
