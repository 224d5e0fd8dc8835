import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, test } from 'vitest';
import { Identities } from '../../src/codec/age/identities.js';
import { decodeBytes } from '../../src/codec/stages.js';
import { MemoryObjects } from '../../src/store/memory.js';
import { edit, sampleArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { keysOf, memory, shipOnce } from './shipping.js';

async function pair() {
  const secret = await generateX25519Identity();
  return { secret, recipient: await identityToRecipient(secret) };
}

const stored = (objects: MemoryObjects, name: string) => {
  const found = objects.entries().find(([key]) => key.includes('/wal/') && key.endsWith(name));
  return found![1];
};

test.each(['none', 'gzip', 'lz4', 'zstd'] as const)(
  'what is stored with %s is encrypted to each recipient, and is the WAL',
  async (method) => {
    const { directory, names } = sampleArchive(3);
    const [one, other] = [await pair(), await pair()];
    const objects = new MemoryObjects();
    const recipients = [one.recipient, other.recipient];
    const options = { recipients, compression: { method } };
    const { result } = await shipOnce(directory, [memory(objects)], options);
    expect(result.places[0]).toMatchObject({ segments: 0 });
    for (const name of names.slice(0, 2)) {
      const { bytes, meta } = stored(objects, name);
      expect(meta['wk-stages']).toBe(method === 'none' ? 'age' : `${method},age`);
      for (const { secret } of [one, other]) {
        const identities = await Identities.parse(secret);
        const { content } = await decodeBytes(bytes, { identities, name });
        expect(readFileSync(join(directory, name)).equals(content)).toBe(true);
      }
    }
  },
);

test('two receivers share a prefix, whose ciphertexts differ; other WAL is an alarm all the same', async () => {
  const { directory, names } = sampleArchive(3);
  const recipients = [(await pair()).recipient];
  const objects = new MemoryObjects();
  await shipOnce(directory, [memory(objects)], { recipients });
  const state = () => ({ recipients, state: scratchDir('state') });
  const second = await shipOnce(sampleArchive(3).directory, [memory(objects)], state());
  expect(second.result.places[0]?.error).toBeUndefined();
  expect(second.told('shipped').map(({ outcome }) => outcome)).toEqual(names.map(() => 'present'));
  const clone = sampleArchive(4).directory;
  const { result } = await shipOnce(clone, [memory(objects)], state());
  expect(result.places[0]?.error).toMatchObject({ code: 'WK_STORE_CONFLICT' });
  expect(keysOf(objects).some((key) => key.startsWith('conflict/'))).toBe(true);
});

test('compressed sources of all forms are shipped as what they hold', async () => {
  const { gzipSync } = await import('node:zlib');
  const { directory, names } = sampleArchive(3);
  const { renameSync } = await import('node:fs');
  edit(join(directory, names[0]!), (bytes) => gzipSync(bytes));
  renameSync(join(directory, names[0]!), join(directory, `${names[0]}.gz`));
  edit(join(directory, names[2]!), (bytes) => gzipSync(bytes.subarray(0, 524_000)));
  renameSync(
    join(directory, names[2]!),
    join(directory, names[2]!.replace('.partial', '.gz.partial')),
  );
  const objects = new MemoryObjects();
  const { result } = await shipOnce(directory, [memory(objects)]);
  expect(result.places[0]).toMatchObject({ segments: 0, held: [] });
  const plain = readFileSync(join(sampleArchive(3).directory, names[0]!));
  expect(plain.equals(stored(objects, names[0]!).bytes)).toBe(true);
  expect(keysOf(objects).filter((key) => key.startsWith('partial/'))).toHaveLength(1);
});

test('what cannot be a recipient or a level is refused before anything is stored', async () => {
  const { directory } = sampleArchive(3);
  const store = memory(new MemoryObjects());
  for (const options of [
    { recipients: ['age1nonsense'] },
    { compression: { method: 'gzip', level: 10 } as const },
  ]) {
    await expect(shipOnce(directory, [store], options)).rejects.toMatchObject({ code: 'WK_USAGE' });
  }
  expect(store.calls).toEqual([]);
});
