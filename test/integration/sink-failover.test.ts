import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Lsn } from '../../src/lsn.js';
import { streamWal } from '../../src/receive/sink.js';
import { floorToSegment, segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { firstDifference } from '../support/compare.js';
import { caughtUp, forkPoint, pair } from '../support/failover.js';
import { MAJORS } from '../support/postgres.js';
import { writeWal } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

test.skipIf(MAJORS.length === 0)('a sink follows a promotion without a gap', async () => {
  const [primary, standby] = await pair(MAJORS.at(-1)!);
  keep(primary);
  keep(standby);
  await writeWal(primary, 1_500_000);
  const startLsn = floorToSegment(await caughtUp(primary, standby), standby.segmentSize);
  const chunks: Buffer[] = [];
  const told: { timeline: number; lsn: Lsn }[] = [];
  let end: bigint = startLsn;
  const stop = new AbortController();
  const result = streamWal(
    { connection: standby.conninfo(), startLsn, synchronous: false, statusInterval: 100 },
    {
      async write(chunk, lsn) {
        expect(lsn).toBe(end);
        chunks.push(chunk);
        end += BigInt(chunk.length);
      },
      async flush() {},
      async timeline(next) {
        told.push(next);
      },
    },
    stop.signal,
  );
  result.catch(() => {});
  await writeWal(primary, 700_000);
  await caughtUp(primary, standby);
  await standby.promote();
  await writeWal(standby, 1_500_000);
  const position = await standby.currentLsn();
  await waitFor(() => end >= position, { what: 'the sink to have it all' });
  const lsn = await forkPoint(standby);
  expect(told).toMatchObject([
    { timeline: 2, lsn, history: { timeline: 2, ancestors: [{ timeline: 1, end: lsn }] } },
  ]);
  stop.abort();
  expect(await result).toBe(end);

  // From the segment of the fork on, which begins with pages of the old timeline.
  const size = standby.segmentSize;
  const bytes = Buffer.concat(chunks);
  for (
    let at = floorToSegment(told[0]!.lsn, size);
    at < position;
    at = (at + BigInt(size)) as Lsn
  ) {
    const name = segmentFileName(2, segmentOf(at, size), size);
    const expected = readFileSync(join(standby.dataDir, 'pg_wal', name));
    const length = Math.min(size, Number(position - at));
    const offset = Number(at - startLsn);
    const actual = bytes.subarray(offset, offset + length);
    expect(firstDifference(actual, expected.subarray(0, length)), name).toBe(-1);
  }
});
