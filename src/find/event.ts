import type { FoundRecord } from '../archive/way/packed.js';
import type { Branch } from '../archive/way/plan.js';
import type { Damage } from '../archive/way/scan.js';
import { CorruptWalError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import {
  kindOf,
  NOTED,
  type RecordKinds,
  RM_XLOG,
  RMGR_INFO_MASK,
  recordKinds,
} from '../wal/record.js';
import {
  type DatabaseDrop,
  invalidatedDatabase,
  mayBeDatabaseDrop,
  parseDatabaseDrop,
  RM_DBASE,
} from '../wal/records/database.js';
import { HEAP_INPLACE, parseInplaceUpdate, RM_HEAP } from '../wal/records/heap-inplace.js';
import { namedRelation } from '../wal/records/pg-class.js';
import { parseRecordBody } from '../wal/records/record-body.js';
import { GLOBAL_TABLESPACE, type RelFileLocator } from '../wal/records/relation.js';
import { parseSmgrRecord, type RelationTruncate, RM_SMGR } from '../wal/records/smgr.js';
import type { TimestampTz } from '../wal/records/timestamp.js';
import {
  parseXactRecord,
  RM_XACT,
  type TransactionEnd,
  type TransactionPrepare,
  XACT_ABORT,
  XACT_ABORT_PREPARED,
  XACT_COMMIT,
  XACT_OPMASK,
} from '../wal/records/xact.js';
import {
  type Checkpoint,
  type EndOfRecovery,
  parseXlogRecord,
  type RestorePoint,
  XLOG_CHECKPOINT_ONLINE,
  XLOG_END_OF_RECOVERY,
  XLOG_RESTORE_POINT,
} from '../wal/records/xlog-records.js';

/** Where an event stands. */
export interface Place {
  /** The record's first byte: what recovery_target_lsn is compared with. */
  lsn: Lsn;
  /** Where the next record can begin. */
  endLsn: Lsn;
  /** The timeline that owns `lsn`. */
  onTimeline: number;
}

/** What a relation was called where the WAL has its row: when it was vacuumed or analyzed, mostly. */
export interface KnownName {
  /** Of the relation. */
  oid: number;
  name: string;
  /** The record that has it. A later rename is not seen. */
  asOf: Lsn;
}

/** What a transaction did to files besides what its end says. */
export interface FileChanges {
  /** Files cut by VACUUM, or by TRUNCATE in the transaction that made them. */
  truncated: readonly RelFileLocator[];
  /** Those of `truncated` of which nothing stayed. */
  emptied: readonly RelFileLocator[];
  /** Files that the transaction made: new relations, and new files of rewritten ones. */
  created: readonly RelFileLocator[];
  droppedDatabases: readonly DatabaseDrop[];
  /** Of what was removed or emptied, the names that the WAL read so far has; absent if it has none. */
  names?: readonly KnownName[];
  /**
   * Recovery that stops before this record has nothing of the transaction. Its own commit, except
   * where a database was dropped: replay removes its files, and marks it invalid, earlier.
   */
  undoLsn: Lsn;
}

export type TransactionEvent = TransactionEnd & FileChanges & Place;
export type PrepareEvent = TransactionPrepare & Place;
export type BranchEvent = { kind: 'branch' } & Branch;

/** Something that matters to whoever looks for a point to recover to. */
export type WalEvent =
  | TransactionEvent
  | PrepareEvent
  | (RestorePoint & Place)
  | (Checkpoint & Place)
  | (EndOfRecovery & Place)
  | BranchEvent
  | Damage;

/** When it happened, by the server's clock; undefined where the WAL does not say. */
export function eventTime(event: WalEvent): TimestampTz | undefined {
  return 'time' in event && event.kind !== 'checkpoint' ? event.time : undefined;
}

/** True for a commit that removed files of relations or databases, or emptied them. */
export function dropsFiles(event: WalEvent): event is TransactionEvent {
  return (
    event.kind === 'commit' &&
    event.dropped.length + event.emptied.length + event.droppedDatabases.length > 0
  );
}

/** Which records `EventReader` wants. */
function isWanted(rmgr: number, info: number): boolean {
  const type = info & RMGR_INFO_MASK;
  switch (rmgr) {
    case RM_XACT:
      return (info & XACT_OPMASK) <= XACT_ABORT_PREPARED;
    case RM_XLOG:
      return (
        type <= XLOG_CHECKPOINT_ONLINE ||
        type === XLOG_RESTORE_POINT ||
        type === XLOG_END_OF_RECOVERY
      );
    case RM_SMGR:
      return true;
    case RM_DBASE:
      return mayBeDatabaseDrop(info);
    default:
      return rmgr === RM_HEAP && (info & HEAP_INPLACE) === HEAP_INPLACE;
  }
}

export const WANTED = recordKinds(isWanted);
/** The same, of plain ends of transactions only that they were. */
export const WANTED_BUT_ENDS = WANTED.slice() as RecordKinds;
for (const type of [XACT_COMMIT, XACT_ABORT]) WANTED_BUT_ENDS[kindOf(RM_XACT, type)] = NOTED;

/** Transactions in progress that something is remembered of; the oldest is forgotten first. */
const MAX_PENDING = 10_000;
/** Names of relations remembered. */
const MAX_NAMES = 100_000;
/** Files remembered of one transaction. */
const MAX_FILES = 10_000;

interface Pending {
  truncates: RelationTruncate[];
  created: RelFileLocator[];
  droppedDatabases: DatabaseDrop[];
  undoLsn?: Lsn;
  gid?: string;
}

const NO_CHANGES = { truncated: [], emptied: [], created: [], droppedDatabases: [] };

function addChanges(changes: FileChanges, pending: Pending): void {
  const { truncates, created, droppedDatabases, undoLsn } = pending;
  const emptied = truncates.filter((t) => t.blocks === 0);
  changes.truncated = [...changes.truncated, ...truncates.map((t) => t.relation)];
  changes.emptied = [...changes.emptied, ...emptied.map((t) => t.relation)];
  changes.created = [...changes.created, ...created];
  changes.droppedDatabases = [...changes.droppedDatabases, ...droppedDatabases];
  if (undoLsn !== undefined && undoLsn < changes.undoLsn) changes.undoLsn = undoLsn;
}

/** Makes events of records, given in their order. */
export class EventReader {
  readonly #pending = new Map<number, Pending>();
  /** Where databases were marked as about to be dropped, by OID. */
  readonly #invalidated = new Map<number, Lsn>();
  /** Names of relations, by database and file. */
  readonly #names = new Map<string, KnownName>();
  readonly #timelineAt: (lsn: Lsn) => number;

  constructor(timelineAt: (lsn: Lsn) => number) {
    this.#timelineAt = timelineAt;
  }

  /** True if something waits for one of these ends, or would once the records have been read. */
  awaits(ended: Int32Array, records: () => Iterable<FoundRecord>): boolean {
    const begun = new Set<number>();
    for (const { rmgr, xid } of records()) if (rmgr !== RM_XACT) begun.add(xid);
    if (begun.size === 0 && this.#pending.size === 0) return false;
    return ended.some((bits) => begun.has(bits >>> 0) || this.#pending.has(bits >>> 0));
  }

  /**
   * The event that a record is; undefined if it is none, but perhaps part of one to come.
   * @throws CorruptWalError if its contents are not what its type says
   */
  read(record: FoundRecord, major: number | undefined): WalEvent | undefined {
    const { lsn, endLsn, rmgr, info } = record;
    if (!record.body) throw new CorruptWalError('record is too long to be read', { lsn });
    if (rmgr === RM_HEAP) {
      this.#inplace(lsn, record.body, major);
      return undefined;
    }
    const { data } = parseRecordBody(record.body, { major });
    const place = { lsn, endLsn, onTimeline: this.#timelineAt(lsn) };
    if (rmgr === RM_XACT) return this.#transaction(record, data, major, place);
    if (rmgr === RM_XLOG) {
      const contents = parseXlogRecord(info, data);
      return contents && contents.kind !== 'switch' ? { ...contents, ...place } : undefined;
    }
    if (rmgr === RM_SMGR) this.#storage(record, data);
    else this.#database(record, data, major);
    return undefined;
  }

  #transaction(
    record: FoundRecord,
    data: Uint8Array,
    major: number | undefined,
    place: Place,
  ): WalEvent | undefined {
    const contents = parseXactRecord(record, data, major);
    if (!contents) return undefined;
    if (contents.kind === 'prepare') {
      this.#of(contents.xid).gid = contents.gid;
      return { ...place, ...contents };
    }
    const { xid, subxids } = contents;
    const changes: FileChanges = { ...NO_CHANGES, undoLsn: place.lsn };
    let gid = contents.gid;
    // Most transactions leave nothing behind: of them nothing is allocated here.
    const collect = (one: number): void => {
      const pending = this.#pending.get(one);
      if (!pending) return;
      this.#pending.delete(one);
      if (contents.prepared) gid ??= pending.gid;
      addChanges(changes, pending);
    };
    collect(xid);
    for (const subxid of subxids) collect(subxid);
    const names = contents.kind === 'commit' ? this.#namesOf(contents.dropped, changes) : [];
    if (names.length > 0) changes.names = names;
    return Object.assign(contents, changes, place, gid === undefined ? undefined : { gid });
  }

  #namesOf(dropped: readonly RelFileLocator[], { emptied }: FileChanges): KnownName[] {
    const found = new Map<number, KnownName>();
    if (this.#names.size === 0) return [];
    for (const { dbOid, relNumber } of [...dropped, ...emptied]) {
      const known = this.#names.get(`${dbOid} ${relNumber}`);
      if (known) found.set(known.oid, known);
    }
    return [...found.values()];
  }

  #storage({ info, xid }: FoundRecord, data: Uint8Array): void {
    const change = parseSmgrRecord(info, data);
    if (!change || xid === 0) return;
    const pending = this.#of(xid);
    if (pending.truncates.length + pending.created.length >= MAX_FILES) return;
    if (change.kind === 'truncate') pending.truncates.push(change);
    // Maps and init forks come with a main fork.
    else if (change.fork === 0) pending.created.push(change.relation);
  }

  /** DROP DATABASE says so in the database's row first, and no abort takes that back. */
  #inplace(lsn: Lsn, body: Uint8Array, major: number | undefined): void {
    const { relation, row } = parseInplaceUpdate(body, { major });
    const named = namedRelation(relation, row);
    if (named) {
      const { oid, name, relfilenode } = named;
      const key = `${relation.dbOid} ${relfilenode}`;
      // The oldest in use is forgotten last.
      this.#names.delete(key);
      this.#names.set(key, { oid, name, asOf: lsn });
      forgetOldest(this.#names, MAX_NAMES);
      return;
    }
    const oid = relation.spcOid === GLOBAL_TABLESPACE ? invalidatedDatabase(row, major) : undefined;
    if (oid === undefined) return;
    this.#invalidated.set(oid, lsn);
    forgetOldest(this.#invalidated);
  }

  #database({ info, xid, lsn }: FoundRecord, data: Uint8Array, major: number | undefined): void {
    const drop = parseDatabaseDrop(info, data, major);
    if (!drop) return;
    const pending = this.#of(xid);
    pending.undoLsn ??= this.#invalidated.get(drop.dbOid) ?? lsn;
    this.#invalidated.delete(drop.dbOid);
    if (pending.droppedDatabases.length < MAX_FILES) pending.droppedDatabases.push(drop);
  }

  #of(xid: number): Pending {
    let pending = this.#pending.get(xid);
    if (!pending) {
      pending = { truncates: [], created: [], droppedDatabases: [] };
      this.#pending.set(xid, pending);
      forgetOldest(this.#pending);
    }
    return pending;
  }
}

function forgetOldest<K>(map: Map<K, unknown>, most = MAX_PENDING): void {
  if (map.size > most) map.delete(map.keys().next().value as K);
}
