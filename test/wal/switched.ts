import { makeWal, type SyntheticRecord } from './synthetic.js';

const SWITCH: SyntheticRecord = { rmgr: 0, info: 0x40, xid: 0, body: new Uint8Array(0) };
const SEGMENT = 1 << 20;

/**
 * Two segments and a bit; the first one ends in XLOG_SWITCH, whose record begins at `at` bytes into
 * it, a multiple of 8 and no page header. `from`: behind that record; `tail`: of the first segment,
 * with other bytes from there on.
 */
export function switchedWal(at: number) {
  const room = (page: number) => 8192 - (page === 0 ? 40 : 24);
  // One record up to there: what it takes of each page, less its header.
  let used = (at % 8192 || 8192) - (at <= 8192 ? 40 : 24);
  for (let page = Math.ceil(at / 8192) - 2; page >= 0; page--) used += room(page);
  const filler = { body: Buffer.alloc(used - 24, 0x21) };
  const behind = Array.from({ length: 400 }, (_, n) => ({ body: Buffer.alloc(3001, n + 1) }));
  const wal = makeWal([filler, SWITCH, ...behind]);
  const begin = Number(wal.lsns[1]! - wal.start);
  const rest = 8192 - (begin % 8192);
  const next = (begin + rest) % SEGMENT === 0 ? 40 : 24;
  const from = rest >= 24 ? begin + 24 : begin + 24 + next;
  const tail = (fill: (rest: Buffer) => void): Buffer => {
    const bytes = Buffer.from(wal.bytes);
    const end = Math.ceil(from / SEGMENT) * SEGMENT;
    fill(bytes.subarray(from, end));
    return bytes;
  };
  return { ...wal, begin, from, tail };
}

/** Places of a switch record: in a page, at its end, over it, at the end of the segment and over it. */
export const SWITCH_PLACES: readonly (readonly [string, number])[] = [
  ['in a page', 300_000],
  ['in the first page', 1200],
  ['at the end of a page', 12 * 8192 - 24],
  ['over the end of a page', 12 * 8192 - 16],
  ['with its first word on a page', 12 * 8192 - 8],
  ['at the end of a segment', SEGMENT - 24],
  ['over the end of a segment', SEGMENT - 16],
  ['with its first word in a segment', SEGMENT - 8],
];
