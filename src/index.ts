/**
 * The public API of walkeep. Everything else below `dist` may change without notice.
 * @packageDocumentation
 */

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
export type {
  BackupProgress,
  BackupWarning,
  TakeBackupOptions,
  TakenBackup,
  TakenCompression,
} from './backup/options.js';
export type {
  BackupObject,
  BackupPoint,
  BackupRecord,
  BackupTablespace,
  BackupTar,
  OutsideFile,
} from './base/backup-record.js';
export type { WalRange } from './base/manifest.js';
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
export type { VerifyMode } from './receive/inspector.js';
export type {
  CompressionOption,
  ReceiverEvents,
  ReceiverWarning,
  WalReceiverOptions,
} from './receive/options.js';
export { WalReceiver } from './receive/receiver.js';
export { type StreamWalOptions, streamWal, type WalSink } from './receive/sink.js';
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
export type {
  KeepLocal,
  ShipCompression,
  ShipEvents,
  ShipLag,
  ShipOptions,
  ShippedPlace,
  ShipResult,
  ShipWarning,
} from './ship/options.js';
export { ship, WalShipper } from './ship/shipper.js';
export * from './wal.js';
