import type { BodyReader } from './body-reader.js';

/** Bytes of a RelFileLocator. */
export const RELATION_SIZE = 12;

/** OID of the tablespace of shared catalogs (catalog/pg_tablespace.dat: pg_global). */
export const GLOBAL_TABLESPACE = 1664;

/**
 * RelFileLocator (storage/relfilelocator.h), RelFileNode before PostgreSQL 16:
 * ```
 * 0  u32  spcOid     tablespace; 1663 is pg_default, 1664 pg_global
 * 4  u32  dbOid      database; 0 in pg_global
 * 8  u32  relNumber  names the file; relNode before 16
 * ```
 */
export interface RelFileLocator {
  spcOid: number;
  dbOid: number;
  relNumber: number;
}

export function readRelation(reader: BodyReader): RelFileLocator {
  return { spcOid: reader.u32(), dbOid: reader.u32(), relNumber: reader.u32() };
}

/** A count (i32) and so many RelFileLocators. */
export function readRelations(reader: BodyReader): RelFileLocator[] {
  return Array.from({ length: reader.count(RELATION_SIZE) }, () => readRelation(reader));
}

/** `1663/5/16384`, as pg_waldump prints block references. */
export function formatRelation({ spcOid, dbOid, relNumber }: RelFileLocator): string {
  return `${spcOid}/${dbOid}/${relNumber}`;
}
