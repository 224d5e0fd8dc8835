import { expect, test } from 'vitest';
import { IndexCollector } from '../../../src/archive/index/collect.js';
import { readGroup } from '../../../src/archive/index/facts.js';
import { parseIndex, parseStoredIndex } from '../../../src/archive/index/format.js';
import { SeenMarks } from '../../../src/archive/index/seen-marks.js';
import { updateIndex } from '../../../src/archive/index/update.js';
import { hasXid } from '../../../src/archive/index/xid-ranges.js';
import { readCatalog } from '../../../src/archive/read-catalog.js';
import type { CheckedWal } from '../../../src/archive/shipping/checked-segment.js';
import { StoreArchiveWriter } from '../../../src/archive/store-archive-writer.js';
import type { Lsn } from '../../../src/lsn.js';
import { MemoryStore } from '../../../src/store/memory.js';
import { segmentFileName } from '../../../src/wal/file-name.js';
import { randomNumbers } from '../../support/archives.js';
import { memoryArchive } from '../../support/memory-archive.js';
import { largeCommitRecord, restorePointRecord } from '../../support/wal-records.js';
import { makeWal, type SyntheticRecord } from '../../wal/synthetic.js';

const SEGMENT = 1 << 20;
const FIRST = 64n;
const START = FIRST * BigInt(SEGMENT);

/** Records over the borders of segments, most of them commits. */
function stream(seed: number, segments: number) {
  const random = randomNumbers(seed);
  const below = (n: number) => Math.floor(random() * n);
  const kinds: { xid: number; name?: string }[] = [];
  const records: SyntheticRecord[] = [];
  for (let bytes = 0; bytes < (segments + 0.3) * SEGMENT; ) {
    const time = 800_000_000_000_000n + BigInt(records.length * 1000);
    const xid = 1000 + records.length;
    const what = below(10);
    const record =
      what === 0
        ? restorePointRecord(`p${xid}`, time)
        : what < 7
          ? largeCommitRecord(xid, time, below(what === 1 ? 3000 : 20))
          : { body: Buffer.alloc(below(30_000), 1) };
    records.push(record);
    kinds.push(what === 0 ? { xid: 0, name: `p${xid}` } : { xid: what < 7 ? xid : 0 });
    bytes += record.body.length + 32;
  }
  const wal = makeWal(records, { start: START });
  const files = new Map<string, Buffer>();
  const segmentsOf: CheckedWal[] = [];
  for (let i = 0; i * SEGMENT < wal.bytes.length; i++) {
    const whole = (i + 1) * SEGMENT <= wal.bytes.length;
    const bytes = Buffer.alloc(SEGMENT);
    wal.bytes.copy(bytes, 0, i * SEGMENT);
    const name = segmentFileName(1, FIRST + BigInt(i), SEGMENT);
    files.set(whole ? name : `${name}.partial`, bytes);
    const start = (START + BigInt(i * SEGMENT)) as Lsn;
    const end = (start + BigInt(SEGMENT)) as Lsn;
    const checked = { name, timeline: 1, start, end, bytes, digest: '', defined: false };
    if (whole) segmentsOf.push(checked);
  }
  const all = kinds.map((kind, i) => ({ ...kind, lsn: wal.lsns[i]! }));
  return { all, files, segments: segmentsOf };
}

const area = () => ({
  place: 'memory',
  store: new MemoryStore(),
  prefix: '',
  close: async () => {},
});

test.each([1, 2, 3, 4])('what comes by makes the same as what is read, seed %i', async (seed) => {
  const { all, files, segments } = stream(seed, 65);
  const made = area();
  const updated = await updateIndex(await readCatalog(memoryArchive(files)), made);
  expect(updated).toMatchObject({ created: 2, unsound: [] });
  const collector = new IndexCollector({ systemId: 77n, segmentSize: SEGMENT });
  // Several are under way at a time.
  const order = [...segments.keys()];
  for (let i = 0; i + 1 < order.length; i += 3) {
    [order[i], order[i + 1]] = [order[i + 1]!, order[i]!];
  }
  // All in the same memory, one after the other, as they are shipped.
  const room = Buffer.alloc(SEGMENT);
  const groups = order.flatMap((i) => {
    room.set(segments[i]!.bytes);
    // Who checks it has noted them: one pass makes the same as two.
    const seen = i % 2 === 0 ? new SeenMarks() : undefined;
    const { start } = segments[i]!;
    seen?.verifier({ startLsn: start, segmentSize: SEGMENT, systemId: 77n }).feed(room);
    return collector.add({ ...segments[i]!, bytes: room }, seen);
  });
  expect(groups.map(({ name }) => name)).toEqual([segments[0]!.name, segments[32]!.name]);
  for (const { name, bytes } of groups) {
    const group = parseIndex(bytes, name);
    expect(await readGroup(made, `index/00000001/${name}`, undefined)).toEqual(
      parseStoredIndex(bytes, name),
    );
    for (const [i, segment] of group.segments.entries()) {
      const from = group.start + BigInt(i * SEGMENT);
      const own = all.filter(({ lsn }) => lsn >= from && lsn < from + BigInt(SEGMENT));
      const xids = own.filter(({ xid }) => xid > 0).map(({ xid }) => xid);
      expect(segment?.ends).toBe(xids.length);
      expect(xids.every((xid) => hasXid(segment!.xids, xid))).toBe(true);
      const names = own.flatMap(({ name: point }) => point ?? []);
      expect(segment?.points.map((point) => point.name)).toEqual(names);
    }
  }
});

test('a segment that does not come leaves its group to others', () => {
  const { segments } = stream(7, 65);
  const collector = new IndexCollector({ systemId: 77n, segmentSize: SEGMENT });
  const groups = segments.filter((_, i) => i !== 5).flatMap((one) => collector.add(one));
  expect(groups.map(({ name }) => name)).toEqual([segments[32]!.name]);
});

test('who stores segments one after the other stores their index', async () => {
  const { segments } = stream(9, 34);
  const store = new MemoryStore();
  const writer = await StoreArchiveWriter.open(store, {
    ...{ systemId: 77n, segmentSize: SEGMENT, writer: 'test', index: true },
    codec: {
      encode: async (bytes) => ({ bytes, stages: 'none', release: () => {} }),
      decode: async (bytes) => bytes,
    },
  });
  for (const segment of segments) await writer.putSegment({ ...segment, digest: segment.name });
  const key = `systems/77/index/00000001/${segments[0]!.name}`;
  const group = await readGroup({ ...area(), store }, key, undefined);
  expect(group?.segments.every((segment) => segment !== null)).toBe(true);
});
