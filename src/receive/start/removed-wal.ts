import { type WalkeepError, WalRemovedError } from '../../errors.js';
import type { Lsn } from '../../lsn.js';
import { segmentFileName, segmentOf } from '../../wal/file-name.js';
import { childTimeline, type TimelineHistory, timelineEnd } from '../../wal/timeline.js';

/** What a server was asked for when it said that it lacks the WAL. */
export interface AskedStream {
  timeline: number;
  history: TimelineHistory;
  segmentSize: number;
  /** The start is the end of the newest file, and the ledger has complete segments behind it. */
  completeBeyond: boolean;
  /**
   * End of the segment at the start, if that lacks only its name and nothing tells whether it was
   * acknowledged as a whole: servers before 15 do not tell where their slot stands.
   */
  unproved: Lsn | undefined;
  /** WAL that is lost may be gone over. */
  mayGoOver: boolean;
}

/** What servers said that they lack. */
export interface ServerLacks {
  /** The WAL wanted is lost, and going over that is accepted. */
  readonly goesOver: boolean;
  /** What follows the newest file is not there. */
  readonly behindNewestGone: boolean;
  /** There is no file for the last segment of this timeline. */
  readonly lastSegmentGone: number | undefined;
  /**
   * Up to here the slot was moved by acknowledgements of this directory: the server, which keeps what
   * its slot asks for, has removed the segment before.
   */
  readonly released: { timeline: number; lsn: Lsn } | undefined;
}

/**
 * Remembers what servers said that they lack, for the next choice of a start. That one file is not there says
 * nothing yet about the WAL: another file may hold it, or the archive has it and it was moved away.
 * Each of the ways is tried once, until WAL comes again.
 */
export class RemovedWal implements ServerLacks {
  goesOver = false;
  behindNewestGone = false;
  lastSegmentGone: number | undefined;
  released: { timeline: number; lsn: Lsn } | undefined;

  /** Takes note of a failed stream; true if another start is worth a try, at once. */
  leadsOn(error: WalkeepError, asked: AskedStream | undefined): boolean {
    if (!(error instanceof WalRemovedError) || !asked) return false;
    if (lookedForChild(error, asked) && asked.timeline > (this.lastSegmentGone ?? 0)) {
      this.lastSegmentGone = asked.timeline;
      return true;
    }
    if (lacksUnproved(error, asked) && asked.unproved > (this.released?.lsn ?? 0n)) {
      this.released = { timeline: asked.timeline, lsn: asked.unproved };
      return true;
    }
    // Without a name it is the slot that is invalid.
    if (asked.completeBeyond && error.file !== undefined && !this.behindNewestGone) {
      this.behindNewestGone = true;
      return true;
    }
    if (!asked.mayGoOver || this.goesOver) return false;
    this.goesOver = true;
    return true;
  }

  /** WAL was stored: the next failure is a new one. */
  reset(): void {
    this.goesOver = false;
    this.behindNewestGone = false;
    this.lastSegmentGone = undefined;
    this.released = undefined;
  }
}

/** True if what the server lacks is just the segment of which nothing tells if it was acknowledged. */
function lacksUnproved(
  { file }: WalRemovedError,
  asked: AskedStream,
): asked is AskedStream & { unproved: Lsn } {
  const { timeline, segmentSize, unproved } = asked;
  if (unproved === undefined) return false;
  return (
    file === segmentFileName(timeline, segmentOf((unproved - 1n) as Lsn, segmentSize), segmentSize)
  );
}

/**
 * True if the server wanted to read the end of an ancestor out of its child's file, as it does with
 * the segment in which the child begins: other files may hold that too.
 */
export function lookedForChild(
  { file }: WalRemovedError,
  { timeline, history, segmentSize }: Pick<AskedStream, 'timeline' | 'history' | 'segmentSize'>,
): boolean {
  const end = timelineEnd(history, timeline);
  const child = childTimeline(history, timeline);
  if (end === undefined || child === undefined) return false;
  return file === segmentFileName(child, segmentOf(end, segmentSize), segmentSize);
}
