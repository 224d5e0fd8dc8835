import { expect, test } from 'vitest';
import type { StoredBackup } from '../../../src/archive/backups/catalog.js';
import { type ChainLink, chainOf } from '../../../src/archive/backups/chain.js';
import { judgeBackups } from '../../../src/archive/backups/state.js';
import {
  type BackupRecord,
  backupRecordBytes,
  parseBackupRecord,
} from '../../../src/base/backup-record.js';
import { CorruptObjectError } from '../../../src/errors.js';
import type { Lsn } from '../../../src/lsn.js';

const id = (n: number) => `2026110${n}T000000${n === 1 ? 'F' : 'I'}-00000${n}`;
const start = (n: number) => ({ lsn: BigInt(n << 24) as Lsn, timeline: 1, time: '' });

/** Each is based on the one before. */
function link(n: number, rest: Partial<ChainLink> = {}): ChainLink {
  const { lsn, timeline } = start(n - 1);
  return {
    ...{ id: id(n), systemId: 1n, start: start(n) },
    ...(n === 1 ? {} : { parent: id(n - 1), incrementalFrom: { lsn, timeline } }),
    ...rest,
  };
}

function chain(...links: ChainLink[]): string[] | string {
  const found = chainOf(links.at(-1)!, (one) => links.find((l) => l.id === one));
  return 'chain' in found ? found.chain.map((l) => l.id) : found.broken;
}

test('a chain leads from a backup to the full one that all hangs on', () => {
  expect(chain(link(1))).toEqual([id(1)]);
  expect(chain(link(1), link(2), link(3))).toEqual([id(3), id(2), id(1)]);
  // A record of a walkeep that did not note it.
  const { incrementalFrom: _, ...old } = link(2);
  expect(chain(link(1), old)).toEqual([id(2), id(1)]);
});

test('a chain is broken by what is missing, began elsewhere, or leads in a circle', () => {
  const based = `"${id(1)}", which "${id(2)}" is based on,`;
  expect(chain(link(2))).toBe(`${based} is not there or damaged`);
  expect(chain(link(2), link(3))).toBe(`${based} is not there or damaged`);
  expect(chain(link(1, { systemId: 2n }), link(2))).toBe(`${based} is of another cluster`);
  expect(chain(link(1, { start: start(7) }), link(2), link(3))).toBe(
    `${based} began at 0/7000000 on timeline 1, and not at 0/1000000 on timeline 1`,
  );
  expect(chain(link(1, { start: { ...start(1), timeline: 2 } }), link(2))).toContain('timeline 2');
  const circle = link(2, { parent: id(3), incrementalFrom: start(3) });
  expect(chain(circle, link(3))).toBe(`"${id(3)}" is based on itself`);
});

test('what a broken chain makes useless is damaged, and says why', () => {
  const stored = (one: ChainLink, rest: Partial<StoredBackup> = {}): StoredBackup => ({
    ...{ id: one.id, kept: false },
    record: { ...one, objects: [] } as unknown as BackupRecord,
    objects: [{ key: `backups/${one.id}/backup.json`, size: 1, modified: new Date(0) }],
    ...rest,
  });
  const judged = (backups: StoredBackup[]) =>
    judgeBackups(backups, { leases: [], now: new Date(0) }).map(({ state, chain: on, broken }) => ({
      ...{ state, on: on.map((record) => record.id), broken },
    }));
  expect(judged([link(1), link(2), link(3)].map((l) => stored(l)))).toEqual([
    { state: 'complete', on: [], broken: undefined },
    { state: 'complete', on: [id(1)], broken: undefined },
    { state: 'complete', on: [id(2), id(1)], broken: undefined },
  ]);
  const problem = new CorruptObjectError('no record');
  const { record: _, ...first } = stored(link(1), { problem });
  const broken = `"${id(1)}", which "${id(2)}" is based on, is not there or damaged`;
  expect(judged([first, stored(link(2)), stored(link(3))])).toEqual([
    { state: 'damaged', on: [], broken: undefined },
    { state: 'damaged', on: [], broken },
    { state: 'damaged', on: [], broken },
  ]);
});

test('a record keeps where its parent began', () => {
  const record = { ...link(2), end: start(2), walRanges: [], objects: [] };
  const bytes = backupRecordBytes(record as unknown as BackupRecord);
  expect(parseBackupRecord(bytes).incrementalFrom).toEqual({ lsn: 0x1000000n, timeline: 1 });
});
