import type { WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import type { TimelineHistory } from '../wal/timeline.js';
import type { Archive } from './archive.js';
import type { StoredWal } from './good-wal.js';
import type { GapEntry, LedgerState } from './ledger.js';
import type { SegmentFile, StrayEntry } from './listing.js';

/** All files of one segment of one timeline. */
export interface CatalogSegment {
  /** Segment number: LSN divided by the segment size. */
  segment: bigint;
  /**
   * The best to read first: complete before partial, of partials that which holds most good WAL,
   * then the cheapest to decompress.
   */
  files: SegmentFile[];
  /** What the best of its files holds; only of partials for which that was measured. */
  stored?: StoredWal;
}

/** Segments of one timeline without one missing in between. */
export interface SegmentRange {
  /** LSN of the first byte of the first segment. */
  from: Lsn;
  /** LSN behind the last byte of the last segment, partial or not. */
  to: Lsn;
  segments: CatalogSegment[];
}

/** One timeline of an archive. */
export interface CatalogTimeline {
  timeline: number;
  /** Its ancestors, as far as a history file (its own or a child's) or the ledger tells them. */
  history: TimelineHistory | undefined;
  /** Ascending; empty if only a history file speaks of this timeline. */
  segments: CatalogSegment[];
  /** Ascending. */
  ranges: SegmentRange[];
  /** Absent for a timeline on the way of the one that is received, or behind it. */
  beside?: Beside;
}

/** A timeline history file of an archive. */
export interface CatalogHistory {
  name: string;
  timeline: number;
  /** Absent if the file is damaged. */
  history?: TimelineHistory;
  problem?: WalkeepError;
}

/** What an archive directory holds, by names, history files, ledger and a sample of headers. */
export interface Catalog {
  archive: Archive;
  /** Bytes: the ledger's, else what most of a sample of the segments say. */
  segmentSize: number;
  /** The cluster's: the ledger's, else that of most of a sample; undefined if nothing tells. */
  systemId: bigint | undefined;
  /** XLOG_BLCKSZ, bytes. */
  blockSize: number;
  /** xlp_magic of most of the sample: which major version wrote the WAL. */
  magic: number | undefined;
  ledger: LedgerState | undefined;
  /** Why there is no `ledger` though there is its file. */
  ledgerProblem: WalkeepError | undefined;
  /** Every timeline that has a segment or a history file, ascending. */
  timelines: CatalogTimeline[];
  /** Ascending by timeline. */
  histories: CatalogHistory[];
  /** Segments missing on the way of any timeline of the archive, ascending. */
  gaps: SegmentGap[];
  /** In the order of their names. */
  strays: StrayEntry[];
  /** Segments that are here only in forms that cannot be read, ascending. */
  unread: UnreadSegment[];
}

/** A segment in a form that cannot be read, such as `F.xz`, of which no other complete file is here. */
export interface UnreadSegment {
  /** Bare file name. */
  name: string;
  timeline: number;
  segment: bigint;
}

/**
 * How a timeline stands beside the way of the one that is received. `abandoned`: receiving left it
 * for another, or passed it by. `unfollowed`: it is later than that one, was never received, and
 * left the way before what was received: a clone pushed it, or a server that the receiver has not
 * found yet. Recovery to the latest timeline follows it all the same.
 */
export type Beside = 'abandoned' | 'unfollowed';

/** Segments of one timeline that should be there and are not. */
export interface SegmentGap {
  timeline: number;
  /** LSN of the first missing byte. */
  from: Lsn;
  /** LSN behind the last one, as far as is known. */
  to: Lsn;
  /** The ledger's note that the operator accepted it. */
  accepted?: GapEntry;
  /** Only the way to a timeline beside the one that is received leads over it. */
  beside?: Beside;
}
