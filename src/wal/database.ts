import { BodyReader } from './body-reader.js';
import { RMGR_INFO_MASK } from './record.js';

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
