import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { expect, test } from 'vitest';
import {
  GROUP,
  type IndexGroup,
  indexBytes,
  parseIndex,
} from '../../../src/archive/index/format.js';
import { updateIndex } from '../../../src/archive/index/update.js';
import { hasXid, packXids } from '../../../src/archive/index/xid-ranges.js';
import { readCatalog } from '../../../src/archive/read-catalog.js';
import { locateTarget } from '../../../src/archive/targets/locate.js';
import { parseRecipients } from '../../../src/codec/age/recipients.js';
import { CorruptObjectError } from '../../../src/errors.js';
import type { Lsn } from '../../../src/lsn.js';
import { bytesOf, contentOf } from '../../../src/store/content.js';
import { MemoryStore } from '../../../src/store/memory.js';
import type { TimestampTz } from '../../../src/wal/records/timestamp.js';
import { randomNumbers } from '../../support/archives.js';
import { scratchDir } from '../../support/scratch.js';
import { type History, randomHistory } from '../targets/way-model.js';

/** Three groups: of the first the second half is there, the last is not whole. */
function history(seed = 1): History {
  return randomHistory(randomNumbers(seed), {
    segments: 60,
    timelines: 1,
    back: 5_000_000,
    records: [2, 8],
  });
}

const memoryArea = () => ({
  place: 'memory',
  store: new MemoryStore(),
  prefix: '',
  close: async () => {},
});

async function keysOf({ store }: ReturnType<typeof memoryArea>): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list('')) keys.push(key);
  return keys;
}

test('sets of transactions keep all of them and no others', () => {
  const random = randomNumbers(5);
  for (let round = 0; round < 300; round++) {
    const reach = 1 + Math.floor(random() * 300);
    const from = round % 3 === 0 ? 0xffff_ffff - reach : Math.floor(random() * 1000);
    const n = Math.floor(random() * reach);
    const xids = new Set(Array.from({ length: n }, () => from + Math.floor(random() * reach)));
    const packed = packXids([...xids, ...xids]);
    for (let xid = Math.max(0, from - 3); xid <= from + reach + 3; xid++) {
      expect(hasXid(packed, xid)).toBe(xids.has(xid));
    }
  }
  expect(packXids([704, 701, 700, 702])).toEqual([700, 3, 2, 1]);
});

const GROUP_OF_ALL: IndexGroup = {
  systemId: 7_123_456_789_012_345_678n,
  timeline: 3,
  segmentSize: 1 << 24,
  start: 0x2000_0000n as Lsn,
  segments: Array.from({ length: GROUP }, (_, i) =>
    i === 0
      ? undefined
      : {
          ends: i,
          times: {
            first: -1n as TimestampTz,
            last: 800_000_000_000_000n as TimestampTz,
            min: -0x7fff_ffff_ffff_ffffn as TimestampTz,
            max: 0x7fff_ffff_ffff_ffffn as TimestampTz,
          },
          xids: [700, i],
          points: [{ lsn: 0x2000_0028n as Lsn, time: 5n as TimestampTz, name: 'vor "dem" Ümbau' }],
          clocks: [3n as TimestampTz],
        },
  ),
};

test('what was written is read', () => {
  expect(parseIndex(indexBytes(GROUP_OF_ALL), 'k')).toEqual(GROUP_OF_ALL);
});

test('no changed bit, and no part of it, is read', () => {
  const bytes = indexBytes({ ...GROUP_OF_ALL, segments: GROUP_OF_ALL.segments.slice(0, 3) });
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = Buffer.from(bytes);
    changed[bit >> 3]! ^= 1 << (bit & 7);
    expect(() => parseIndex(changed, 'k')).toThrow(CorruptObjectError);
  }
  for (let length = 0; length < bytes.length; length++) {
    expect(() => parseIndex(bytes.subarray(0, length), 'k')).toThrow(CorruptObjectError);
  }
});

test('objects are made of whole groups, once, as many as wanted', async () => {
  const { archive } = history();
  const area = memoryArea();
  const catalog = await readCatalog(archive);
  const first = await updateIndex(catalog, area, { limit: 1 });
  expect(first).toEqual({ created: 1, present: 0, left: 1, unsound: [] });
  const again = await updateIndex(catalog, area);
  expect(again).toEqual({ created: 1, present: 1, left: 0, unsound: [] });
  expect(await updateIndex(catalog, area)).toMatchObject({ created: 0, present: 2 });
  expect(await keysOf(area)).toEqual([
    'index/00000001/000000010000000000000040',
    'index/00000001/000000010000000000000060',
  ]);
});

test('no connection that breaks while it is looked for encrypted WAL fails it', async () => {
  const { archive, way } = history();
  let broken = 0;
  const store = new MemoryStore({
    faults: ({ op }) => (op === 'get' && broken++ < 4 ? { kind: 'short', bytes: 3 } : undefined),
  });
  for (const name of way) {
    await store.create(`p/wal/${name.slice(0, 8)}/${name}`, contentOf(Buffer.alloc(100, 7)));
  }
  const made = await updateIndex(await readCatalog(archive), {
    ...memoryArea(),
    store,
    prefix: 'p/',
  });
  expect(made).toEqual({ created: 2, present: 0, left: 0, unsound: [] });
  expect(broken).toBeGreaterThan(4);
});

test('WAL that is missing or not good gets none', async () => {
  const whole = history();
  const missing = whole.way[20]!;
  const without = new Map(whole.files);
  whole.files.delete(missing);
  const area = memoryArea();
  expect(await updateIndex(await readCatalog(whole.archive), area)).toMatchObject({ created: 1 });
  whole.files.set(missing, Buffer.from(without.get(missing) as Buffer));
  (whole.files.get(missing) as Buffer)[60]! ^= 1;
  const result = await updateIndex(await readCatalog(whole.archive), area);
  expect(result).toMatchObject({ created: 0, unsound: [{ segment: missing }] });
  expect(await keysOf(area)).toHaveLength(1);
});

async function ask(of: History, area: ReturnType<typeof memoryArea>, keys = {}) {
  const end = of.records[3]!.end;
  const after = { lsn: end, redo: of.records[0]!.lsn, timeline: 1 };
  const catalog = await readCatalog(of.archive);
  of.archive.reads.length = 0;
  return locateTarget(catalog, { kind: 'xid', xid: 3, inclusive: true }, { after, area, keys });
}

test('a damaged object is told, and WAL is read', async () => {
  const of = history();
  const area = memoryArea();
  await updateIndex(await readCatalog(of.archive), area);
  const indexed = await ask(of, area);
  expect(indexed).toMatchObject({ unreachable: { reason: 'unknown', notes: [] } });
  const read = 'unreachable' in indexed ? indexed.unreachable.segmentsRead : 0;
  expect(read).toBeLessThan(of.way.length - 30);
  const [key] = (await keysOf(area)) as [string];
  const stored = Buffer.from(await bytesOf((await area.store.get(key))!.body));
  await area.store.remove([key]);
  stored[stored.length >> 1]! ^= 4;
  await area.store.create(key, contentOf(stored));
  const damaged = await ask(of, area);
  expect(damaged).toMatchObject({ unreachable: { reason: 'unknown' } });
  const { notes, segmentsRead } = (damaged as Extract<typeof damaged, { unreachable: object }>)
    .unreachable;
  expect(notes.join()).toContain(key);
  // The first segment of the first group is read in any case.
  expect(segmentsRead).toBe(read + 15);
});

test('an encrypted index helps who has the key', async () => {
  const of = history();
  const area = memoryArea();
  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  const path = join(scratchDir('identity'), 'key');
  writeFileSync(path, `${identity}\n`, { mode: 0o600 });
  const recipients = await parseRecipients([recipient]);
  await updateIndex(await readCatalog(of.archive), area, { recipients });
  const locked = await ask(of, area);
  const opened = await ask(of, area, { identityFiles: [path] });
  expect(locked).toMatchObject({ unreachable: { notes: [expect.stringContaining('encrypted')] } });
  expect(opened).toMatchObject({ unreachable: { reason: 'unknown', notes: [] } });
});

test('an object of other WAL is none', async () => {
  const of = history();
  const other = memoryArea();
  const area = memoryArea();
  await updateIndex(await readCatalog(of.archive), other);
  const [key] = (await keysOf(other)) as [string];
  await area.store.create(key, contentOf(indexBytes(GROUP_OF_ALL)));
  expect(await ask(of, area)).toMatchObject({
    unreachable: { notes: [expect.stringContaining('other WAL')] },
  });
});
