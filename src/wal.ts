/**
 * `walkeep/wal`: positions, names of files, timelines, and WAL as records, with nothing that connects,
 * stores or starts anything.
 * @packageDocumentation
 */

export { formatLsn, INVALID_LSN, type Lsn, parseLsn, toLsn } from './lsn.js';
export { DEFAULT_MAX_RECORD, WalDecoder, type WalDecoderOptions } from './wal/decoder.js';
export type { WalEnd, WalFault, WalFaultKind } from './wal/fault.js';
export {
  type Compression,
  compressionSuffix,
  floorToSegment,
  historyFileName,
  isValidSegmentSize,
  MAX_SEGMENT_SIZE,
  MIN_SEGMENT_SIZE,
  parseHistoryFileName,
  parseSegmentFileName,
  type SegmentName,
  segmentFileName,
  segmentOf,
  segmentOffset,
  segmentStart,
} from './wal/file-name.js';
export { type RecordHeader, rmgrName, type WalRecord } from './wal/record.js';
export {
  type BlockReference,
  type PageImage,
  parseRecordBody,
  type RecordBody,
  type RecordBodyOptions,
} from './wal/records/record-body.js';
export type { RelFileLocator } from './wal/records/relation.js';
export { formatIsoTimestamp, formatTimestamp, type TimestampTz } from './wal/records/timestamp.js';
export {
  type DroppedStatistics,
  parseXactRecord,
  RM_XACT,
  type TransactionEnd,
  type TransactionPrepare,
} from './wal/records/xact.js';
export {
  childTimeline,
  isInHistory,
  parseTimelineHistory,
  rootHistory,
  type TimelineHistory,
  type TimelineSwitch,
  timelineAt,
  timelineEnd,
} from './wal/timeline.js';
export { WalVerifier } from './wal/verifier.js';
export type { WalOptions } from './wal/walker.js';
