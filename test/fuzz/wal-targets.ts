import assert from 'node:assert/strict';
import fc from 'fast-check';
import { WalDecoder } from '../../src/wal/decoder.js';
import { invalidatedDatabase, parseDatabaseDrop } from '../../src/wal/records/database.js';
import { parseInplaceUpdate } from '../../src/wal/records/heap-inplace.js';
import { parseRecordBody } from '../../src/wal/records/record-body.js';
import { parseSmgrRecord } from '../../src/wal/records/smgr.js';
import { parseXactRecord } from '../../src/wal/records/xact.js';
import { parseXlogRecord } from '../../src/wal/records/xlog-records.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import { makeWal } from '../wal/synthetic.js';
import { target, typed } from './harness.js';
import { cuts, damages, pieces, spoil } from './inputs.js';

const OPTIONS = { segmentSize: 1 << 20, timeline: 1, systemId: 77n };
const records = [0, 1, 30, 300, 9000, 17, 64, 250].map((length, i) => ({
  body: Buffer.alloc(length, i + 1),
}));
const WAL = makeWal(records);

const walBytes = fc.oneof(
  { weight: 6, arbitrary: damages(4).map((changes) => spoil(WAL.bytes, changes)) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 400 }).map((b) => Buffer.from(b)) },
);

/** Where the bytes are first not those that were written. */
function firstDifference(bytes: Buffer): number {
  const length = Math.min(bytes.length, WAL.bytes.length);
  for (let i = 0; i < length; i++) if (bytes[i] !== WAL.bytes[i]) return i;
  return length;
}

const wal = target('WAL verifier and decoder', 100, fc.tuple(walBytes, cuts), ([bytes, sizes]) => {
  const options = { ...OPTIONS, startLsn: WAL.start };
  const verifier = new WalVerifier(options);
  for (const piece of pieces(bytes, sizes)) verifier.feed(piece);
  const whole = new WalVerifier(options);
  whole.feed(bytes);
  assert.deepEqual(
    [verifier.fault?.kind, verifier.validEnd, verifier.verifiedEnd],
    [whole.fault?.kind, whole.validEnd, whole.verifiedEnd],
  );
  assert(whole.validEnd <= whole.verifiedEnd && whole.verifiedEnd <= whole.position);
  // Nothing that a server wrote is called bad.
  if (firstDifference(bytes) === bytes.length) assert.equal(whole.fault, undefined);
  const decoder = new WalDecoder({ ...options, maxRecord: 1 << 20 });
  decoder.feed(bytes);
  let decoded = 0;
  typed(() => {
    while (decoder.next()) decoded += 1;
  });
  assert(decoded <= bytes.length);
});

const small = fc.integer({ min: 0, max: 4 });
const word = fc.constantFrom(0, 1, 2, 255, 254, 253, 252, 0x7fffffff, 0xffffffff, 0x80000000);
/** Headers, counts and lengths as records have them, and what does not fit. */
const recordBody = fc
  .array(
    fc.oneof(
      fc.tuple(small, small, fc.nat(40), fc.nat(255)).map(([id, flags, length, last]) => {
        return [id, flags << 4, length, 0, last];
      }),
      word.map((w) => [w & 255, (w >> 8) & 255, (w >> 16) & 255, (w >>> 24) & 255]),
      fc.array(fc.nat(255), { maxLength: 30 }),
    ),
    { maxLength: 6 },
  )
  .map((parts) => Uint8Array.from(parts.flat()));
const info = fc.nat(255);
const major = fc.constantFrom(undefined, 14, 15, 16, 17, 18);

const contents = target('record contents', 60, fc.tuple(recordBody, info, major), (input) => {
  const [body, kind, version] = input;
  const options = version === undefined ? {} : { major: version };
  typed(() => parseRecordBody(body, options));
  typed(() => parseInplaceUpdate(body, options));
  typed(() => parseXactRecord({ info: kind, xid: 7 }, body, version));
  typed(() => parseXlogRecord(kind, body));
  typed(() => parseSmgrRecord(kind, body));
  typed(() => parseDatabaseDrop(kind, body, version));
  typed(() => invalidatedDatabase(body, version));
});

export const walTargets = [wal, contents];
