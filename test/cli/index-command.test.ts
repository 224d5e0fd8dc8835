import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { expect, test } from 'vitest';
import { segmentKey } from '../../src/archive/store-keys.js';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { sampleArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { beginArchive, put } from '../support/store-archive.js';
import { run } from './run.js';

/** 40 segments, of which the group that begins with the 17th is whole. */
const START = 0x500_0000n;

test('an archive gets its index, and no second one', async () => {
  const { directory } = sampleArchive(49, { start: START });
  const made = await run('walkeep', 'index', directory);
  expect(made).toEqual({ code: 0, stdout: '2 made, 0 there already\n', stderr: '' });
  const again = await run('walkeep', 'index', '--json', directory);
  expect(JSON.parse(again.stdout)).toEqual({ created: 0, present: 2, left: 0, unsound: [] });
  expect(readdirSync(join(directory, 'index', '00000001'))).toHaveLength(2);
  // What the index lies in is no stray of the archive's.
  const verified = await run('walkeep', 'verify', directory);
  expect(verified.stdout).not.toContain('stray');
});

test('the newest come first, and bad WAL is told', async () => {
  const { directory, names } = sampleArchive(49, { start: START });
  const one = await run('walkeep', 'index', '--limit=1', directory);
  expect(one.stdout).toBe('1 made, 0 there already, 1 left for the next time\n');
  expect(readdirSync(join(directory, 'index', '00000001'))).toEqual(['000000010000000000000060']);
  const path = join(directory, names[3]!);
  const bytes = readFileSync(path);
  bytes[5000]! ^= 1;
  writeFileSync(path, bytes);
  const bad = await run('walkeep', 'index', directory);
  expect(bad.code).toBe(1);
  expect(bad.stderr).toContain(`the 32 segments around ${names[3]}`);
});

test('what is encrypted gets no index that is not', async () => {
  const { directory, names } = sampleArchive(18, { start: START });
  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  const key = join(scratchDir('identity'), 'key');
  writeFileSync(key, `${identity}\n`, { mode: 0o600 });
  const recipients = await parseRecipients([recipient]);
  const place = join(scratchDir('store'), 'archive');
  const store = await openFileStore(place, { init: true });
  await beginArchive(store, 77n);
  for (const name of names) {
    if (name.endsWith('.partial')) continue;
    const bytes = readFileSync(join(directory, name));
    await put(store, segmentKey(77n, name), await encodeBytes(bytes, { recipients }));
  }
  await store.close();
  const open = await run('walkeep', 'index', '--identity', key, place);
  expect(open.code).toBe(2);
  expect(open.stderr).toContain('its index would not be');
  const sealed = await run('walkeep', 'index', '--identity', key, '--recipient', recipient, place);
  expect(sealed).toEqual({ code: 0, stdout: '1 made, 0 there already\n', stderr: '' });
});
