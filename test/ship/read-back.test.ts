import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { expect, test } from 'vitest';
import { openArchive } from '../../src/archive/places/open-archive.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { COMPRESSIONS } from '../../src/wal/file-name.js';
import { fixtureArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { shipOnce } from './shipping.js';

const promoted = () => {
  const directory = fixtureArchive('promoted');
  const name = readdirSync(directory).find((file) => file.endsWith('.history')) as string;
  return { directory, name, content: readFileSync(join(directory, name)) };
};

test.each(COMPRESSIONS)('a history that was shipped with %s is read as it was', async (method) => {
  const { directory, name, content } = promoted();
  const place = join(scratchDir('read-back'), 'store');
  const store = await openFileStore(place, { init: true });
  await shipOnce(directory, [store], { compression: { method } });
  await using archive = asDisposable(await openArchive(place));
  expect(await archive.text(name)).toEqual(content);
  expect(await archive.history(Number.parseInt(name, 16))).toMatchObject({ state: 'good' });
  const { summary } = await verifyArchive(place);
  expect(summary).toMatchObject({ errors: 0 });
});

test('an encrypted history is read with its identity, and is not absent without', async () => {
  const { directory, name, content } = promoted();
  const scratch = scratchDir('read-back');
  const identity = await generateIdentity();
  const identityFile = join(scratch, 'key');
  writeFileSync(identityFile, `${identity}\n`);
  const place = join(scratch, 'store');
  const store = await openFileStore(place, { init: true });
  await shipOnce(directory, [store], { recipients: [await identityToRecipient(identity)] });
  await using archive = asDisposable(await openArchive(place, { identityFiles: [identityFile] }));
  expect(await archive.text(name)).toEqual(content);
  await using locked = asDisposable(await openArchive(place));
  await expect(locked.text(name)).rejects.toMatchObject({ code: 'WK_ENCRYPTED' });
});

function asDisposable<T extends { close(): Promise<void> }>(held: T): T & AsyncDisposable {
  return Object.assign(held, { [Symbol.asyncDispose]: () => held.close() });
}
