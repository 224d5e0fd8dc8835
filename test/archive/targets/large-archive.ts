import { indexKey } from '../../../src/archive/backups/keys.js';
import { GROUP, indexBytes, indexedSegment } from '../../../src/archive/index/format.js';
import type { Mark } from '../../../src/archive/way/marks.js';
import type { Lsn } from '../../../src/lsn.js';
import { contentOf } from '../../../src/store/content.js';
import type { ObjectStore } from '../../../src/store/store.js';
import { segmentFileName } from '../../../src/wal/file-name.js';
import type { TimestampTz } from '../../../src/wal/records/timestamp.js';
import { type MemoryFiles, memoryArchive } from '../../support/memory-archive.js';
import { commitRecord, switchRecord } from '../../support/wal-records.js';
import { makeWal } from '../../wal/synthetic.js';
import { SEGMENT } from './way-model.js';

/** The number of the first segment; the first of a group. */
const FIRST = 64n;
const BEGAN = 800_000_000_000_000n;
/** Microseconds from one commit to the next. */
const EVERY = 10_000_000n;
const XID = 1000;

/** The commit in the n-th segment: there is one in each, and nothing behind it. */
export function commitIn(n: number): { lsn: Lsn; endLsn: Lsn; time: TimestampTz; xid: number } {
  const start = (FIRST + BigInt(n)) * BigInt(SEGMENT);
  const time = (BEGAN + BigInt(n) * EVERY) as TimestampTz;
  return { lsn: (start + 40n) as Lsn, endLsn: (start + 80n) as Lsn, time, xid: XID + n };
}

/** An archive of so many segments, made when they are read. */
export function largeArchive(segments: number): ReturnType<typeof memoryArchive> {
  const files: MemoryFiles = new Map();
  for (let n = 0; n < segments; n++) {
    files.set(segmentFileName(1, FIRST + BigInt(n), SEGMENT), () => content(n));
  }
  return memoryArchive(files);
}

function content(n: number): Buffer {
  const { time, xid } = commitIn(n);
  const start = (FIRST + BigInt(n)) * BigInt(SEGMENT);
  const prev = n === 0 ? 0n : start - BigInt(SEGMENT) + 80n;
  const { bytes } = makeWal([commitRecord(xid, time), switchRecord], { start, prev });
  return bytes;
}

/** The index that `updateIndex` makes of it, object by object. */
export function* largeIndex(segments: number): Generator<{ key: string; bytes: Buffer }> {
  for (let n = 0; n + GROUP <= segments; n += GROUP) {
    const marks = Array.from({ length: GROUP }, (_, i): Mark[] => [
      { kind: 'commit', ...commitIn(n + i) },
    ]);
    const number = FIRST + BigInt(n);
    yield {
      key: indexKey('', segmentFileName(1, number, SEGMENT)),
      bytes: indexBytes({
        ...{ systemId: 77n, timeline: 1, segmentSize: SEGMENT },
        start: (number * BigInt(SEGMENT)) as Lsn,
        segments: marks.map(indexedSegment),
      }),
    };
  }
}

export async function storeIndex(store: ObjectStore, segments: number): Promise<void> {
  for (const { key, bytes } of largeIndex(segments)) await store.create(key, contentOf(bytes));
}
