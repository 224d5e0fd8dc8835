import { ParseError } from './errors.js';

declare const lsnBrand: unique symbol;
/**
 * Log sequence number: a byte position in the WAL stream, unsigned 64 bit (PostgreSQL's
 * XLogRecPtr, access/xlogdefs.h). 0 is invalid.
 */
export type Lsn = bigint & { readonly [lsnBrand]: true };

/** No position (InvalidXLogRecPtr). */
export const INVALID_LSN = 0n as Lsn;

const MAX_LSN = 0xffff_ffff_ffff_ffffn;

/** The given number as an LSN. @throws ParseError outside the unsigned 64-bit range. */
export function toLsn(value: bigint): Lsn {
  if (value < 0n || value > MAX_LSN) throw new ParseError(`LSN out of range: ${value}`);
  return value as Lsn;
}

/**
 * Reads `X/X` as PostgreSQL prints it: two hex numbers of 1 to 8 digits. Both `%X/%X` and the
 * zero-padded `%X/%08X` of newer servers are read. @throws ParseError for anything else.
 */
export function parseLsn(text: string): Lsn {
  const m = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (!m) throw new ParseError(`not an LSN: ${JSON.stringify(text)}`, { expected: 'X/X in hex' });
  return ((BigInt(`0x${m[1]}`) << 32n) | BigInt(`0x${m[2]}`)) as Lsn;
}

/** `%X/%X` in upper case, as PostgreSQL 14 to 18 print it. */
export function formatLsn(lsn: bigint): string {
  const hi = (lsn >> 32n).toString(16);
  const lo = (lsn & 0xffff_ffffn).toString(16);
  return `${hi}/${lo}`.toUpperCase();
}
