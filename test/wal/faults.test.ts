import crc32c from 'crc-32/crc32c.js';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import {
  CorruptWalError,
  NotSupportedError,
  SystemIdentifierError,
  UsageError,
  WalkeepError,
} from '../../src/errors.js';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { WalDecoder } from '../../src/wal/decoder.js';
import type { WalFaultKind } from '../../src/wal/fault.js';
import { XLP_BKP_REMOVABLE } from '../../src/wal/page.js';
import { rootHistory } from '../../src/wal/timeline.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import {
  FIXTURES,
  loadFixture,
  optionsFor,
  unusedIn,
  usedBytes,
  type WalFixture,
} from './fixtures.js';
import { makeWal } from './synthetic.js';

/** 100,000 for a thorough run. */
const RUNS = Number(process.env.WALKEEP_FUZZ_RUNS ?? 300);
vi.setConfig({ testTimeout: 30_000 + RUNS * 20 });

const SMALL = 'record-header-across-pages';
const at = (f: WalFixture, lsn: bigint) => Number(lsn - f.start);

/** The fault found in a fixture after `damage`, the same fed whole and in small pieces. */
function faultOf(name: string, damage: (bytes: Buffer, f: WalFixture) => void, options = {}) {
  const f = loadFixture(name);
  const bytes = Buffer.from(f.bytes);
  damage(bytes, f);
  const whole = new WalVerifier({ ...optionsFor(f), ...options });
  whole.feed(bytes);
  const pieces = new WalVerifier({ ...optionsFor(f), ...options });
  const step = 211;
  for (let i = 0; i < bytes.length; i += step) {
    pieces.feed(bytes, i, Math.min(i + step, bytes.length));
  }
  expect(pieces.fault).toEqual(whole.fault);
  expect(pieces.end()).toEqual(whole.end());
  return { f, fault: whole.fault!, verifier: whole };
}

/** The records of a fixture. */
function recordsOf(f: WalFixture) {
  const decoder = new WalDecoder({ ...optionsFor(f), partial: true });
  decoder.feed(f.bytes);
  const records = [];
  for (let r = decoder.next(); r; r = decoder.next()) records.push(r);
  return records;
}

const unusedBytes = (f: WalFixture) => unusedIn(usedBytes(f), optionsFor(f));

describe('page faults are named', () => {
  const page = 5 * 8192;
  const flip = (offset: number, mask: number) => (bytes: Buffer) => {
    bytes[offset] = bytes[offset]! ^ mask;
  };
  const cases: [WalFaultKind, number, (bytes: Buffer) => void, object?][] = [
    ['page-magic', page, flip(page, 2)],
    ['page-magic', 0, flip(1, 0x80)],
    ['page-flags', page, flip(page + 2, 2)],
    ['page-flags', page, flip(page + 3, 1)],
    ['page-flags', 0, flip(2, 2)],
    ['page-timeline', page, flip(page + 4, 3)],
    ['page-timeline', page, flip(page + 4, 3), { history: rootHistory(1) }],
    ['page-timeline', page, flip(page + 4, 1), { timeline: undefined }],
    ['page-address', page, flip(page + 10, 1)],
    ['page-continuation', page, flip(page + 16, 1)],
    ['page-continuation', page, flip(page + 2, 1)],
    ['page-continuation', page, flip(page + 2, 8)],
    ['system-identifier', 0, flip(24, 1)],
    ['segment-size', 0, flip(35, 1)],
    ['block-size', 0, flip(37, 1)],
    ['block-size', 0, () => {}, { blockSize: 4096 }],
    ['page-magic', 0, () => {}, { magic: 0xd116 }],
    ['byte-order', 0, (bytes) => bytes.subarray(0, 2).swap16()],
  ];
  test.each(cases)('%s at %i', (kind, offset, damage, options) => {
    const { f, fault } = faultOf(SMALL, damage, options);
    expect(fault).toMatchObject({ kind, lsn: f.start + BigInt(offset) });
    expect(fault.validEnd).toBeLessThanOrEqual(fault.lsn);
    expect(fault.expected).not.toBe(fault.actual);
  });

  test('a page that would remove full-page images of no backup is no fault', () => {
    expect(faultOf(SMALL, flip(page + 2, 4)).fault.kind).toBe('zeros');
  });
});

describe('record faults are named', () => {
  const f = loadFixture('mixed-15');
  const records = recordsOf(f);
  // One that lies in a page, is padded and has good records around it.
  const target = records.find((r, i) => {
    const inPage = Number(r.lsn & 8191n) + r.totalLength < 8000;
    return i > 20 && inPage && r.totalLength % 8 !== 0;
  })!;
  const offset = at(f, target.lsn);
  const cases: [WalFaultKind, number, number][] = [
    ['record-crc', 30, 1],
    ['record-crc', 20, 1],
    ['record-crc', 4, 1],
    ['record-crc', 17, 0xff],
    ['record-crc', 18, 1],
    ['record-prev', 8, 8],
    ['record-prev', 12, 1],
    ['record-length', 3, 0x80],
  ];
  test.each(cases)('%s', (kind, byte, mask) => {
    const { fault, verifier } = faultOf('mixed-15', (bytes) => {
      bytes[offset + byte] = bytes[offset + byte]! ^ mask;
    });
    expect(fault.kind).toBe(kind);
    expect(fault.validEnd).toBe(target.lsn);
    expect(verifier.verifiedEnd).toBe(target.lsn);
    expect(verifier.end()).toMatchObject({ kind: 'damaged', lsn: target.lsn });
    expect(verifier.position).toBe(f.start + BigInt(f.bytes.length));
  });

  test('zeros in the middle are told from zeros at the end', () => {
    let rest = offset + 4096;
    while (f.bytes[rest] === 0) rest++;
    const { fault, verifier } = faultOf('mixed-15', (bytes) => bytes.fill(0, offset, rest));
    expect(fault).toMatchObject({ kind: 'zeros', lsn: target.lsn });
    expect(verifier.end().kind).toBe('damaged');
    expect(verifier.end().nonZero).toBe(f.start + BigInt(rest));
  });

  test('a zero page is reported with the record that it cuts', () => {
    const page = records.find((r) => r.endLsn % 8192n > 400n && r.lsn >> 13n < r.endLsn >> 13n)!;
    const start = at(f, (page.endLsn >> 13n) << 13n);
    const { fault, verifier } = faultOf('mixed-15', (bytes) => bytes.fill(0, start, start + 8192));
    expect(fault).toMatchObject({ kind: 'zeros', validEnd: page.lsn });
    expect(verifier.end().kind).toBe('damaged');
  });
});

describe('bytes that PostgreSQL does not read', () => {
  /** The fixture with the bytes changed is as good as before, however it is fed. */
  const isFine = (name: string, damage: (bytes: Buffer, f: WalFixture) => void) => {
    const { f, fault, verifier } = faultOf(name, damage);
    expect(fault?.kind ?? 'zeros').toBe('zeros');
    expect(verifier.validEnd).toBe(f.end);
    const bytes = Buffer.from(f.bytes);
    damage(bytes, f);
    const decoder = new WalDecoder({ ...optionsFor(f), partial: true });
    decoder.feed(bytes);
    let count = 0;
    while (decoder.next()) count++;
    expect(count).toBe(recordsOf(f).length);
  };

  test('whatever stands behind XLOG_SWITCH is part of nothing', () => {
    const f = loadFixture('switch');
    const size = BigInt(f.segmentSize);
    const tails = (f.info.switches as string[]).map((text) => {
      const behind = ((parseLsn(text) + 23n) / size + 1n) * size;
      const begin = recordsOf(f).find((r) => r.lsn === parseLsn(text))!;
      expect(begin.endLsn).toBe(behind);
      // The record may go on behind the header of a page.
      const from = parseLsn(text) + 24n;
      const crosses = from >> 13n !== parseLsn(text) >> 13n && from % 8192n !== 0n;
      return [at(f, from) + (crosses ? 40 : 0), at(f, behind)] as const;
    });
    expect(tails.some(([from, to]) => from === to)).toBe(true);
    isFine('switch', (bytes) => {
      for (const [from, to] of tails) bytes.fill(0xa7, from, to);
    });
    // Old pages, as a recycled file has them, from some page on.
    isFine('switch', (bytes) => {
      const old = loadFixture('mixed-15').bytes;
      for (const [from, to] of tails) {
        const page = Math.min(to, Math.ceil(from / 8192) * 8192 + 3 * 8192);
        old.copy(bytes, page, 0, to - page);
      }
    });
  });

  test('the segment behind a switch must follow it', () => {
    const f = loadFixture('switch');
    const record = parseLsn((f.info.switches as string[])[0]!);
    const next = recordsOf(f).find((r) => r.lsn > record)!;
    const { fault } = faultOf('switch', (bytes) => {
      bytes.fill(1, at(f, record) + 64, at(f, next.lsn & ~8191n));
      bytes[at(f, next.lsn) + 8] = bytes[at(f, next.lsn) + 8]! ^ 8;
    });
    expect(fault).toMatchObject({ kind: 'record-prev', lsn: next.lsn });
  });

  test('a record that a flipped bit makes a switch of is found', () => {
    // One bit away from XLOG_SWITCH are XLOG_CHECKPOINT_SHUTDOWN and XLOG_PARAMETER_CHANGE.
    const near = FIXTURES.flatMap((name) => {
      const f = loadFixture(name);
      return recordsOf(f)
        .filter((r) => r.rmgr === 0 && [0, 0x60].includes(r.info & 0xf0))
        .map((r) => [f, r] as const);
    });
    expect(near.length).toBeGreaterThan(0);
    for (const [f, { lsn, info }] of near) {
      const place = at(f, lsn) + (lsn % 8192n > 8192n - 24n ? 24 : 0);
      const { fault } = faultOf(f.name, (bytes) => {
        bytes[place + 16] = 0x40 | (info & 0xf);
      });
      expect(fault).toMatchObject({ kind: 'record-crc', lsn });
    }
  });

  test('alignment', () => {
    const padded = recordsOf(loadFixture('mixed-15')).filter((r) => r.totalLength % 8 !== 0);
    expect(padded.length).toBeGreaterThan(100);
    isFine('mixed-15', (bytes, f) => {
      for (const { endLsn, totalLength } of padded) {
        bytes.fill(0xff, at(f, endLsn) - (-totalLength & 7), at(f, endLsn));
      }
      for (let page = 0; page < f.end - f.start; page += 8192) bytes.fill(9, page + 20, page + 24);
    });
  });
});

test('an overwrite record must be there and name the lost one', () => {
  const f = loadFixture('overwritten-contrecord');
  const missing = parseLsn(f.info.missing as string);
  const aborted = parseLsn(f.info.aborted as string);
  const lost = faultOf('overwritten-contrecord', (bytes) => {
    bytes.fill(7, at(f, aborted) + 24, at(f, missing) - 8192);
  });
  expect(lost.fault).toMatchObject({ kind: 'zeros', lsn: f.end });
  const other = faultOf('overwritten-contrecord', (bytes) => {
    // Without the flag the page has to go on with the record.
    bytes[at(f, missing) + 2] = 0;
  });
  expect(other.fault).toMatchObject({ kind: 'page-continuation', lsn: missing });
  expect(other.fault.validEnd).toBe(aborted);
  /** Changes the overwrite record and gives it a right checksum again. */
  const changed = (change: (record: Buffer) => void) =>
    faultOf('overwritten-contrecord', (bytes) => {
      const start = at(f, missing) + 24;
      const record = bytes.subarray(start, start + bytes.readUInt32LE(start));
      change(record);
      const order = Buffer.concat([record.subarray(24), record.subarray(0, 20)]);
      record.writeInt32LE(crc32c.buf(order), 20);
    }).fault;
  const lsn = missing + 24n;
  const names = changed((record) => record.writeBigUInt64LE(aborted - 8n, 26));
  expect(names).toMatchObject({ kind: 'overwrite', lsn, validEnd: aborted });
  const isNone = changed((record) => record.writeUInt8(0x20, 16));
  expect(isNone).toMatchObject({ kind: 'overwrite', lsn, validEnd: aborted });
  expect(changed(() => {}).kind).toBe('zeros');
});

test('the pages of a new timeline must be of the one that owns them', () => {
  const f = loadFixture('promoted');
  const point = parseLsn(f.info.switchPoint as string);
  expect(f.history!.ancestors[0]!.end).toBe(point);
  const used = usedBytes(f);
  const verifier = new WalVerifier({ ...optionsFor(f), history: rootHistory(2) });
  expect(verifier.feed(used)).toMatchObject({ kind: 'page-timeline', lsn: f.start });
  const later = { ...f.history!, ancestors: [{ ...f.history!.ancestors[0]!, end: f.end }] };
  const firstNew = ((point + 8191n) / 8192n) * 8192n;
  expect(new WalVerifier({ ...optionsFor(f), history: later }).feed(used)).toMatchObject({
    kind: 'page-timeline',
    lsn: firstNew,
    expected: '1',
    actual: '2',
  });
  const unknown = { ...optionsFor(f), history: undefined, timeline: 2 };
  expect(new WalVerifier(unknown).feed(used)).toBeUndefined();
  expect(new WalVerifier({ ...unknown, timeline: 1 }).feed(used)).toMatchObject({
    kind: 'page-timeline',
    lsn: firstNew,
  });
});

test('errors are typed, carry the place, and come again', () => {
  const f = loadFixture('mixed-15');
  const errorOf = (damage: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(f.bytes);
    damage(bytes);
    const decoder = new WalDecoder(optionsFor(f));
    decoder.feed(bytes);
    const run = () => {
      while (decoder.next());
    };
    expect(run).toThrow(WalkeepError);
    try {
      decoder.next();
    } catch (error) {
      return error as WalkeepError;
    }
    throw new Error('no error the second time');
  };
  const crc = errorOf((b) => b.writeUInt8(b.readUInt8(8192 * 3 + 100) ^ 1, 8192 * 3 + 100));
  expect(crc).toBeInstanceOf(CorruptWalError);
  expect(crc.lsn).toBeGreaterThan(f.start);
  expect(crc.message).toMatch(/ at 0\/[0-9A-F]+$/);
  expect(errorOf((b) => b.writeUInt8(1, 24))).toBeInstanceOf(SystemIdentifierError);
  expect(errorOf((b) => b.subarray(0, 2).swap16())).toBeInstanceOf(NotSupportedError);
  const verifier = new WalVerifier(optionsFor(f));
  verifier.assertSound();
  verifier.feed(Buffer.alloc(100, 1));
  expect(() => verifier.assertSound()).toThrow(CorruptWalError);
});

test('impossible options are refused', () => {
  const startLsn = 0x100_0000n as Lsn;
  expect(() => new WalVerifier({ startLsn, segmentSize: 1000 })).toThrow(UsageError);
  expect(() => new WalVerifier({ startLsn, segmentSize: 1 << 20, blockSize: 100 })).toThrow(
    UsageError,
  );
});

describe('bit flips', () => {
  test.each(FIXTURES)('any in the used bytes of %s is found', (name) => {
    const f = loadFixture(name);
    const isUnused = unusedBytes(f);
    const used = Buffer.from(usedBytes(f));
    const exemptFrom = f.info.aborted ? at(f, parseLsn(f.info.aborted as string)) : 0;
    const exemptTo = f.info.missing ? at(f, parseLsn(f.info.missing as string)) : 0;
    fc.assert(
      fc.property(fc.nat(used.length - 1), fc.nat(7), (byte, bit) => {
        if (byte >= exemptFrom && byte < exemptTo) return;
        if ((byte % 8192 === 2 && bit === 2) || isUnused(byte)) return;
        used[byte] = used[byte]! ^ (1 << bit);
        const verifier = new WalVerifier(optionsFor(f));
        verifier.feed(used);
        used[byte] = used[byte]! ^ (1 << bit);
        const { kind, lsn } = verifier.end();
        expect(kind === 'boundary' && lsn === f.end, `byte ${byte} bit ${bit}`).toBe(false);
        // The magic of the very first page can only be told from a newer server's by the next one.
        if (byte > 1) expect(lsn).toBeLessThanOrEqual(f.start + BigInt(byte));
      }),
      { numRuns: Math.ceil(RUNS / 10) },
    );
  });
});

describe('garbage', () => {
  const feedAll = (bytes: Uint8Array, cuts: readonly number[], options: object = {}) => {
    const startLsn = 0x100_0000n as Lsn;
    const decoder = new WalDecoder({ startLsn, segmentSize: 1 << 20, ...options });
    let records = 0;
    let i = 0;
    try {
      for (let p = 0; p < bytes.length; i++) {
        const end = Math.min(bytes.length, p + cuts[i % cuts.length]!);
        decoder.feed(bytes.subarray(p, end));
        p = end;
        while (decoder.next()) records++;
      }
    } catch (error) {
      expect(error).toBeInstanceOf(WalkeepError);
    }
    expect(records).toBeLessThanOrEqual(bytes.length / 24);
    return decoder;
  };
  const cuts = fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 4 });

  test('is never taken for WAL, and never an untyped error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 3000 }), cuts, (bytes, c) => {
        expect(feedAll(bytes, c).validEnd).toBe(0x100_0000n);
      }),
      { numRuns: RUNS },
    );
  });

  test('behind a good beginning ends the WAL there', () => {
    const {
      bytes: good,
      start,
      segmentSize,
    } = makeWal(
      Array.from({ length: 50 }, (_, i) => ({ body: new Uint8Array(i * 17).fill(i) })),
      { start: 0x100_0000n },
    );
    const isUnused = unusedIn(good, { startLsn: start, segmentSize });
    fc.assert(
      fc.property(
        fc.nat(good.length),
        fc.uint8Array({ minLength: 1, maxLength: 300 }),
        cuts,
        (from, garbage, c) => {
          const bytes = Buffer.from(good);
          bytes.set(garbage.subarray(0, good.length - from), from);
          // The one flag that nothing checks, and bytes that nobody reads.
          for (let p = 2; p < bytes.length; p += 8192) bytes[p] = bytes[p]! & ~XLP_BKP_REMOVABLE;
          for (let p = from; p < bytes.length; p++) if (isUnused(p)) bytes[p] = 0;
          const same = bytes.equals(good);
          // Without these the first page says what cluster and server it is.
          const known = { systemId: 77n, magic: 0xd118, timeline: 1 };
          const decoder = feedAll(bytes, c, { ...known, partial: true });
          if (same) expect(decoder.validEnd).toBe(decoder.position);
          else expect(decoder.validEnd).toBeLessThan(0x100_0000n + BigInt(good.length));
        },
      ),
      { numRuns: RUNS },
    );
  });
});
