import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mayReadAhead } from '../../src/cli/commands/fetch.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import { unreadableFormOf } from '../../src/wal/file-name.js';
import { archiveOf } from '../support/wal-archive.js';

const seg = (n: number) => `0000000100000000000000${n.toString(16).toUpperCase().padStart(2, '0')}`;

test('which names stand for WAL that cannot be read', () => {
  const f = seg(6);
  for (const end of ['.xz', '.bz2', '.age', '.partial.gz', '.gz.age', '.tmp', '~', '.gz.1', '0']) {
    expect(unreadableFormOf(f + end)).toBe(f);
  }
  expect(unreadableFormOf('00000002.history.gz')).toBe('00000002.history');
  for (const name of ['', '.gz', '.lz4', '.zst', '.partial', '.gz.partial', '.00000028.backup']) {
    expect(unreadableFormOf(f + name)).toBeUndefined();
  }
  for (const name of ['00000002.history', `.${f}.tmp`, 'readme', f.slice(1)]) {
    expect(unreadableFormOf(name)).toBeUndefined();
  }
});

/** The last complete segment of the archive is 11; 12 is a partial. */
const LAST = 11;

test.each(['.xz', '.bz2', '.zst.age', '.partial.gz', '.tmp', '/'])(
  'F%s is not "not there"',
  async (end) => {
    const { dir, target } = archiveOf('switch');
    const fetch = (name: string) => fetchFile({ places: [dir], name, target });
    const name = seg(13);
    expect(await fetch(name)).toMatchObject({ found: false });
    if (end === '/') mkdirSync(join(dir, `${name}.d`));
    else writeFileSync(join(dir, name + end), '');
    await expect(fetch(name)).rejects.toMatchObject({
      code: 'WK_ARCHIVE_ACCESS',
      retryable: true,
      path: join(dir, end === '/' ? `${name}.d` : name + end),
    });
    await expect(fetch(`${name}.partial`)).rejects.toMatchObject({ code: 'WK_ARCHIVE_ACCESS' });
    // It says nothing of others, but that the WAL before it is not the end.
    expect(await fetch(seg(14))).toMatchObject({ found: false });
    expect(await fetch(seg(LAST))).toMatchObject({ found: true });
    rmSync(join(dir, `${seg(12)}.partial`));
    await expect(fetch(seg(12))).rejects.toMatchObject({ code: 'WK_GAP' });
  },
);

test('nor does less of it stand for all', async () => {
  const { dir, target } = archiveOf('switch');
  const fetch = (name: string) => fetchFile({ places: [dir], name, target });
  expect(await fetch(seg(12))).toMatchObject({ found: true });
  writeFileSync(join(dir, `${seg(12)}.xz`), 'more');
  await expect(fetch(seg(12))).rejects.toMatchObject({ path: join(dir, `${seg(12)}.xz`) });
  // Complete and verified: whatever the other one is.
  writeFileSync(join(dir, `${seg(LAST)}.xz`), 'more');
  expect(await fetch(seg(LAST))).toMatchObject({ found: true });
});

test('histories and backup histories, and an archive in which all is compressed so', async () => {
  const { dir, target } = archiveOf('switch');
  const fetch = (name: string) => fetchFile({ places: [dir], name, target });
  const backup = `${seg(6)}.00000028.backup`;
  for (const name of ['00000002.history', backup]) {
    expect(await fetch(name)).toMatchObject({ found: false });
    writeFileSync(join(dir, `${name}.gz`), '');
    await expect(fetch(name)).rejects.toMatchObject({ path: join(dir, `${name}.gz`) });
  }
  // A backup history beside a segment is none of its forms.
  writeFileSync(join(dir, `${seg(13)}.00000028.backup`), '');
  expect(await fetch(seg(13))).toMatchObject({ found: false });
  rmSync(dir, { recursive: true });
  mkdirSync(dir);
  writeFileSync(join(dir, `${seg(6)}.xz`), '');
  await expect(fetch(seg(6))).rejects.toMatchObject({ path: join(dir, `${seg(6)}.xz`) });
  await expect(fetch(seg(7))).rejects.toMatchObject({ code: 'WK_ARCHIVE_ACCESS' });
  renameSync(join(dir, `${seg(6)}.xz`), join(dir, 'readme'));
  await expect(fetch(seg(6))).rejects.toMatchObject({ code: 'WK_ARCHIVE_ACCESS' });
});

test('only the recovery of a server has segments read ahead', () => {
  const data = '/var/lib/postgresql/18/main/pg_wal';
  expect(mayReadAhead(seg(6), `${data}/RECOVERYXLOG`)).toBe(true);
  // pg_rewind -c (fe_utils/archive.c), and a person.
  expect(mayReadAhead(seg(6), `${data}/${seg(6)}`)).toBe(false);
  expect(mayReadAhead(seg(6), '/tmp/segment')).toBe(false);
  expect(mayReadAhead('00000002.history', `${data}/RECOVERYHISTORY`)).toBe(false);
  expect(mayReadAhead(`${seg(6)}.partial`, `${data}/RECOVERYXLOG`)).toBe(false);
});
