import crc32c from 'crc-32/crc32c.js';
import type { Lsn } from '../../src/lsn.js';

export interface SyntheticRecord {
  xid?: number;
  info?: number;
  rmgr?: number;
  body: Uint8Array;
}

export interface SyntheticOptions {
  segmentSize?: number;
  blockSize?: number;
  magic?: number;
  start?: bigint;
  timeline?: number;
  /** The timeline of a page by its address, where it is not the same for all. */
  timelineOf?: (address: bigint) => number;
  systemId?: bigint;
  /** Of the record before the first. */
  prev?: bigint;
}

/**
 * WAL as a server would write it, for layouts that no installed server has: written a second
 * time on purpose, with none of the code under test and crc-32 for the checksums.
 */
export function makeWal(records: readonly SyntheticRecord[], options: SyntheticOptions = {}) {
  const { segmentSize = 1 << 20, blockSize = 8192, magic = 0xd118 } = options;
  const { start = 0x500_0000n, timeline = 1, systemId = 77n } = options;
  const { timelineOf = () => timeline } = options;
  const pages: Buffer[] = [];
  const lsns: Lsn[] = [];
  const ends: Lsn[] = [];
  const empty = Buffer.alloc(blockSize);
  let at = 0;
  let { prev = 0n } = options;

  const openPage = (remaining: number) => {
    const address = start + BigInt(pages.length * blockSize);
    const first = address % BigInt(segmentSize) === 0n;
    const page = Buffer.alloc(blockSize);
    page.writeUInt16LE(magic, 0);
    page.writeUInt16LE((remaining > 0 ? 1 : 0) | (first ? 2 : 0), 2);
    page.writeUInt32LE(timelineOf(address), 4);
    page.writeBigUInt64LE(address, 8);
    page.writeUInt32LE(remaining, 16);
    if (first) {
      page.writeBigUInt64LE(systemId, 24);
      page.writeUInt32LE(segmentSize, 32);
      page.writeUInt32LE(blockSize, 36);
    }
    pages.push(page);
    at = first ? 40 : 24;
  };

  for (const { xid = 7, info = 0, rmgr = 21, body } of records) {
    if (pages.length === 0 || at === blockSize) openPage(0);
    const lsn = start + BigInt((pages.length - 1) * blockSize + at);
    const record = Buffer.alloc(24 + body.length);
    record.writeUInt32LE(record.length, 0);
    record.writeUInt32LE(xid, 4);
    record.writeBigUInt64LE(prev, 8);
    record.writeUInt8(info, 16);
    record.writeUInt8(rmgr, 17);
    record.set(body, 24);
    const order = Buffer.concat([record.subarray(24), record.subarray(0, 20)]);
    record.writeInt32LE(crc32c.buf(order), 20);
    let done = 0;
    while (done < record.length) {
      if (at === blockSize) openPage(record.length - done);
      const n = Math.min(record.length - done, blockSize - at);
      pages[pages.length - 1]!.set(record.subarray(done, done + n), at);
      at += n;
      done += n;
    }
    at = (at + 7) & ~7;
    lsns.push(lsn as Lsn);
    prev = lsn;
    // XLOG_SWITCH: the rest of the segment is zero, also where its pages have their headers.
    if (rmgr === 0 && info === 0x40) {
      while ((start + BigInt(pages.length * blockSize)) % BigInt(segmentSize) !== 0n) {
        pages.push(empty);
      }
      at = blockSize;
    }
    ends.push((start + BigInt((pages.length - 1) * blockSize + at)) as Lsn);
  }
  const all = Buffer.concat(pages);
  const used = all.subarray(0, all.length - (blockSize - at));
  return { bytes: used, lsns, ends, start: start as Lsn, segmentSize };
}
