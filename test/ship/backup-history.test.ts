import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fetchFile } from '../../src/fetch/fetch.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { MemoryObjects } from '../../src/store/memory.js';
import { sampleArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { keysOf, memory, shipOnce } from './shipping.js';

const text = (stop: string) =>
  ['START WAL LOCATION: 0/5000028 (file 000000010000000000000050)', 'LABEL: daily', stop, ''].join(
    '\n',
  );
const whole = text('STOP TIMELINE: 1');

/** A directory with a backup history file beside its WAL. */
function withBackup(content: string) {
  const { directory, names } = sampleArchive(3);
  const name = `${names[0]}.00000028.backup`;
  writeFileSync(join(directory, name), content);
  return { directory, name };
}

test('a backup history file is shipped once, and read from there', async () => {
  const { directory, name } = withBackup(whole);
  const first = join(scratchDir('store'), 'archive');
  await (await openFileStore(first, { init: true })).close();
  const { told } = await shipOnce(directory, [first]);
  expect(told('shipped').filter((one) => one.name === name)).toMatchObject([
    { outcome: 'stored', key: `systems/77/history/${name}` },
  ]);
  expect((await shipOnce(directory, [first])).told('shipped')).toEqual([]);
  const target = join(scratchDir(), 'fetched');
  expect(await fetchFile({ places: [first], name, target })).toMatchObject({ found: true });
  expect(readFileSync(target, 'utf8')).toBe(whole);

  // And on from there, to the next place.
  const objects = new MemoryObjects();
  await shipOnce(first, [memory(objects)], { state: scratchDir('state') });
  expect(keysOf(objects)).toContain(`history/${name}`);
});

test('one that is cut is held until it is whole', async () => {
  const { directory, name } = withBackup(whole.slice(0, -3));
  const objects = new MemoryObjects();
  const { result } = await shipOnce(directory, [memory(objects)]);
  expect(result.places[0]!.held).toMatchObject([{ name }]);
  expect(keysOf(objects).filter((key) => key.endsWith('.backup'))).toEqual([]);
  expect(keysOf(objects).filter((key) => key.startsWith('wal/'))).toHaveLength(2);
  writeFileSync(join(directory, name), whole);
  const again = await shipOnce(directory, [memory(objects)]);
  expect(again.result.places[0]!.held).toEqual([]);
  expect(keysOf(objects)).toContain(`history/${name}`);
});

test('other content under its name is an alarm, and the first one stays', async () => {
  const { directory, name } = withBackup(whole);
  const objects = new MemoryObjects();
  await shipOnce(directory, [memory(objects)]);
  writeFileSync(join(directory, name), text('STOP TIMELINE: 2'));
  const { result } = await shipOnce(directory, [memory(objects)], { state: scratchDir('state') });
  expect(result.places[0]!.error).toMatchObject({ code: 'WK_STORE_CONFLICT' });
  const kept = objects.entries().find(([key]) => key.endsWith(`history/${name}`))!;
  expect(Buffer.from(kept[1].bytes).toString()).toBe(whole);
});
