import type { Lsn } from '../../lsn.js';
import { WalDecoder } from '../../wal/decoder.js';
import { segmentFileName, segmentOf } from '../../wal/file-name.js';
import type { CheckedWal } from '../shipping/checked-segment.js';
import { isMark, type Mark, markOf, RECORD_HEADER } from '../way/marks.js';
import { GROUP, type IndexedSegment, indexBytes, indexedSegment, joined } from './format.js';
import { SeenMarks } from './seen-marks.js';

/** An object that is whole, not compressed yet. */
export interface CollectedGroup {
  /** The 24 digits of its first segment. */
  name: string;
  bytes: Buffer;
}

/** Of a segment's beginning, to complete the last record of the one before. */
const HEAD = 64 * 1024;
/** Groups that are collected at a time; the oldest is given up for another one. */
const MOST_GROUPS = 4;
/** Pages of any size begin at multiples of it. */
const PAGE = 65_536n;

interface Slot {
  /** Without a last record that is torn. */
  indexed: IndexedSegment;
  head: Uint8Array;
  /** From the page on in which a record begins that is perhaps a mark and ends in the next segment. */
  torn?: { from: Lsn; lsn: Lsn; bytes: Uint8Array };
}

/**
 * Makes objects of the WAL index of whole segments that somebody else has checked, as they come. What
 * does not come in one go is not made here: `updateIndex` does it.
 */
export class IndexCollector {
  readonly #systemId: bigint;
  readonly #segmentSize: number;
  /** By the name of the first segment; those of one group and the one behind it. */
  readonly #groups = new Map<string, Map<number, Slot>>();

  constructor({ systemId, segmentSize }: { systemId: bigint; segmentSize: number }) {
    this.#systemId = systemId;
    this.#segmentSize = segmentSize;
  }

  /**
   * Takes the next segment. Its bytes need not stay.
   * @param seen its marks, if who checked it has noted them
   */
  add({ timeline, start, bytes }: CheckedWal, seen?: SeenMarks): CollectedGroup[] {
    if (bytes.length !== this.#segmentSize) return [];
    const segment = segmentOf(start, this.#segmentSize);
    const slot = Number(segment % BigInt(GROUP));
    const first = segment - BigInt(slot);
    const found = this.#look(start, bytes, seen ?? this.#see(start, bytes));
    if (!found) return [];
    const whole: CollectedGroup[] = [];
    const put = (of: bigint, at: number): void => {
      const group = this.#put(timeline, of, at, found);
      if (group) whole.push(group);
    };
    // The group before may lack the end of its last record.
    if (slot === 0 && segment > 0n) put(first - BigInt(GROUP), GROUP);
    put(first, slot);
    return whole;
  }

  #put(timeline: number, first: bigint, at: number, found: Slot): CollectedGroup | undefined {
    const name = segmentFileName(timeline, first, this.#segmentSize);
    let group = this.#groups.get(name);
    if (!group) {
      if (at === GROUP) return undefined;
      group = new Map();
      this.#groups.set(name, group);
      if (this.#groups.size > MOST_GROUPS) {
        this.#groups.delete(this.#groups.keys().next().value as string);
      }
    }
    group.set(at, found);
    const segments = this.#complete(group);
    if (!segments) return undefined;
    this.#groups.delete(name);
    const start = (first * BigInt(this.#segmentSize)) as Lsn;
    const [systemId, segmentSize] = [this.#systemId, this.#segmentSize];
    return { name, bytes: indexBytes({ systemId, timeline, segmentSize, start, segments }) };
  }

  /** Undefined as long as something is not here. */
  #complete(group: ReadonlyMap<number, Slot>): IndexedSegment[] | undefined {
    if (!group.has(GROUP - 1) || group.size < GROUP) return undefined;
    const segments: IndexedSegment[] = [];
    for (let at = 0; at < GROUP; at++) {
      const slot = group.get(at);
      if (!slot) return undefined;
      const next = group.get(at + 1);
      const rest = slot.torn ? next && this.#completed(slot.torn, next.head) : [];
      if (!rest) return undefined;
      segments.push(joined(slot.indexed, indexedSegment(rest)));
    }
    return segments;
  }

  #see(startLsn: Lsn, bytes: Uint8Array): SeenMarks {
    const seen = new SeenMarks();
    const [systemId, segmentSize] = [this.#systemId, this.#segmentSize];
    seen.verifier({ startLsn, segmentSize, systemId }).feed(bytes);
    return seen;
  }

  /** Undefined for what is not good after all. */
  #look(start: Lsn, bytes: Uint8Array, seen: SeenMarks): Slot | undefined {
    const { marks, open, validEnd: lsn } = seen;
    if (!marks || lsn === undefined) return undefined;
    const head = copyOf(bytes, 0, HEAD);
    const end = start + BigInt(bytes.length);
    const headless = lsn < end && end - lsn < RECORD_HEADER;
    // Of marks there may be a hundred thousand, and a group has 32 segments.
    const indexed = indexedSegment(marks);
    if (!open && !headless) return { indexed, head };
    const from = (lsn - (lsn % PAGE)) as Lsn;
    const begin = from < start ? start : from;
    const torn = { from: begin, lsn, bytes: copyOf(bytes, Number(begin - start)) };
    return { indexed, head, torn };
  }

  /** The record that was torn, if it is a mark; undefined if its end is still not here. */
  #completed(
    { from, lsn, bytes }: NonNullable<Slot['torn']>,
    head: Uint8Array,
  ): Mark[] | undefined {
    const [systemId, segmentSize] = [this.#systemId, this.#segmentSize];
    const options = { startLsn: from, segmentSize, systemId, select: isMark, partial: true };
    const decoder = new WalDecoder(options);
    decoder.feed(bytes);
    decoder.feed(head);
    const marks: Mark[] = [];
    const border = from + BigInt(bytes.length);
    for (let record = decoder.next(); record; record = decoder.next()) {
      const mark = record.lsn >= lsn && record.lsn < border && markOf(record, decoder.serverMajor);
      if (mark) marks.push(mark);
    }
    return decoder.validEnd > border ? marks : undefined;
  }
}

/** What `slice` of a Buffer gives is the same memory, which is the next segment's by then. */
function copyOf(bytes: Uint8Array, from: number, to?: number): Uint8Array {
  return Uint8Array.from(bytes.subarray(from, to));
}
