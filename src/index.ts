/**
 * The public API of walkeep. Everything else below `dist` may change without notice.
 * @packageDocumentation
 */

export type { Finding } from './archive/findings.js';
export {
  type AgainEntry,
  type DamageEntry,
  type GapEntry,
  type LedgerEntry,
  type LedgerState,
  type OpenEntry,
  type PositionEntry,
  readLedger,
  type TimelineEntry,
  type TimelineReason,
} from './archive/ledger.js';
export type { HistoryFile, SegmentFile } from './archive/listing.js';
export type { HeldFile, ShipTrouble } from './archive/shipping/progress.js';
export { readShipProgress, type ShipStatus } from './archive/shipping/read-ship-progress.js';
export type { LocatedTarget, RecoveryTarget } from './archive/targets/target.js';
export { type DirectoryScan, scanDirectory } from './archive/wal-directory.js';
export { takeBackup } from './backup/backup.js';
export { type MergedBackup, type MergeOptions, mergeBackup } from './backup/merge.js';
export type {
  BackupProgress,
  BackupWarning,
  TakeBackupOptions,
  TakenBackup,
  TakenCompression,
} from './backup/options.js';
export type { BackupFile, BackupList, ListedBackup } from './backups/list-backups.js';
export type {
  BackupObject,
  BackupPoint,
  BackupRecord,
  BackupTablespace,
  BackupTar,
  OutsideFile,
} from './base/backup-record.js';
export type { WalRange } from './base/manifest.js';
export type { CheckReport } from './check/check.js';
export type { CheckResult, CheckStatus } from './check/result.js';
export type {
  BackupArchive,
  BaseBackupHandler,
  BaseBackupStream,
} from './connection/base-backup.js';
export { type ConnectOptions, connect } from './connection/connect.js';
export type { ReplicationConnection } from './connection/connection.js';
export { type ConninfoInput, resolveSettings } from './connection/conninfo/resolve.js';
export type {
  AuthMethod,
  ConnectionSettings,
  HostTarget,
  SslMode,
  TargetSessionAttrs,
} from './connection/conninfo/settings.js';
export type { ReplicationMode } from './connection/startup.js';
export type { WalStream } from './connection/wal-stream.js';
export * from './errors.js';
export type { FetchResult } from './fetch/fetch.js';
export type { BranchEvent, TransactionEvent, WalEvent } from './find/event.js';
export type { FindOptions, FindProgress, FindResult } from './find/find.js';
export { LoggedRecord } from './library/logged-record.js';
export {
  type CheckArchiveOptions,
  type CleanupResult,
  type OpenArchiveOptions,
  openArchive,
  WalArchive,
} from './library/open-archive.js';
export {
  type ArchivedRecordsOptions,
  type LiveRecordsOptions,
  type RecordSelection,
  walRecords,
} from './library/wal-records.js';
export type { ArchiveList, ListedRange, ListedTimeline } from './list/list.js';
export type { ResultField, ServerNotice } from './protocol/backend-message.js';
export type {
  BackupCompression,
  BackupPosition,
  BackupTablespace as SentTablespace,
  BaseBackupOptions,
} from './protocol/base-backup.js';
export type { CopyBothHandler } from './protocol/frame-reader.js';
export type {
  QueryResult,
  SlotOptions,
  SlotPosition,
  StartReplicationOptions,
  StreamEnd,
  SystemIdentification,
  TimelineHistoryFile,
} from './protocol/replication.js';
export type { StandbyStatus } from './protocol/status-reply.js';
export type { PushOptions, PushResult } from './push/push.js';
export type { VerifyMode } from './receive/inspector.js';
export type {
  Backfilled,
  BackfillOption,
  CompressionOption,
  MemberState,
  MembersOption,
  ReceivedSegment,
  ReceiverEvents,
  ReceiverPosition,
  ReceiverTally,
  ReceiverWarning,
  WalReceiverOptions,
} from './receive/options.js';
export { WalReceiver } from './receive/receiver.js';
export {
  type SinkOpening,
  type SinkTimeline,
  type StreamWalOptions,
  streamWal,
  type WalSink,
} from './receive/sink.js';
export type {
  RehearsedQuery,
  RehearsedReading,
  RehearsedServer,
  RehearseFinding,
  RehearseOptions,
  RehearseProblem,
  RehearseProgress,
  RehearseReport,
  RehearseStep,
} from './rehearse/options.js';
export { rehearse } from './rehearse/rehearse.js';
export { type FinishResult, finishRestore } from './restore/finish.js';
export type {
  DeltaCompared,
  DeltaPlan,
  RestoreOptions,
  RestorePlan,
  RestoreProgress,
  RestoreResult,
} from './restore/options.js';
export { planRestore, restoreBackup } from './restore/restore.js';
export { parseTarget, type WrittenTarget } from './restore/target-text.js';
export type { MemberCover, MemberReason, MemberSlotKeeper } from './server/member-slot.js';
export type {
  KeepLocal,
  PlaceStatus,
  ShipCompression,
  ShipEvents,
  ShipLag,
  ShipOptions,
  ShippedPlace,
  ShipperStatus,
  ShipResult,
  ShipWarning,
} from './ship/options.js';
export { ship, WalShipper } from './ship/shipper.js';
export type {
  VerifyOptions,
  VerifyProgress,
  VerifyResult,
  VerifySummary,
} from './verify/verify.js';
export * from './wal.js';
