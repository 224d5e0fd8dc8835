import { expect, it } from 'vitest';
import type { Lsn } from '../../src/lsn.js';
import { WalInspector } from '../../src/receive/inspector.js';
import { switchedWal } from '../wal/switched.js';

const MB = 1024 * 1024;
const wal = switchedWal(300_000);

/** What an inspector says of the bytes from an offset on, in chunks. */
function inspect(bytes: Buffer, from: number) {
  const feedLsn = (wal.start + BigInt(from)) as Lsn;
  const inspector = new WalInspector({
    mode: 'strict',
    feedLsn,
    startLsn: (((feedLsn + 8191n) / 8192n) * 8192n) as Lsn,
    segmentSize: MB,
    blockSize: 8192,
    timeline: 1,
    onFault: () => {},
    onUnknownMagic: () => {},
  });
  for (let at = from; at < bytes.length; at += 50_001) {
    const bad = inspector.feed([bytes.subarray(at, at + 50_001)]);
    if (bad) return bad.fault;
  }
  return undefined;
}

it.each([0, 0x55, 0xd1])('goes on behind a switch record (%i there)', (byte) => {
  const bytes = wal.tail((rest) => rest.fill(byte));
  for (const from of [wal.from, wal.from + 5, 400_000, 49 * 8192, MB - 8192, MB - 1, MB]) {
    expect(inspect(bytes, from)).toBeUndefined();
    const damaged = Buffer.from(bytes);
    damaged[MB + 50_000] = damaged[MB + 50_000]! ^ 1;
    expect(inspect(damaged, from)).toMatchObject({ kind: 'record-crc' });
  }
});

it('begins with the next page where none is at the start', () => {
  const bytes = Buffer.from(wal.bytes);
  bytes[10 * 8192 + 9] = 0x77;
  expect(inspect(bytes, 10 * 8192)).toBeUndefined();
  expect(inspect(bytes, 9 * 8192)).toMatchObject({ kind: 'page-address' });
  bytes[MB + 9] = 0x77;
  expect(inspect(bytes, 400_000)).toMatchObject({ kind: 'page-address' });
});
