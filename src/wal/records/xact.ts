import type { Lsn } from '../../lsn.js';
import { RECORD_HEADER_SIZE, RMGR_INFO_MASK } from '../record.js';
import { BodyReader, decodeText } from './body-reader.js';
import { type RelFileLocator, readRelation, readRelations } from './relation.js';
import type { TimestampTz } from './timestamp.js';

/** Resource manager 1 and the types of its records (access/xact.h), under XLOG_XACT_OPMASK. */
export const RM_XACT = 1;
export const XACT_OPMASK = 0x70;
export const XACT_COMMIT = 0x00;
export const XACT_PREPARE = 0x10;
export const XACT_ABORT = 0x20;
export const XACT_COMMIT_PREPARED = 0x30;
export const XACT_ABORT_PREPARED = 0x40;
/** xl_info: the field xinfo is there. */
const HAS_INFO = 0x80;

/** xinfo: which parts are there. */
const HAS_DBINFO = 1 << 0;
const HAS_SUBXACTS = 1 << 1;
const HAS_RELFILELOCATORS = 1 << 2;
const HAS_INVALS = 1 << 3;
const HAS_TWOPHASE = 1 << 4;
const HAS_ORIGIN = 1 << 5;
const HAS_GID = 1 << 7;
const HAS_DROPPED_STATS = 1 << 8;

/** SharedInvalidationMessage (storage/sinval.h): i8 id, at 4 u32 database, at 8 u32 relation. */
const INVALIDATION_SIZE = 16;
const INVALID_RELCACHE = -2;

/** TWOPHASE_MAGIC: access/transam/twophase.c, the same in 14 to 18. */
const TWOPHASE_MAGIC = 0x57f94534;

/** Statistics of an object that the transaction dropped (since 15). Kind 2 is a relation. */
export interface DroppedStatistics {
  kind: number;
  dbOid: number;
  objectId: bigint;
}

export const STATISTICS_OF_RELATION = 2;

/** A commit or abort, of a prepared transaction or another. */
export interface TransactionEnd {
  kind: 'commit' | 'abort';
  /** True for COMMIT PREPARED and ROLLBACK PREPARED. */
  prepared: boolean;
  /** The transaction that ended; of a prepared one not the record's xl_xid. */
  xid: number;
  /** When it ended, by the server's clock: what recovery_target_time is compared with. */
  time: TimestampTz;
  /** XACT_XINFO_* and XACT_COMPLETION_*. */
  xinfo: number;
  /** Where it ran; undefined where the record does not say. */
  dbOid?: number;
  subxids: readonly number[];
  /** Files removed by replaying this record: of dropped relations, or old ones of rewritten ones. */
  dropped: readonly RelFileLocator[];
  droppedStatistics: readonly DroppedStatistics[];
  /** OIDs of relations whose definition changed (relcache invalidations), each once. */
  changedRelations: readonly number[];
  /** Global id of a prepared transaction, where the record has it (wal_level = logical). */
  gid?: string;
  /** Where it was committed first, if it was replicated. */
  origin?: { lsn: Lsn; time: TimestampTz };
}

/** PREPARE TRANSACTION. */
export interface TransactionPrepare {
  kind: 'prepare';
  xid: number;
  time: TimestampTz;
  gid: string;
  dbOid: number;
  owner: number;
  subxids: number[];
  /** Files that its commit, or its abort, will remove. */
  droppedOnCommit: RelFileLocator[];
  droppedOnAbort: RelFileLocator[];
}

/**
 * The contents of a record of resource manager Transaction; undefined for other types than
 * commit, abort, prepare and the ends of prepared ones.
 * @param header xl_info and xl_xid
 * @param data main data
 * @param major of the server that wrote it; of an unknown one, what follows is not judged
 * @throws CorruptWalError if the data contradicts its length
 */
export function parseXactRecord(
  header: { info: number; xid: number },
  data: Uint8Array,
  major: number | undefined,
): TransactionEnd | TransactionPrepare | undefined {
  switch (header.info & XACT_OPMASK) {
    case XACT_COMMIT:
      return readEnd('commit', false, header, data, major);
    case XACT_ABORT:
      return readEnd('abort', false, header, data, major);
    case XACT_COMMIT_PREPARED:
      return readEnd('commit', true, header, data, major);
    case XACT_ABORT_PREPARED:
      return readEnd('abort', true, header, data, major);
    case XACT_PREPARE:
      return readPrepare(data, major);
    default:
      return undefined;
  }
}

/**
 * Length of a record that has 8 bytes of main data, after two that announce them, and no more: most
 * transactions end with a commit or an abort that has its time and nothing else.
 */
export const PLAIN_LENGTH = RECORD_HEADER_SIZE + 2 + 8;
const DATA_SHORT = 255;

/** True for a commit or an abort without xinfo. */
export function isPlainEnd(info: number): boolean {
  const type = info & RMGR_INFO_MASK;
  return type === XACT_COMMIT || type === XACT_ABORT;
}

/** True if its body, of such a length, is the time alone. */
export function isPlainBody(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === DATA_SHORT && bytes[at + 1] === 8;
}

const NONE: readonly never[] = [];

/**
 * xl_xact_commit, xl_xact_abort: the parts in their order, each there if its bit in xinfo is set.
 * ```
 * i64 xact_time   [u32 xinfo]      [u32 dbId, u32 tsId]
 * subxacts        i32 n, u32 each
 * relations       i32 n, RelFileLocator each
 * dropped stats   i32 n, each i32 kind, u32 dboid, u32 objoid (since 18 u64 objid)
 * invalidations   i32 n, 16 bytes each (commit only)
 * twophase        u32 xid, [gid up to a zero byte]
 * origin          u64 lsn, i64 time
 * ```
 */
function readEnd(
  kind: 'commit' | 'abort',
  prepared: boolean,
  { info, xid }: { info: number; xid: number },
  data: Uint8Array,
  major: number | undefined,
): TransactionEnd {
  const reader = new BodyReader(data, `${kind} record`);
  const time = reader.i64() as TimestampTz;
  const xinfo = (info & HAS_INFO) === 0 ? 0 : reader.u32();
  const has = (bit: number) => (xinfo & bit) !== 0;
  const end: TransactionEnd = {
    kind,
    prepared,
    xid,
    time,
    xinfo,
    subxids: NONE,
    dropped: NONE,
    droppedStatistics: NONE,
    changedRelations: NONE,
  };
  if (has(HAS_DBINFO)) {
    end.dbOid = reader.u32();
    reader.skip(4);
  }
  if (has(HAS_SUBXACTS)) end.subxids = readXids(reader, reader.count(4));
  if (has(HAS_RELFILELOCATORS)) end.dropped = readRelations(reader);
  if (has(HAS_DROPPED_STATS)) end.droppedStatistics = readStatistics(reader, major);
  if (has(HAS_INVALS) && kind === 'commit') end.changedRelations = readInvalidations(reader);
  if (has(HAS_TWOPHASE)) {
    end.xid = reader.u32();
    if (has(HAS_GID)) end.gid = reader.string();
  }
  if (has(HAS_ORIGIN)) end.origin = { lsn: reader.lsn(), time: reader.i64() as TimestampTz };
  if (reader.left > 0 && major !== undefined) throw reader.corrupt(`${reader.left} bytes too many`);
  return end;
}

const readXids = (reader: BodyReader, n: number) => Array.from({ length: n }, () => reader.u32());

function readStatistics(reader: BodyReader, major: number | undefined): DroppedStatistics[] {
  // xl_xact_stats_item ends with a 4-byte objoid in 15 to 17, since 18 with two halves of 8 bytes.
  const wide = major === undefined || major >= 18;
  return Array.from({ length: reader.count(wide ? 16 : 12) }, () => ({
    kind: reader.i32(),
    dbOid: reader.u32(),
    objectId: wide ? reader.u64() : BigInt(reader.u32()),
  }));
}

function readInvalidations(reader: BodyReader): number[] {
  const relations = new Set<number>();
  for (let left = reader.count(INVALIDATION_SIZE); left > 0; left--) {
    const message = reader.bytes(INVALIDATION_SIZE);
    const view = new DataView(message.buffer, message.byteOffset, INVALIDATION_SIZE);
    if (view.getInt8(0) === INVALID_RELCACHE) relations.add(view.getUint32(8, true));
  }
  return [...relations];
}

/**
 * xl_xact_prepare, each array padded to 8 bytes:
 * ```
 *  0  u32  magic, u32 total_len, u32 xid, u32 database
 * 16  i64  prepared_at
 * 24  u32  owner, i32 nsubxacts, i32 ncommitrels, i32 nabortrels
 * 40  i32  ncommitstats, i32 nabortstats                           (since 15)
 * 48  i32  ninvalmsgs, u8 initfileinval, u16 gidlen at offset 6    (in 14 at 40)
 * 56  u64  origin_lsn, i64 origin_timestamp                        (in 14 at 48)
 *          gid with its zero byte, subxids, relations on commit, relations on abort, …
 * ```
 */
function readPrepare(data: Uint8Array, major: number | undefined): TransactionPrepare {
  const reader = new BodyReader(data, 'prepare record');
  if (reader.u32() !== TWOPHASE_MAGIC) throw reader.corrupt('unknown magic');
  reader.skip(4);
  const xid = reader.u32();
  const dbOid = reader.u32();
  const time = reader.i64() as TimestampTz;
  const owner = reader.u32();
  const subxids = reader.i32();
  const onCommit = reader.i32();
  const onAbort = reader.i32();
  reader.skip((major === 14 ? 0 : 8) + 6);
  const gidLength = reader.u16();
  reader.skip(16);
  const gid = decodeText(reader.bytes(gidLength)).split('\0', 1)[0]!;
  align(reader);
  const array = <T>(n: number, size: number, read: () => T): T[] => {
    if (n < 0 || n * size > reader.left) throw reader.corrupt(`it counts ${n} items`);
    const items = Array.from({ length: n }, read);
    align(reader);
    return items;
  };
  return {
    kind: 'prepare',
    ...{ xid, time, gid, dbOid, owner },
    subxids: array(subxids, 4, () => reader.u32()),
    droppedOnCommit: array(onCommit, 12, () => readRelation(reader)),
    droppedOnAbort: array(onAbort, 12, () => readRelation(reader)),
  };
}

/** Steps to the next multiple of 8. */
function align(reader: BodyReader): void {
  reader.skip(Math.min(reader.left, -reader.at & 7));
}
