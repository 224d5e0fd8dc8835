import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fetchFile } from '../../src/fetch/fetch.js';
import { pushFile } from '../../src/push/push.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { edit, sampleArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { beginArchive } from '../support/store-archive.js';

const wal = sampleArchive(3);
const [first, second, last] = wal.names as [string, string, string];

/** A copy of the server's pg_wal, and an archive of its cluster that has nothing yet. */
async function setUp() {
  const source = scratchDir('pg_wal');
  for (const name of wal.names) copyFileSync(join(wal.directory, name), join(source, name));
  const place = join(scratchDir('store'), 'archive');
  const store = await openFileStore(place, { init: true });
  await beginArchive(store, 77n);
  await store.close();
  return { place, source, system: join(place, 'systems', '77') };
}

const codes = [{ method: 'none' }, { method: 'gzip', level: 1 }, undefined] as const;
test.each(codes)('what is pushed is fetched again (%o)', async (compression) => {
  const { place, source } = await setUp();
  const backup = `${first}.00000028.backup`;
  writeFileSync(join(source, backup), 'START WAL LOCATION: 0/5000028\n');
  writeFileSync(join(source, '00000002.history'), '1\t0/5080000\tno reason\n');
  const options = compression ? { compression } : {};
  for (const name of [first, '00000002.history', backup]) {
    expect((await pushFile(place, join(source, name), options)).outcome).toBe('stored');
    expect((await pushFile(place, join(source, name), options)).outcome).toBe('present');
    const target = join(scratchDir(), name);
    const verify = name !== '00000002.history';
    expect(await fetchFile({ places: [place], name, target, verify })).toMatchObject({
      found: true,
    });
    expect(readFileSync(target).equals(readFileSync(join(source, name)))).toBe(true);
  }
});

test('what differs is kept aside and refused, and nothing is replaced', async () => {
  const { place, source, system } = await setUp();
  const none = { compression: { method: 'none' } } as const;
  await pushFile(place, join(source, first), none);
  const at = join(system, 'wal', '00000001', first);
  const before = readFileSync(at);
  edit(join(source, first), (bytes) => void bytes.writeUInt8(bytes.readUInt8(9000) ^ 1, 9000));
  await expect(pushFile(place, join(source, first), none)).rejects.toMatchObject({
    code: 'WK_CORRUPT_WAL',
  });
  expect(existsSync(join(system, 'conflict'))).toBe(false);
  await expect(
    pushFile(place, join(source, first), { ...none, verify: false }),
  ).rejects.toMatchObject({ code: 'WK_STORE_CONFLICT' });
  expect(readdirSync(join(system, 'conflict'))).toHaveLength(1);
  expect(readFileSync(at).equals(before)).toBe(true);
});

test('a segment that stops is a partial one, and the whole must go on in it', async () => {
  const { place, source, system } = await setUp();
  expect((await pushFile(place, join(source, last))).name).toContain('/partial/');
  copyFileSync(join(source, last), join(source, last.slice(0, 24)));
  expect((await pushFile(place, join(source, last.slice(0, 24)))).outcome).toBe('present');
  const partial = join(scratchDir(), `${second}.partial`);
  const content = readFileSync(join(source, second));
  content.fill(0, 500_000);
  writeFileSync(partial, content);
  await pushFile(place, partial);
  expect((await pushFile(place, join(source, second))).outcome).toBe('stored');
  expect(readdirSync(join(system, 'wal', '00000001'))).toEqual([second]);
});

test('another cluster is refused, unless it is wanted', async () => {
  const { place, source } = await setUp();
  const other = sampleArchive(2, { systemId: 78n });
  const path = join(other.directory, other.names[0]!);
  await expect(pushFile(place, path)).rejects.toMatchObject({ code: 'WK_SYSTEM_IDENTIFIER' });
  expect((await pushFile(place, path, { newSystem: true })).outcome).toBe('stored');
  // The segments beside a history say whose it is.
  writeFileSync(join(source, '00000002.history'), '1\t0/5080000\tno reason\n');
  const { name } = await pushFile(place, join(source, '00000002.history'));
  expect(name).toBe('systems/77/history/00000002.history');
});
