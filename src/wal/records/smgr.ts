import { RMGR_INFO_MASK } from '../record.js';
import { BodyReader } from './body-reader.js';
import { type RelFileLocator, readRelation } from './relation.js';

/** Resource manager 2, which pg_waldump calls Storage, and its record types. */
export const RM_SMGR = 2;
export const XLOG_SMGR_CREATE = 0x10;
export const XLOG_SMGR_TRUNCATE = 0x20;

/** xl_smgr_create (catalog/storage_xlog.h): RelFileLocator, i32 forkNum. */
export interface RelationCreate {
  kind: 'create';
  relation: RelFileLocator;
  /** 0 main, 1 free space map, 2 visibility map, 3 init. */
  fork: number;
}

/**
 * xl_smgr_truncate: u32 blkno, RelFileLocator, i32 flags. Replay cuts the file at once: by VACUUM
 * its empty end, to 0 blocks by TRUNCATE in the transaction that created the relation.
 */
export interface RelationTruncate {
  kind: 'truncate';
  relation: RelFileLocator;
  /** Blocks that stay. */
  blocks: number;
  /** SMGR_TRUNCATE_*: bit 0 main fork, 1 visibility map, 2 free space map. */
  flags: number;
}

/**
 * The contents of a record of resource manager SMGR; undefined for other types.
 * @param info xl_info
 * @param data main data
 * @throws CorruptWalError if the data is too short
 */
export function parseSmgrRecord(
  info: number,
  data: Uint8Array,
): RelationCreate | RelationTruncate | undefined {
  const reader = new BodyReader(data, 'Storage record');
  switch (info & RMGR_INFO_MASK) {
    case XLOG_SMGR_CREATE:
      return { kind: 'create', relation: readRelation(reader), fork: reader.i32() };
    case XLOG_SMGR_TRUNCATE: {
      const blocks = reader.u32();
      return { kind: 'truncate', relation: readRelation(reader), blocks, flags: reader.i32() };
    }
    default:
      return undefined;
  }
}
