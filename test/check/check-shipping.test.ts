import { utimesSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkShipping } from '../../src/check/check-shipping.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import { run } from '../cli/run.js';
import { memory, shipOnce } from '../ship/shipping.js';
import { edit, sampleArchive } from '../support/archives.js';

const told = async (directory: string) =>
  (await checkShipping(directory)).map(({ status, message }) => `${status} ${message}`);

test('says how far each place is, and what keeps it', async () => {
  const { directory, names } = sampleArchive(4);
  expect(await told(directory)).toEqual([]);
  const away = new MemoryStore({ place: 'memory:away', faults: () => ({ kind: 'refused' }) });
  const places = [memory(new MemoryObjects()), away];
  await shipOnce(directory, places, { giveUpAfter: 20 });
  const lines = (await told(directory)).sort();
  expect(lines).toEqual([
    expect.stringMatching(
      /^fail memory:away: up to 0\/5000000 on timeline 1, behind by 3.0 MiB, \d+\.\d s; given up: no answer/,
    ),
    'ok memory:one: up to 0/5300000 on timeline 1, all that is complete',
  ]);
  const list = await run('walkeep', 'list', directory);
  expect(list.stdout).toMatch(/^shipped to memory:one: up to 0\/5300000 on timeline 1$/m);
  expect(list.stdout).toMatch(/^shipped to memory:away: .* 3.0 MiB and .* behind \(no answer/m);
  const json = await run('walkeep', 'list', '--json', directory);
  const shipping = json.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ type }) => type === 'shipping');
  expect(shipping).toHaveLength(2);
  expect(shipping).toContainEqual(
    expect.objectContaining({
      place: 'memory:one',
      position: { timeline: 1, lsn: '0/5300000' },
      lag: { segments: 0, bytes: 0, seconds: 0 },
      running: false,
    }),
  );
  expect(names).toHaveLength(4);
});

test('warns of a backlog that nobody ships, and fails for what cannot be', async () => {
  const { directory, names } = sampleArchive(5);
  const objects = new MemoryObjects();
  edit(join(directory, names[2]!), (bytes) => {
    bytes[400_000]! ^= 1;
    return bytes;
  });
  await shipOnce(directory, [memory(objects)]);
  const old = new Date(Date.now() - 3_600_000);
  utimesSync(join(directory, names[2]!), old, old);
  expect(await told(directory)).toEqual([
    expect.stringMatching(new RegExp(`^fail memory:one: ${names[2]} is not shipped: `)),
    expect.stringMatching(/^warn memory:one: .*behind by 1.0 MiB, 1 h; nobody ships$/),
  ]);
});
