import crc32c from 'crc-32/crc32c.js';
import { SEGMENT, takeBuffer } from './arena.js';
import type { Random } from './random.js';

export { SEGMENT };

const PAGE = 8192;
const MAGIC = 0xd118;
export const SYSTEM_ID = 77n;

/** Bodies with their CRC, made once: the record's own header tells records apart. */
const BODIES = Array.from({ length: 48 }, (_, i) => {
  // A few hundred bytes mostly, some of pages, one longer than a segment.
  const length = i === 47 ? SEGMENT + 5000 : i > 40 ? 30_000 * (i - 40) : 40 + i * i * 3;
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = 1 + ((at * (2 * i + 3) + (at >> 8) * 7) % 255);
  return { bytes, crc: crc32c.buf(bytes) };
});

const LONGEST_PAGE_HEADER = 40;
/** xl_tot_len: what is behind a wrong one is only seen to be bad later. */
const LENGTH_FIELD = 4;
const MOST_PADDING = 7;

/** A record of the timeline that wrote it. */
export interface WalRecord {
  wal: TimelineWal;
  begin: number;
  end: number;
}

/**
 * The WAL of one timeline as its server has it, with real page and record headers and CRCs. A child
 * begins as a copy of its parent up to the fork. LSNs are plain numbers here.
 */
export class TimelineWal {
  readonly id: number;
  readonly parent: TimelineWal | undefined;
  /** Where this timeline begins. */
  readonly fork: number;
  end: number;
  private readonly segments = new Map<number, Buffer>();
  private previous: number;
  /** Ends of records, where a server can fork off. */
  readonly ends: { at: number; last: number }[] = [];

  constructor(id: number, start: number, parent?: TimelineWal) {
    this.id = id;
    this.fork = start;
    this.end = start;
    this.parent = parent;
    this.previous = 0;
    if (!parent) return;
    const begin = parent.ends.findLast((e) => e.at <= start);
    this.end = begin?.at ?? parent.fork;
    this.fork = this.end;
    this.previous = begin?.last ?? parent.previous;
    const first = Math.floor(this.fork / SEGMENT);
    const copied = this.fork % SEGMENT;
    if (copied > 0) parent.segment(first).copy(this.segment(first), 0, 0, copied);
  }

  /** The record whose body the byte at `at` is in; undefined for headers, lengths and padding. */
  recordAt(at: number): WalRecord | undefined {
    if (this.parent && at < this.fork) return this.parent.recordAt(at);
    const found = this.ends.find((e) => e.at > at);
    if (!found || at % PAGE < LONGEST_PAGE_HEADER) return undefined;
    const { last: begin, at: end } = found;
    return at >= begin + LENGTH_FIELD && at < end - MOST_PADDING
      ? { wal: this, begin, end }
      : undefined;
  }

  /** The bytes of a segment on this timeline's history; zeros beyond `end`. */
  segment(n: number): Buffer {
    if (this.parent && (n + 1) * SEGMENT <= this.fork) return this.parent.segment(n);
    const found = this.segments.get(n) ?? takeBuffer();
    this.segments.set(n, found);
    return found;
  }

  /** Writes records until at least `bytes` more are there. */
  grow(bytes: number, random: Random): void {
    for (const until = this.end + bytes; this.end < until; ) {
      const body = random.chance(0.002)
        ? (BODIES[47] as (typeof BODIES)[0])
        : random.pick(BODIES.slice(0, random.chance(0.1) ? 47 : 41));
      this.append(body);
    }
  }

  private append({ bytes, crc }: { bytes: Buffer; crc: number }): void {
    const length = 24 + bytes.length;
    if (this.end % PAGE === 0) this.openPage(0);
    const lsn = this.end;
    const header = Buffer.alloc(24);
    header.writeUInt32LE(length, 0);
    header.writeUInt32LE(7, 4);
    header.writeBigUInt64LE(BigInt(this.previous), 8);
    header.writeUInt8(21, 17);
    header.writeInt32LE(crc32c.buf(header.subarray(0, 20), crc), 20);
    this.put(header, length, 0);
    this.put(bytes, length, 24);
    this.end += (8 - (this.end % 8)) % 8;
    this.previous = lsn;
    this.ends.push({ at: this.end, last: lsn });
  }

  private put(bytes: Buffer, length: number, before: number): void {
    for (let done = 0; done < bytes.length; ) {
      if (this.end % PAGE === 0) this.openPage(length - before - done);
      const n = Math.min(bytes.length - done, PAGE - (this.end % PAGE));
      bytes.copy(this.segment(Math.floor(this.end / SEGMENT)), this.end % SEGMENT, done, done + n);
      this.end += n;
      done += n;
    }
  }

  private openPage(remaining: number): void {
    const at = this.end % SEGMENT;
    const page = this.segment(Math.floor(this.end / SEGMENT));
    page.writeUInt16LE(MAGIC, at);
    page.writeUInt16LE((remaining > 0 ? 1 : 0) | (at === 0 ? 2 : 0), at + 2);
    page.writeUInt32LE(this.id, at + 4);
    page.writeBigUInt64LE(BigInt(this.end), at + 8);
    page.writeUInt32LE(remaining, at + 16);
    if (at === 0) {
      page.writeBigUInt64LE(SYSTEM_ID, 24);
      page.writeUInt32LE(SEGMENT, 32);
      page.writeUInt32LE(PAGE, 36);
    }
    this.end += at === 0 ? 40 : 24;
  }
}
