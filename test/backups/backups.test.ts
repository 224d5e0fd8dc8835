import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ListedBackup } from '../../src/backups/list-backups.js';
import { pictureOf } from '../../src/backups/picture.js';
import type { Lsn } from '../../src/lsn.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import type { TimestampTz } from '../../src/wal/records/timestamp.js';
import { run } from '../cli/run.js';
import { SEGMENT, SYSTEM_ID, sampleArchive, writeLedger } from '../support/archives.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';

const DAY = 86_400_000;
const FIRST = Date.UTC(2026, 10, 1);
const id = (n: number, kind = 'F') => `2026110${n}T000000${kind}-00000${n}`;

/** An archive of eight segments with a backup in every second of them. */
async function archive() {
  const made = sampleArchive(8);
  const { directory, segmentStart } = made;
  await writeLedger(directory);
  const store = await openFileStore(directory, { init: true });
  for (const n of [1, 3, 5]) {
    const start = (segmentStart(n) + 40n) as Lsn;
    const end = (start + 5000n) as Lsn;
    const time = (ms: number) => new Date(FIRST + n * DAY + ms).toISOString();
    await storeBackup({
      ...{ store, id: id(n, n === 3 ? 'I' : 'F') },
      tars: [
        { name: '16388.tar', oid: 16388, bytes: tarOf([{ name: 'PG_18_1/5/1', content: 'x' }]) },
        { name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) },
      ],
      record: {
        ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT },
        start: { lsn: start, timeline: 1, time: time(0) },
        end: { lsn: end, timeline: 1, time: time(90_000) },
        walRanges: [{ timeline: 1, start, end }],
        ...(n === 3 ? { parent: id(1) } : {}),
      },
    });
  }
  return { ...made, store };
}

describe('walkeep backups', () => {
  it('lists them with what each can be restored to', async () => {
    const { directory, end } = await archive();
    const { code, stdout, stderr } = await run('walkeep', 'backups', directory);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^backup +state +ended \(UTC\) +took +size +stored +based on\n/);
    expect(stdout).toMatch(new RegExp(`${id(1)}  complete  2026-11-02 00:01  1 min`));
    expect(stdout).toMatch(/^timeline 1 +F +I +F$/m);
    const json = await run('walkeep', 'backups', directory, '--json');
    const all = json.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(all.map((b) => b.state)).toEqual(['complete', 'complete', 'complete']);
    expect(all[0]).toMatchObject({
      type: 'backup',
      id: id(1),
      ...{ children: [id(3, 'I')], chain: [], kept: false },
    });
    expect(all[0]).not.toHaveProperty('saved');
    expect(all[1]).toMatchObject({ parent: id(1), chain: [id(1)], children: [] });
    const storedOf = (n: number) =>
      all[n].stored - statSync(join(directory, 'backups', all[n].id, 'backup.json')).size;
    expect(all[1].saved).toBe(storedOf(0) - storedOf(1));
    expect(all[1].restored).toBe(storedOf(0) + storedOf(1));
    // The end is that of the last record that is whole: the same for all.
    const ends = new Set(all.map((b) => b.windows[0].to.lsn));
    expect(ends.size).toBe(1);
    expect(BigInt(`0x${[...ends][0].split('/')[1]}`)).toBeLessThanOrEqual(end);
  });

  it('says why one is of no use, and up to where others are', async () => {
    const { directory, names, store } = await archive();
    rmSync(join(directory, names[3]!));
    rmSync(join(directory, 'backups', id(5), 'base.index'));
    await store.create('backups/20261109T000000F-000009/claim.json', {
      ...{ size: 0, open: () => [] },
      sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    });
    const { stdout } = await run('walkeep', 'backups', directory);
    expect(stdout).toMatch(new RegExp(`${id(3, 'I')}  needs WAL`));
    expect(stdout).toMatch(new RegExp(`${id(5)}  damaged`));
    expect(stdout).toMatch(/20261109T000000F-000009 +running/);
    expect(stdout).toContain(`${id(5)}: "backups/${id(5)}/base.index" is not there`);
    expect(stdout).toMatch(new RegExp(`${id(1)}: from .*: WAL is missing: `));
  });

  it('says what is wrong with the chain of an incremental one', async () => {
    const { directory } = await archive();
    rmSync(join(directory, 'backups', id(1), 'backup_label'), { force: true });
    rmSync(join(directory, 'backups', id(1), 'base.index'));
    const { stdout } = await run('walkeep', 'backups', directory);
    expect(stdout).toMatch(new RegExp(`${id(3, 'I')}  damaged`));
    expect(stdout).toContain(
      `${id(3, 'I')}: "${id(1)}", which "${id(3, 'I')}" is based on, is not there or damaged`,
    );
  });

  it('shows one, and its files', async () => {
    const { directory } = await archive();
    const { stdout } = await run('walkeep', 'backups', directory, id(3, 'I'));
    expect(stdout).toMatch(new RegExp(`^backup +${id(3, 'I')}\nstate +complete\n`));
    expect(stdout).toMatch(new RegExp(`^based on +${id(1)}$`, 'm'));
    expect(stdout).toMatch(new RegExp(`^chain +${id(1)}$`, 'm'));
    expect(stdout).toMatch(/^to restore +\d+ B of 2 backups$/m);
    const files = await run('walkeep', 'backups', directory, id(1), '--files');
    expect(files.stdout.trimEnd().split('\n')).toEqual([
      '           1  pg_tblspc/16388/PG_18_1/5/1',
      '           3  PG_VERSION',
    ]);
    const none = await run('walkeep', 'backups', directory, id(8));
    expect(none).toMatchObject({ code: 1, stderr: expect.stringContaining('has no backup') });
  });
});

function backup(n: number, rest: Partial<ListedBackup> & { timeline?: number } = {}): ListedBackup {
  const { timeline = 1, ...given } = rest;
  const time = new Date(FIRST + n * DAY).toISOString();
  const end = { lsn: BigInt(n) as Lsn, timeline, time };
  return {
    ...{ id: id(n), state: 'complete', kind: 'full', kept: false, began: new Date(FIRST) },
    ...{ stored: 1, objects: 1, chain: [], children: [], windows: [] },
    record: { end } as ListedBackup['record'] & object,
    ...given,
  };
}

/** A window up to a day. */
function until(day: number, timeline = 1, ends: 'archive' | 'gap' = 'archive') {
  const micros = BigInt(FIRST + day * DAY) * 1000n - 946_684_800_000_000n;
  const to = { lsn: 1n as Lsn, time: micros as TimestampTz };
  return { timeline, from: 0n as Lsn, to, ends, why: '' };
}

describe('the picture of what can be restored to', () => {
  it('draws backups, holes and branches on one axis', () => {
    const lines = pictureOf([
      backup(0, { windows: [until(2, 1, 'gap')] }),
      backup(3, { state: 'damaged' }),
      backup(4, { windows: [until(10, 2), until(7)] }),
      backup(8, { timeline: 2, kind: 'incremental', windows: [until(10, 2)] }),
    ]);
    expect(lines.slice(0, 3).join('\n')).toMatchInlineSnapshot(`
      "            2026-11-01 00:00                                2026-11-11 00:00 UTC
      timeline 1  F━━━━━━━━━━━━×      f      F━━━━━━━━━━━━━━━━━━━━
      timeline 2                             ━━━━━━━━━━━━━━━━━━━━━━━━━━━I━━━━━━━━━━━━━"
    `);
    for (const line of lines.slice(0, 3)) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('is empty where nothing can be restored to', () => {
    expect(pictureOf([backup(1)])).toEqual([]);
  });
});
