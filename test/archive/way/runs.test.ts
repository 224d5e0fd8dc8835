import { createHash } from 'node:crypto';
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { withArchives } from '../../../src/archive/places/open-archive.js';
import { readCatalog } from '../../../src/archive/read-catalog.js';
import type { FoundRecord } from '../../../src/archive/way/packed.js';
import { decoding, planTimeline } from '../../../src/archive/way/plan.js';
import { scanSegments } from '../../../src/archive/way/read.js';
import { scanWay } from '../../../src/archive/way/runs.js';
import { type Damage, DamageTolerantScan } from '../../../src/archive/way/scan.js';
import { findEvents } from '../../../src/find/find.js';
import { recordKinds } from '../../../src/wal/record.js';
import { randomNumbers, SEGMENT } from '../../support/archives.js';
import { commitArchive, SEGMENTS, truncateRecord } from '../../support/commit-archive.js';
import { commitRecord } from '../../support/wal-records.js';

const JOB = 2 * SEGMENT;
const select = (rmgr: number) => rmgr === 1 || rmgr === 2;
const KINDS = recordKinds(select);

const told = ({ lsn, endLsn, rmgr, info, xid, body }: FoundRecord, major?: number): string => {
  const digest = createHash('md5')
    .update(body ?? '')
    .digest('hex');
  return [lsn, endLsn, rmgr, info, xid, digest, major].join(' ');
};
const damaged = ({ lsn, from, resumedAt, message }: Damage): string =>
  ['damage', lsn, from, resumedAt, message].join(' ');

/** What is visited, in runs or by one scan, and how far that came. */
async function visited(directory: string, how: 'runs' | 'scan', most = Infinity) {
  const found: string[] = [];
  const visitor = {
    record: (record: FoundRecord, major: number | undefined) =>
      found.push(told(record, major)) >= most,
    damage: (damage: Damage) => found.push(damaged(damage)) >= most,
  };
  const end = await withArchives(directory, {}, async (archive) => {
    const plan = planTimeline(await readCatalog(archive));
    if (how === 'runs')
      return scanWay(plan, plan.segments, { kinds: KINDS, jobBytes: JOB }, visitor);
    const scan = new DamageTolerantScan({ ...decoding(plan), select }, visitor);
    await scanSegments(plan, plan.segments, scan);
    return { position: scan.position, enough: scan.enough };
  });
  return { found, enough: end.enough, ...(end.enough ? {} : { position: end.position }) };
}

const sound = commitArchive();

test('runs show what one scan shows, as many as are wanted', async () => {
  const all = await visited(sound.directory, 'scan');
  expect(all.found.length).toBeGreaterThan(1000);
  expect(await visited(sound.directory, 'runs')).toEqual(all);
  for (const most of [1, 777, all.found.length - 1]) {
    const some = await visited(sound.directory, 'runs', most);
    expect(some).toEqual({ found: all.found.slice(0, most), enough: true });
  }
});

/** Ways to spoil a segment. */
const SPOIL: ((path: string, random: () => number) => void)[] = [
  (path, random) => {
    const bytes = readFileSync(path);
    const at = Math.floor(random() * SEGMENT);
    bytes[at] = bytes[at]! ^ 8;
    writeFileSync(path, bytes);
  },
  // At the borders runs are joined.
  (path, random) => {
    const bytes = readFileSync(path);
    const edge = Math.floor(random() * 300);
    const at = random() < 0.5 ? edge : SEGMENT - 1 - edge;
    bytes[at] = bytes[at]! ^ 8;
    writeFileSync(path, bytes);
  },
  (path, random) => {
    const bytes = readFileSync(path);
    const at = 8192 * Math.floor((random() * SEGMENT) / 8192);
    writeFileSync(path, bytes.fill(0, at, at + 8192 * Math.ceil(random() * 40)));
  },
  (path, random) => truncateSync(path, Math.floor(random() * SEGMENT)),
  (path) => rmSync(path),
  (path) => writeFileSync(path, Buffer.alloc(SEGMENT, 3)),
];

test.each(Array.from({ length: 24 }, (_, seed) => seed))(
  'whatever is damaged is told as one scan tells it (%i)',
  async (seed) => {
    const random = randomNumbers(7919 * (seed + 1));
    const { directory, names } = commitArchive();
    for (let i = 0; i <= seed % 3; i++) {
      const name = names[Math.floor(random() * (names.length - 1))] as string;
      const spoil = SPOIL[Math.floor(random() * SPOIL.length)]!;
      try {
        spoil(join(directory, name), random);
      } catch {
        // It is gone already.
      }
    }
    const expected = await visited(directory, 'scan');
    expect(await visited(directory, 'runs')).toEqual(expected);
  },
);

test('a plain end counts where something waits for it, in another run or its own', async () => {
  const end = (xid: number) => commitRecord(xid, 5n);
  const { directory } = commitArchive(
    new Map([
      [0.5 * SEGMENT, truncateRecord(1)],
      [3.1 * SEGMENT, truncateRecord(2)],
      [3.2 * SEGMENT, end(2)],
      [5 * SEGMENT, truncateRecord(3)],
      [7.2 * SEGMENT, end(1)],
      [SEGMENTS * SEGMENT - SEGMENT, end(3)],
    ]),
  );
  const drops: unknown[] = [];
  for (const jobBytes of [SEGMENT, JOB, undefined]) {
    const xids: number[] = [];
    const options = { drops: true, ...(jobBytes === undefined ? {} : { jobBytes }) };
    await findEvents(directory, options, (event) => {
      if ('xid' in event) xids.push(event.xid);
      return false;
    });
    drops.push(xids);
  }
  expect(drops).toEqual([
    [2, 1, 3],
    [2, 1, 3],
    [2, 1, 3],
  ]);
  const one: number[] = [];
  await findEvents(directory, { xid: 1, jobBytes: JOB }, (event) => {
    if ('xid' in event) one.push(event.xid);
    return false;
  });
  expect(one).toEqual([1]);
});
