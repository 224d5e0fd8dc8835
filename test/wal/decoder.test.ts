import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { formatLsn, type Lsn, parseLsn } from '../../src/lsn.js';
import { WalDecoder, type WalDecoderOptions } from '../../src/wal/decoder.js';
import { rmgrName, type WalRecord } from '../../src/wal/record.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import { FIXTURES, loadFixture, optionsFor, usedBytes } from './fixtures.js';
import { makeWal } from './synthetic.js';

vi.setConfig({ testTimeout: 30_000 });

/** Cuts `bytes` into pieces whose sizes repeat. */
function* cut(bytes: Uint8Array, sizes: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const end = Math.min(bytes.length, at + sizes[i % sizes.length]!);
    yield bytes.subarray(at, end);
    at = end;
  }
}

/** Mostly single bytes; the leap only keeps the test short. */
const ONES = [...Array(500).fill(1), 8000];

function decode(options: WalDecoderOptions, pieces: Iterable<Uint8Array>) {
  const decoder = new WalDecoder(options);
  const records: WalRecord[] = [];
  for (const piece of pieces) {
    decoder.feed(piece);
    for (let r = decoder.next(); r; r = decoder.next()) records.push(r);
  }
  return { decoder, records };
}

/** As testdata/make.ts writes what pg_waldump printed; LSNs as it pads them. */
const line = (r: WalRecord) =>
  [rmgrName(r.rmgr), r.totalLength, r.xid, padded(r.lsn), padded(r.prev)].join(' ');
const padded = (lsn: bigint) => {
  const [hi, lo] = formatLsn(lsn).split('/') as [string, string];
  return `${hi}/${lo.padStart(8, '0')}`;
};

describe.each(FIXTURES)('%s', (name) => {
  const f = loadFixture(name);

  test('is good to its end, however it is cut', () => {
    const options = { ...optionsFor(f), partial: true };
    const whole = decode(options, [f.bytes]);
    expect(whole.decoder.fault?.kind).toBe('zeros');
    expect(whole.decoder.end()).toMatchObject({ kind: 'zeros', lsn: f.end });
    expect(whole.decoder.end().nonZero).toBeUndefined();
    expect(whole.decoder.serverMajor).toBe(f.major);
    expect(whole.decoder.systemId).toBe(f.systemId);
    expect(whole.decoder.position).toBe(f.start + BigInt(f.bytes.length));
    expect(whole.records.length).toBeGreaterThan(2);
    for (const sizes of [[8192], [100_001], [7, 8191, 1, 4096, 65, 30_000], [24, 8]]) {
      const again = decode(options, cut(f.bytes, sizes));
      expect(again.records.length).toBe(whole.records.length);
      expect(again.records.every((r, i) => sameRecord(r, whole.records[i]!))).toBe(true);
      expect(again.decoder.fault).toEqual(whole.decoder.fault);
      expect(again.decoder.end()).toEqual(whole.decoder.end());
    }
  });

  test('used bytes end at a boundary, and fed one at a time are good', () => {
    const used = usedBytes(f);
    const verifier = new WalVerifier(optionsFor(f));
    for (const piece of cut(used, ONES)) verifier.feed(piece);
    expect(verifier.fault).toBeUndefined();
    expect(verifier.verifiedEnd).toBe(f.end);
    expect(verifier.validEnd).toBe(f.end);
    expect(verifier.end()).toEqual({ kind: 'boundary', lsn: f.end });
    expect(verifier.unknownMagic).toBe(false);
    const torn = new WalVerifier(optionsFor(f));
    torn.feed(used, 0, used.length - 1);
    expect(torn.end().kind).toBe('torn');
    expect(torn.verifiedEnd).toBe(f.end - 1n);
    expect(torn.validEnd).toBeLessThan(f.end);
  });

  test.skipIf(!f.records)('has the records that pg_waldump read (noted of PostgreSQL 15)', () => {
    const { records } = decode({ ...optionsFor(f), partial: true }, [f.bytes]);
    const expected = f.records!;
    const first = records.findIndex((r) => line(r) === expected[0]);
    expect(first).toBeGreaterThanOrEqual(0);
    expect(records.slice(first).map(line)).toEqual(expected);
  });
});

function sameRecord(a: WalRecord, b: WalRecord): boolean {
  const same = (Object.keys(a) as (keyof WalRecord)[]).every(
    (key) => key === 'body' || a[key] === b[key],
  );
  return same && Buffer.compare(a.body!, b.body!) === 0;
}

test('a record over several segments is put together', () => {
  const f = loadFixture('record-across-segments');
  const { records } = decode({ ...optionsFor(f), partial: true }, cut(f.bytes, [100_000]));
  const big = records.find((r) => r.totalLength > 2_500_000)!;
  expect(big.body!.length).toBe(big.totalLength - 24);
  expect(big.body!.subarray(-2_500_000).every((b) => b === 0x78)).toBe(true);
});

test('a start in the middle of a record skips to the next one', () => {
  const f = loadFixture('record-across-segments');
  const whole = decode({ ...optionsFor(f), partial: true }, [f.bytes]).records;
  for (const offset of [f.segmentSize, 2 * f.segmentSize, 2 * f.segmentSize + 3 * 8192]) {
    const startLsn = (f.start + BigInt(offset)) as Lsn;
    const options = { ...optionsFor(f), startLsn, partial: true };
    const { records, decoder } = decode(options, [f.bytes.subarray(offset)]);
    expect(records).toEqual(whole.filter((r) => r.lsn > startLsn));
    expect(decoder.end()).toMatchObject({ kind: 'zeros', lsn: f.end });
  }
});

test('a start at a record inside a page', () => {
  const f = loadFixture('mixed-15');
  const whole = decode({ ...optionsFor(f), partial: true }, [f.bytes]).records;
  const at = whole.findIndex((r) => (r.lsn & 8191n) > 1000n);
  const startLsn = whole[at]!.lsn;
  const bytes = f.bytes.subarray(Number(startLsn - f.start));
  const options = { ...optionsFor(f), startLsn, prev: whole[at - 1]!.lsn, partial: true };
  expect(decode(options, cut(bytes, [9999])).records.map(line)).toEqual(whole.slice(at).map(line));
  const wrong = { ...options, prev: whole[at - 2]!.lsn };
  expect(decode(wrong, [bytes]).decoder.fault).toMatchObject({
    kind: 'record-prev',
    lsn: startLsn,
  });
  expect(() => new WalDecoder({ ...options, startLsn: (startLsn + 4n) as Lsn })).toThrow(
    /no WAL record can begin/,
  );
  expect(() => new WalDecoder({ ...options, startLsn: (f.start + 8200n) as Lsn })).toThrow(
    /no WAL record can begin/,
  );
});

test('XLOG_SWITCH reaches to the end of its segment', () => {
  const f = loadFixture('switch');
  const { records } = decode({ ...optionsFor(f), partial: true }, [f.bytes]);
  const switches = records.filter((r) => r.rmgr === 0 && (r.info & 0xf0) === 0x40);
  const starts = (f.info.switches as string[]).map(parseLsn);
  expect(switches.map((r) => r.lsn)).toEqual(starts);
  expect(switches.every((r) => r.endLsn % BigInt(f.segmentSize) === 0n)).toBe(true);
});

test('a lost record is left out, its overwrite record is there', () => {
  const f = loadFixture('overwritten-contrecord');
  const { records } = decode({ ...optionsFor(f), partial: true }, [f.bytes]);
  const aborted = parseLsn(f.info.aborted as string);
  const missing = parseLsn(f.info.missing as string);
  const at = records.findIndex((r) => r.rmgr === 0 && (r.info & 0xf0) === 0xd0);
  expect(records[at]!.lsn).toBe(missing + 24n);
  expect(records[at]!.prev).toBe(records[at - 1]!.lsn);
  expect(records.some((r) => r.lsn === aborted)).toBe(false);
  const ones = decode({ ...optionsFor(f) }, cut(usedBytes(f), [1]));
  expect(ones.records).toEqual(records);
  // The archive may begin inside the lost record.
  const startLsn = (missing - 8192n) as Lsn;
  const options = { ...optionsFor(f), startLsn, partial: true };
  const later = decode(options, [f.bytes.subarray(Number(startLsn - f.start))]);
  expect(later.records).toEqual(records.slice(at));
  const fromFlag = { ...optionsFor(f), startLsn: missing, partial: true };
  const bytes = f.bytes.subarray(Number(missing - f.start));
  expect(decode(fromFlag, [bytes]).records).toEqual(records.slice(at));
});

test('records beyond maxRecord come without a body, others not selected not at all', () => {
  const f = loadFixture('record-across-segments');
  const options = { ...optionsFor(f), partial: true };
  const all = decode(options, [f.bytes]).records;
  const bounded = decode({ ...options, maxRecord: 1000 }, [f.bytes]).records;
  expect(bounded.map(line)).toEqual(all.map(line));
  expect(bounded.every((r) => (r.body === undefined) === r.totalLength > 1000)).toBe(true);
  const commits = decode({ ...options, select: (rmgr) => rmgr === 1 }, [f.bytes]);
  expect(commits.records).toEqual(all.filter((r) => r.rmgr === 1));
  expect(commits.decoder.end()).toMatchObject({ kind: 'zeros', lsn: f.end });
});

test('any block size, segment size, resource manager and address', () => {
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 60 }),
    fc.integer({ min: 0, max: 70_000 }).map((n) => new Uint8Array(n).fill(n)),
  );
  const record = fc.record({ body, rmgr: fc.nat(255), xid: fc.nat(), info: fc.constant(0x30) });
  const sizes = fc.constantFrom(1024, 2048, 4096, 8192, 32_768, 65_536);
  const segments = fc.constantFrom(1 << 20, 1 << 24, 1 << 30);
  const starts = fc.constantFrom(0x4000_0000n, 0xffff_c000_0000n, 0x7fff_ffff_0000_0000n);
  fc.assert(
    fc.property(
      fc.array(record, { minLength: 1, maxLength: 30 }),
      sizes,
      segments,
      starts,
      fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 5 }),
      (given, blockSize, segmentSize, start, cuts) => {
        const wal = makeWal(given, { blockSize, segmentSize, start });
        const options = { startLsn: wal.start, segmentSize };
        const { records, decoder } = decode(options, cut(wal.bytes, cuts));
        expect(records.map((r) => r.lsn)).toEqual(wal.lsns);
        expect(records.map((r) => [r.rmgr, r.xid])).toEqual(given.map((g) => [g.rmgr, g.xid]));
        expect(records.every((r, i) => Buffer.compare(r.body!, given[i]!.body) === 0)).toBe(true);
        expect(decoder.end().kind).toBe('boundary');
        expect(decoder.validEnd).toBe(decoder.position);
      },
    ),
    { numRuns: 60 },
  );
});

test('LSNs go over from one 4 GB range to the next', () => {
  const records = Array.from({ length: 40 }, () => ({ body: new Uint8Array(40_000) }));
  const wal = makeWal(records, { start: 0x1_fff0_0000n });
  const { decoder, records: found } = decode({ startLsn: wal.start, segmentSize: 1 << 20 }, [
    wal.bytes,
  ]);
  expect(found.map((r) => r.lsn)).toEqual(wal.lsns);
  expect(decoder.validEnd).toBeGreaterThan(0x2_0000_0000n);
  expect(decoder.end().kind).toBe('boundary');
});

test('pages of an unknown server are read, and said to be', () => {
  const wal = makeWal([{ body: new Uint8Array(9000) }], { magic: 0xd199 });
  wal.bytes.writeUInt16LE(0x8001, 8192 + 2);
  const verifier = new WalVerifier({ startLsn: wal.start, segmentSize: wal.segmentSize });
  expect(verifier.feed(wal.bytes)).toBeUndefined();
  expect(verifier.unknownMagic).toBe(true);
  expect(verifier.magic).toBe(0xd199);
  wal.bytes.writeUInt16LE(0xd118, 8192);
  const mixed = new WalVerifier({ startLsn: wal.start, segmentSize: wal.segmentSize });
  expect(mixed.feed(wal.bytes)).toMatchObject({ kind: 'page-magic', lsn: wal.start + 8192n });
});
