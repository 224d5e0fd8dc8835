import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { CorruptWalError } from '../../../src/errors.js';
import { formatLsn } from '../../../src/lsn.js';
import { WalDecoder } from '../../../src/wal/decoder.js';
import { segmentFileName, segmentOf } from '../../../src/wal/file-name.js';
import type { WalRecord } from '../../../src/wal/record.js';
import { invalidatedDatabase, parseDatabaseDrop } from '../../../src/wal/records/database.js';
import { parseInplaceUpdate } from '../../../src/wal/records/heap-inplace.js';
import { parseRecordBody } from '../../../src/wal/records/record-body.js';
import { formatRelation } from '../../../src/wal/records/relation.js';
import { parseSmgrRecord } from '../../../src/wal/records/smgr.js';
import { formatTimestamp } from '../../../src/wal/records/timestamp.js';
import { parseXactRecord, type TransactionEnd } from '../../../src/wal/records/xact.js';
import { parseXlogRecord } from '../../../src/wal/records/xlog-records.js';
import { scratchDir } from '../../support/scratch.js';
import { findTool } from '../../support/tools.js';
import { FIXTURES, loadFixture, optionsFor, type WalFixture } from '../fixtures.js';

vi.setConfig({ testTimeout: 30_000 });

const waldump = findTool('pg_waldump', 15);

function records(f: WalFixture): WalRecord[] {
  const decoder = new WalDecoder({ ...optionsFor(f), partial: true });
  decoder.feed(f.bytes);
  const all: WalRecord[] = [];
  for (let r = decoder.next(); r; r = decoder.next()) all.push(r);
  return all;
}

/** `TX TIME; rels: …; subxacts: …; dropped stats: …` as pg_waldump 15 prints a transaction's end. */
function describeXact(record: WalRecord, data: Uint8Array): string | undefined {
  const xact = parseXactRecord(record, data, 15);
  if (!xact) return undefined;
  const utc = (time: Parameters<typeof formatTimestamp>[0]) =>
    formatTimestamp(time).replace('+00', ' UTC');
  const path = (r: { spcOid: number; dbOid: number; relNumber: number }) =>
    r.spcOid === 1664 ? `global/${r.relNumber}` : `base/${r.dbOid}/${r.relNumber}`;
  const list = (label: string, items: readonly unknown[]) =>
    items.length > 0 ? `; ${label}: ${items.join(' ')}` : '';
  if (xact.kind === 'prepare') {
    const rels = list('rels(commit)', xact.droppedOnCommit.map(path));
    const onAbort = list('rels(abort)', xact.droppedOnAbort.map(path));
    return `PREPARE gid ${xact.gid}: ${utc(xact.time)}${rels}${onAbort}${list('subxacts', xact.subxids)}`;
  }
  const name = `${xact.kind.toUpperCase()}${xact.prepared ? `_PREPARED ${xact.xid}:` : ''}`;
  const changed = xact.changedRelations.length > 0 ? `; relcache ${xact.changedRelations}` : '';
  const stats = xact.droppedStatistics.map((s) => `${s.kind}/${s.dbOid}/${s.objectId}`);
  return (
    `${name} ${utc(xact.time)}${list('rels', xact.dropped.map(path))}` +
    `${list('subxacts', xact.subxids)}${list('dropped stats', stats)}${changed}`
  );
}

function describeXlog(record: WalRecord, data: Uint8Array): string | undefined {
  const c = parseXlogRecord(record.info, data);
  switch (c?.kind) {
    case 'checkpoint': {
      const xid = `${c.nextXid >> 32n}:${c.nextXid & 0xffff_ffffn}`;
      return (
        `CHECKPOINT_${c.shutdown ? 'SHUTDOWN' : 'ONLINE'} redo ${formatLsn(c.redo)}; ` +
        `tli ${c.timeline}; prev tli ${c.previousTimeline}; fpw ${c.fullPageWrites}; ` +
        `xid ${xid}; oid ${c.nextOid}; multi ${c.nextMulti}; offset ${c.nextMultiOffset}; ` +
        `oldest xid ${c.oldestXid} in DB ${c.oldestXidDb}; ` +
        `oldest multi ${c.oldestMulti} in DB ${c.oldestMultiDb}; ` +
        `oldest/newest commit timestamp xid: ${c.oldestCommitTsXid}/${c.newestCommitTsXid}; ` +
        `oldest running xid ${c.oldestActiveXid}; ${c.shutdown ? 'shutdown' : 'online'}`
      );
    }
    case 'restore-point':
      return `RESTORE_POINT ${c.name}`;
    case 'end-of-recovery':
      return (
        `END_OF_RECOVERY tli ${c.timeline}; prev tli ${c.previousTimeline}; ` +
        `time ${formatTimestamp(c.time).replace('+00', ' UTC')}`
      );
    case 'switch':
      return 'SWITCH';
    default:
      return undefined;
  }
}

function describeStorage(record: WalRecord, data: Uint8Array): string | undefined {
  const c = parseSmgrRecord(record.info, data);
  if (!c) return undefined;
  const path = `base/${c.relation.dbOid}/${c.relation.relNumber}`;
  const fork = c.kind === 'create' ? ['', '_fsm', '_vm', '_init'][c.fork] : '';
  return c.kind === 'create'
    ? `CREATE ${path}${fork}`
    : `TRUNCATE ${path} to ${c.blocks} blocks flags ${c.flags}`;
}

/** Block references as pg_waldump ends its lines with them. */
function describeBlocks(record: WalRecord): string {
  const forks = ['', 'fork fsm ', 'fork vm ', 'fork init '];
  return parseRecordBody(record.body!, { major: 15 })
    .blocks.map(
      ({ id, relation, fork, block, image }) =>
        `, blkref #${id}: rel ${formatRelation(relation)} ${forks[fork]}blk ${block}` +
        `${image ? (image.apply ? ' FPW' : ' FPW for WAL verification') : ''}`,
    )
    .join('');
}

/** `LSN description` of each record that we describe. */
function ours(f: WalFixture): string[] {
  return records(f).flatMap((record) => {
    const { data } = parseRecordBody(record.body!, { major: 15 });
    const describe = [describeXlog, describeXact, describeStorage][record.rmgr];
    const text = describe?.(record, data);
    return [`${formatLsn(record.lsn)} ${text ?? ''}${describeBlocks(record)}`];
  });
}

/** The same of pg_waldump: of other records only the block references. */
function theirs(f: WalFixture): string[] {
  const dir = scratchDir('plain');
  const names: string[] = [];
  for (let at = 0; at < f.bytes.length; at += f.segmentSize) {
    const timeline = f.history && at > 0 ? f.history.timeline : 1;
    const segment = segmentOf(f.start + BigInt(at), f.segmentSize);
    names.push(segmentFileName(timeline, segment, f.segmentSize));
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, names.at(-1)!), f.bytes.subarray(at, at + f.segmentSize));
  }
  const script = '"$0" -p "$1" "$2" "$3" 2>/dev/null; true';
  const [first, last] = [f.history ? names.at(-1)! : names[0]!, names.at(-1)!];
  const out = execFileSync('sh', ['-c', script, waldump!, dir, first, last], {
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
    env: { ...process.env, TZ: 'UTC', PGTZ: 'UTC' },
  });
  const line = /^rmgr: (\w+) .* lsn: (\w+)\/0*(\w+), prev \S+ desc: (.*?)((?:, blkref #.*)?)$/gm;
  return [...out.matchAll(line)].map(([, rmgr, high, low, desc, blocks]) => {
    const known =
      rmgr === 'Storage' ||
      (rmgr === 'XLOG' && /^(CHECKPOINT_|RESTORE_POINT|END_OF|SWITCH)/.test(desc!)) ||
      (rmgr === 'Transaction' && !/^(INVALIDATION|ASSIGNMENT)/.test(desc!));
    if (!known) return `${high}/${low} ${blocks}`;
    const relcache = new Set([...desc!.matchAll(/ relcache (\d+)/g)].map((m) => m[1]));
    const text = desc!.replace(/; (inval msgs|relcache init file|sync|apply_).*/, '').trim();
    const changed = relcache.size > 0 && !/^PREPARE/.test(desc!);
    return `${high}/${low} ${text}${changed ? `; relcache ${[...relcache]}` : ''}${blocks}`;
  });
}

const OF_15 = FIXTURES.filter((name) => loadFixture(name).major === 15);

test.skipIf(!waldump).each(OF_15)('%s: contents as pg_waldump 15 reads them', (name) => {
  const f = loadFixture(name);
  const expected = theirs(f);
  const mine = ours(f);
  const first = mine.indexOf(expected[0]!);
  expect(first).toBeGreaterThanOrEqual(0);
  expect(expected.length).toBeGreaterThan(0);
  expect(mine.slice(first)).toEqual(expected);
});

test.each(FIXTURES.filter((name) => name.startsWith('mixed-')))('%s: one of each', (name) => {
  const f = loadFixture(name);
  const all = records(f).flatMap((record) => {
    const { data } = parseRecordBody(record.body!, { major: f.major });
    if (record.rmgr === 0) return parseXlogRecord(record.info, data) ?? [];
    return record.rmgr === 1 ? (parseXactRecord(record, data, f.major) ?? []) : [];
  });
  const point = all.find((c) => c.kind === 'restore-point')!;
  expect(point).toMatchObject({ name: 'before the drop' });
  const prepares = all.filter((c) => c.kind === 'prepare');
  expect(prepares).toMatchObject([{ gid: 'one' }, { gid: 'two' }]);
  const ends = all.filter((c): c is TransactionEnd => c.kind === 'commit' || c.kind === 'abort');
  const prepared = ends.filter((c) => c.prepared);
  expect(prepared.map((c) => [c.kind, c.xid, c.gid])).toEqual([
    ['commit', prepares[0]!.xid, 'one'],
    ['abort', prepares[1]!.xid, 'two'],
  ]);
  expect(ends.filter((c) => c.subxids.length > 0).map((c) => c.subxids.length)).toEqual([2]);
  const [truncate, drop] = ends.filter((c) => c.dropped.length > 0);
  expect(truncate!.droppedStatistics).toEqual([]);
  const gone = truncate!.dropped[0]!.relNumber;
  const statistics = { kind: 2, dbOid: drop!.dbOid, objectId: BigInt(gone) };
  expect(drop!.droppedStatistics).toEqual(f.major >= 15 ? [statistics] : []);
  expect(drop!.changedRelations).toEqual([gone]);
  for (const c of [...ends, ...prepares, point]) {
    expect(formatTimestamp(c.time)).toMatch(/^2026-/);
  }
  const checkpoints = all.filter((c) => c.kind === 'checkpoint');
  expect(checkpoints.length).toBeGreaterThan(1);
  for (const c of checkpoints) {
    const year = new Date(Number(c.time) * 1000).getUTCFullYear();
    expect([c.timeline, c.shutdown, year]).toEqual([1, false, 2026]);
    expect(c.redo).toBeLessThan(f.end);
  }
});

test('every record of every fixture is taken apart, images as long as they say', () => {
  for (const f of FIXTURES.map(loadFixture)) {
    for (const record of records(f)) {
      for (const { image } of parseRecordBody(record.body!, { major: f.major }).blocks) {
        if (image?.compression === 'none') {
          expect(image.bytes.length + image.holeLength).toBe(8192);
        }
      }
    }
  }
});

test('an origin, a top-level transaction, many items', () => {
  const body = new Uint8Array([253, 7, 0, 252, 1, 2, 0, 0, 255, 2, 8, 9]);
  const parsed = parseRecordBody(body);
  expect(parsed).toMatchObject({ origin: 7, toplevelXid: 513, blocks: [] });
  expect([...parsed.data]).toEqual([8, 9]);
  expect(() => parseRecordBody(body.subarray(0, 11))).toThrow(CorruptWalError);
  expect(() => parseRecordBody(new Uint8Array([200]))).toThrow(/unknown part 200/);
  // time, xinfo (origin), origin_lsn, origin_timestamp
  const data = new Uint8Array(28);
  const view = new DataView(data.buffer);
  view.setUint32(8, 1 << 5, true);
  view.setBigUint64(12, 0x1_0000_0010n, true);
  view.setBigInt64(20, -5n, true);
  const xact = parseXactRecord({ info: 0x80, xid: 9 }, data, 18);
  expect(xact).toMatchObject({ xid: 9, origin: { lsn: 0x1_0000_0010n, time: -5n } });
  const longer = new Uint8Array([...data, 0]);
  expect(() => parseXactRecord({ info: 0x80, xid: 9 }, longer, 18)).toThrow(/1 bytes too many/);
  expect(parseXactRecord({ info: 0x80, xid: 9 }, longer, undefined)).toBeDefined();
  // A drop of a database in two tablespaces, as 14 and as later ones number it.
  const drop = new Uint8Array(new Uint32Array([16500, 2, 1663, 1700]).buffer);
  const expected = { dbOid: 16500, tablespaces: [1663, 1700] };
  expect(parseDatabaseDrop(0x10, drop, 14)).toEqual(expected);
  expect(parseDatabaseDrop(0x20, drop, 18)).toEqual(expected);
  expect(parseDatabaseDrop(0x10, drop, 18)).toBeUndefined();
});

const PARSERS: ((info: number, data: Uint8Array, major: number | undefined) => unknown)[] = [
  (_, data, major) => parseRecordBody(data, { major }),
  (info, data, major) => parseXactRecord({ info, xid: 5 }, data, major),
  (info, data) => parseXlogRecord(info, data),
  (info, data) => parseSmgrRecord(info, data),
  (info, data, major) => parseDatabaseDrop(info, data, major),
  (_, data, major) => parseInplaceUpdate(data, { major }),
  (_, data, major) => invalidatedDatabase(data, major),
];

test('garbage is refused with CorruptWalError or read, whatever it is', () => {
  const majors = fc.constantFrom(14, 15, 16, 17, 18, undefined);
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    // Small numbers make plausible flags and counts.
    fc.array(fc.constantFrom(0, 1, 2, 16, 32, 64, 128, 255), { maxLength: 300 }),
  );
  fc.assert(
    fc.property(
      fc.nat(PARSERS.length - 1),
      fc.nat(255),
      bytes,
      majors,
      (which, info, raw, major) => {
        try {
          PARSERS[which]!(info, Uint8Array.from(raw), major);
        } catch (e) {
          expect(e).toBeInstanceOf(CorruptWalError);
        }
      },
    ),
    { numRuns: Number(process.env.FUZZ_RUNS ?? 20_000) },
  );
});

test('real records with a byte changed or cut off, too', () => {
  const all = records(loadFixture('mixed-18')).filter((r) => [0, 1, 2, 4, 10].includes(r.rmgr));
  fc.assert(
    fc.property(fc.nat(all.length - 1), fc.nat(), fc.nat(255), fc.nat(40), (i, at, value, cut) => {
      const { body, ...record } = all[i]!;
      const bytes = body!.slice(0, Math.max(0, body!.length - Math.max(0, cut - 20)));
      if (bytes.length > 0) bytes[at % bytes.length] = value;
      try {
        const { data } = parseRecordBody(bytes, { major: 18 });
        for (const parse of PARSERS.slice(1, 5)) parse(record.info, data, 18);
      } catch (e) {
        expect(e).toBeInstanceOf(CorruptWalError);
      }
    }),
    { numRuns: 3000 },
  );
});
