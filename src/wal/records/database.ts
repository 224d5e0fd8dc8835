import { RMGR_INFO_MASK } from '../record.js';
import { BodyReader } from './body-reader.js';

/** Resource manager 4: creating and dropping databases. */
export const RM_DBASE = 4;

/** The type of drop records: 15 put another one in before it (commands/dbcommands_xlog.h). */
const dropType = (major: number | undefined) => (major === 14 ? 0x10 : 0x20);

/** True if a record of this type can be a drop of some major version. */
export function mayBeDatabaseDrop(info: number): boolean {
  return (info & RMGR_INFO_MASK) === 0x10 || (info & RMGR_INFO_MASK) === 0x20;
}

/**
 * xl_dbase_drop_rec: u32 db_id, i32 ntablespaces, u32 each. Replay removes the files at this
 * record, not at the commit that follows: stopping between the two leaves a broken database.
 */
export interface DatabaseDrop {
  dbOid: number;
  tablespaces: number[];
}

/**
 * The contents of a drop record of resource manager Database; undefined for other types.
 * @param info xl_info
 * @param data main data
 * @throws CorruptWalError if the data is too short
 */
export function parseDatabaseDrop(
  info: number,
  data: Uint8Array,
  major: number | undefined,
): DatabaseDrop | undefined {
  if ((info & RMGR_INFO_MASK) !== dropType(major)) return undefined;
  const reader = new BodyReader(data, 'database drop record');
  const dbOid = reader.u32();
  const tablespaces = Array.from({ length: reader.count(4) }, () => reader.u32());
  return { dbOid, tablespaces };
}

/** datconnlimit of a database whose drop has begun (catalog/pg_database.h). */
const DATCONNLIMIT_INVALID_DB = -2;

/**
 * The OID of a database that a row of pg_database calls invalid: u32 oid first, i32 datconnlimit at
 * 80, in 14 behind two names at 208 (catalog/pg_database.h). Undefined for any other row.
 */
export function invalidatedDatabase(
  row: Uint8Array | undefined,
  major: number | undefined,
): number | undefined {
  const limit = major === 14 ? 208 : 80;
  if (!row || row.length < limit + 4) return undefined;
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
  const invalid = view.getInt32(limit, true) === DATCONNLIMIT_INVALID_DB;
  return invalid ? view.getUint32(0, true) : undefined;
}
