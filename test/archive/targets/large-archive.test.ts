import { beforeAll, describe, expect, test } from 'vitest';
import type { Catalog } from '../../../src/archive/catalog.js';
import { readGroup } from '../../../src/archive/index/facts.js';
import { parseStoredIndex } from '../../../src/archive/index/format.js';
import { updateIndex } from '../../../src/archive/index/update.js';
import { readCatalog } from '../../../src/archive/read-catalog.js';
import { locateTarget, type TargetResult } from '../../../src/archive/targets/locate.js';
import type { RecoveryTarget } from '../../../src/archive/targets/target.js';
import { formatLsn, type Lsn } from '../../../src/lsn.js';
import { MemoryStore } from '../../../src/store/memory.js';
import type { TimestampTz } from '../../../src/wal/records/timestamp.js';
import { commitIn, largeArchive, largeIndex, storeIndex } from './large-archive.js';

const SEGMENTS = 100_000;
const archive = largeArchive(SEGMENTS);
const area = { place: 'memory', store: new MemoryStore(), prefix: '', close: async () => {} };
const BACKUP = 100;
const after = {
  lsn: commitIn(BACKUP).endLsn,
  redo: commitIn(BACKUP - 2).lsn,
  timeline: 1,
};
let catalog: Catalog;

beforeAll(async () => {
  catalog = await readCatalog(archive);
  await storeIndex(area.store, SEGMENTS - 20);
}, 120_000);

async function ask(target: RecoveryTarget, indexed: boolean) {
  archive.reads.length = 0;
  const begun = performance.now();
  const options = { after, ...(indexed ? { area } : {}) };
  const result: TargetResult = await locateTarget(catalog, target, options);
  const ms = Math.round(performance.now() - begun);
  return { result, reads: archive.reads.length, ms };
}

const at = (n: number, by = 0n) => (commitIn(n).time + by) as TimestampTz;
const time = (n: number, by = 0n): RecoveryTarget => ({
  kind: 'time',
  time: at(n, by),
  inclusive: true,
});
const lsn = (value: bigint): RecoveryTarget => ({
  kind: 'lsn',
  lsn: value as Lsn,
  inclusive: true,
});

test('its index is the one that is made of its WAL', async () => {
  const made = { ...area, store: new MemoryStore() };
  await updateIndex(catalog, made, { limit: 1 });
  const { key, bytes } = [...largeIndex(SEGMENTS)].at(-1)!;
  expect(await readGroup(made, key, undefined)).toEqual(parseStoredIndex(bytes, key));
});

describe.each([true, false])('times and LSNs in 100,000 segments, index %s', (indexed) => {
  test.each<[string, RecoveryTarget, string]>([
    ['a time before the backup', time(BACKUP - 3), 'before-backup'],
    ['a time inside it', time(BACKUP - 1), 'inside-backup'],
    ['a time after the last commit', time(SEGMENTS - 1, 5n), 'after-last'],
    ['a time long after it', time(SEGMENTS + 5_000_000), 'after-last'],
    ['an LSN before the backup', lsn(commitIn(BACKUP - 3).lsn), 'before-backup'],
    ['an LSN inside it', lsn(commitIn(BACKUP - 1).lsn), 'inside-backup'],
    ['an LSN behind the end', lsn(commitIn(SEGMENTS + 9).lsn), 'after-last'],
  ])('%s is refused', async (what, target, reason) => {
    const { result, reads, ms } = await ask(target, indexed);
    console.log(`${what}, index ${indexed}: ${reads} segments, ${ms} ms`);
    expect(result).toMatchObject({ unreachable: { reason } });
    expect((result as { unreachable: { nearest?: object } }).unreachable.nearest).toBeDefined();
    expect(reads).toBeLessThanOrEqual(20);
  });

  test.each([BACKUP, 31_999, 99_000, SEGMENTS - 3])('a time in segment %s is found', async (n) => {
    const { result, reads } = await ask(time(n, 1_234_567n), indexed);
    expect(result).toMatchObject({
      located: {
        setting: { value: formatLsn(commitIn(n + 1).lsn), inclusive: false },
        last: { lsn: commitIn(n).lsn, xid: commitIn(n).xid },
        next: { lsn: commitIn(n + 1).lsn },
      },
    });
    expect(reads).toBeLessThanOrEqual(20);
  });

  test('an LSN is found', async () => {
    const { result, reads } = await ask(lsn(commitIn(70_000).lsn), indexed);
    expect(result).toMatchObject({ located: { last: { xid: commitIn(70_000).xid } } });
    expect(reads).toBeLessThanOrEqual(20);
  });
});

describe('transactions and names, with an index', () => {
  test.each<[string, RecoveryTarget]>([
    ['a transaction', { kind: 'xid', xid: 5, inclusive: true }],
    ['a name', { kind: 'name', name: 'nowhere' }],
  ])('%s that is not there is refused', async (what, target) => {
    const { result, reads, ms } = await ask(target, true);
    console.log(`${what}: ${reads} segments, ${ms} ms`);
    expect(result).toMatchObject({ unreachable: { reason: 'unknown' } });
    // The first, and those behind the index.
    expect(reads).toBeLessThanOrEqual(54);
  });

  test('a transaction is found', async () => {
    const { xid, lsn: found } = commitIn(66_666);
    const { result, reads } = await ask({ kind: 'xid', xid, inclusive: false }, true);
    expect(result).toMatchObject({
      located: { setting: { value: formatLsn(found), inclusive: false } },
    });
    expect(reads).toBeLessThanOrEqual(20);
  });
});
