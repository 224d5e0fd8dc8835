import { copyFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openFileStore } from '../../src/store/file/file-store.js';
import { edit, sampleArchive } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { RandomKills } from '../support/kill-times.js';
import { scratchDir } from '../support/scratch.js';
import { beginArchive } from '../support/store-archive.js';

const keep = disposer();
const wal = sampleArchive(3);
const [first, second] = wal.names as [string, string];

async function newArchive() {
  const place = join(scratchDir('store'), 'archive');
  const store = await openFileStore(place, { init: true });
  await beginArchive(store, 77n);
  await store.close();
  return { place, at: (name: string) => join(place, 'systems/77/wal/00000001', name) };
}

const push = (place: string, path: string, ...more: string[]) =>
  keep(runCli(['push', '-Z', 'none', ...more, place, path]));

test('kills lose nothing and leave nothing wrong, as archive_command runs it', async () => {
  const { place, at } = await newArchive();
  const kills = new RandomKills();
  while (kills.killed < 3) {
    const { code } = await kills.kill(push(place, join(wal.directory, first)));
    const there = existsSync(at(first));
    if (code === 0) expect(there).toBe(true);
    if (there) expect(readFileSync(at(first))).toEqual(readFileSync(join(wal.directory, first)));
  }
  expect((await push(place, join(wal.directory, first)).exit).code).toBe(0);
  const again = push(place, join(wal.directory, first), '-v');
  expect((await again.exit).code).toBe(0);
  expect(again.stderr).toContain('has it already');
  expect(existsSync(join(place, 'systems/77/conflict'))).toBe(false);
});

test('several at once store one, and other content fails and is kept', async () => {
  const { place, at } = await newArchive();
  const runs = [1, 2, 3].map(() => push(place, join(wal.directory, second)));
  expect(await Promise.all(runs.map(async ({ exit }) => (await exit).code))).toEqual([0, 0, 0]);
  const other = join(scratchDir(), second);
  copyFileSync(join(wal.directory, second), other);
  edit(other, (bytes) => void bytes.writeUInt8(bytes.readUInt8(9000) ^ 1, 9000));
  const refused = push(place, other, '--no-verify');
  expect((await refused.exit).code).toBe(1);
  expect(refused.stderr).toContain('holds something else');
  expect(readdirSync(join(place, 'systems/77/conflict'))).toHaveLength(1);
  expect(readFileSync(at(second))).toEqual(readFileSync(join(wal.directory, second)));
});
