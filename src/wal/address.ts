import type { Lsn } from '../lsn.js';

/**
 * An LSN as two unsigned 32-bit numbers, for loops that cannot afford a bigint per record. `lo`
 * may reach 2^32 where it is the end of something inside a page.
 */
export interface Address {
  hi: number;
  lo: number;
}

export function joinLsn(hi: number, lo: number): Lsn {
  return ((BigInt(hi) << 32n) + BigInt(lo)) as Lsn;
}

export function splitLsn(lsn: bigint): Address {
  return { hi: Number(lsn >> 32n), lo: Number(lsn & 0xffff_ffffn) };
}

export function advance(address: Address, bytes: number): void {
  address.lo += bytes;
  if (address.lo >= 0x1_0000_0000) {
    address.lo -= 0x1_0000_0000;
    address.hi++;
  }
}
