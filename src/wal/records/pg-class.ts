import type { RelFileLocator } from './relation.js';

/** The file of pg_class until VACUUM FULL makes it a new one (catalog/pg_class.h). */
const PG_CLASS = 1259;
const NAME_LENGTH = 64;
/** Up to the end of relfilenode. */
const ROW_LENGTH = 92;

/** What a row of pg_class calls a relation. */
export interface NamedRelation {
  oid: number;
  name: string;
  /** Of its file; 0 if it has none of its own. */
  relfilenode: number;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * The name in a row of pg_class without its header: u32 oid, relname in 64 bytes that zeros fill,
 * relfilenode at 88, in all versions from 14 to 18. Undefined for any other row, and for a name that is
 * in another encoding than UTF-8.
 */
export function namedRelation(
  { relNumber }: RelFileLocator,
  row: Uint8Array | undefined,
): NamedRelation | undefined {
  if (relNumber !== PG_CLASS || !row || row.length < ROW_LENGTH) return undefined;
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
  const field = row.subarray(4, 4 + NAME_LENGTH);
  const length = field.indexOf(0);
  if (length < 1 || field.subarray(length).some((byte) => byte !== 0)) return undefined;
  try {
    const name = utf8.decode(field.subarray(0, length));
    return { oid: view.getUint32(0, true), name, relfilenode: view.getUint32(88, true) };
  } catch {
    return undefined;
  }
}
