import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, it } from 'vitest';
import { readRecord } from '../../../src/archive/backups/catalog.js';
import { BackupReader } from '../../../src/archive/backups/reader.js';
import { CorruptObjectError } from '../../../src/errors.js';
import { MemoryObjects, MemoryStore } from '../../../src/store/memory.js';
import { Random } from '../../simulation/random.js';
import { scratchDir } from '../../support/scratch.js';
import { type StoreBackup, storeBackup, tarOf } from '../../support/stored-backup.js';

const CODECS = ['none', 'gzip', 'lz4', 'zstd'] as const;

function content(random: Random, size: number): Buffer {
  // Half of it compresses.
  return Buffer.from(
    Uint8Array.from({ length: size }, (_, i) => (i % 64 < 32 ? random.below(256) : 7)),
  );
}

const random = new Random(1);
const TARS = [
  {
    name: '16388.tar',
    oid: 16388,
    bytes: tarOf([
      { name: 'PG_18_202506291', type: 'directory' },
      { name: 'PG_18_202506291/5/1', content: content(random, 3000) },
    ]),
  },
  {
    name: 'base.tar',
    bytes: tarOf([
      { name: 'backup_label', content: 'START WAL LOCATION\n' },
      { name: 'base/5/1', content: content(random, 40_000) },
      { name: 'base/5/2', content: '' },
      { name: 'global/pg_control', content: content(random, 8192) },
    ]),
  },
];

async function stored(options: Partial<StoreBackup> = {}) {
  const objects = new MemoryObjects();
  const store = new MemoryStore({ objects });
  const record = await storeBackup({
    ...{ store, tars: TARS, frame: 7000, volume: 15_000 },
    others: { backup_label: Buffer.from('START WAL LOCATION\n') },
    ...options,
  });
  return { objects, store, record };
}

/** All that a restore reads of a backup. */
async function readAll(
  store: MemoryStore,
  id: string,
  identityFiles: string[] = [],
): Promise<string[]> {
  const area = { store, prefix: '' };
  const { record, problem } = await readRecord(area, id);
  if (!record) throw problem ?? new Error('no record');
  const reader = new BackupReader(area, record, { identityFiles });
  const index = await reader.index();
  const digests = new Map(index.tars.map(({ name }) => [name, createHash('sha256')]));
  for (const piece of reader.pieces(index)) {
    for await (const { content } of reader.read(piece)) digests.get(piece.tar)?.update(content);
  }
  await reader.object('backup_label');
  return [...digests.values()].map((hash) => hash.digest('hex'));
}

const EXPECTED = TARS.map(({ bytes }) => createHash('sha256').update(bytes).digest('hex'));

describe('a stored base backup', () => {
  for (const codec of CODECS) {
    it(`is read as it was, by frames of ${codec}`, async () => {
      const { store, record } = await stored({ codec });
      expect(record.tars[1]?.volumes.length).toBeGreaterThan(1);
      expect(await readAll(store, record.id)).toEqual(EXPECTED);
      const identity = await generateX25519Identity();
      const file = join(scratchDir('identity'), 'identity');
      writeFileSync(file, identity);
      const recipients = [await identityToRecipient(identity)];
      const encrypted = await stored({ codec, recipients });
      expect(await readAll(encrypted.store, record.id, [file])).toEqual(EXPECTED);
      await expect(readAll(encrypted.store, record.id)).rejects.toMatchObject({
        code: 'WK_ENCRYPTED',
      });
    });
  }

  it('is never read with a bit of any object changed: the object is named', async () => {
    const identity = await generateX25519Identity();
    const file = join(scratchDir('identity'), 'identity');
    writeFileSync(file, identity);
    const recipients = [await identityToRecipient(identity)];
    const trials = new Random(7);
    for (const codec of CODECS) {
      for (const encrypted of [false, true]) {
        const { objects, store, record } = await stored(
          encrypted ? { codec, recipients } : { codec },
        );
        for (const [key, { bytes }] of objects.entries()) {
          for (let n = 0; n < 12; n++) {
            const at = n === 0 ? 0 : n === 1 ? bytes.length - 1 : trials.below(bytes.length);
            objects.damage(key, at);
            const error = await readAll(store, record.id, [file]).catch((e) => e);
            expect(error, `${codec} ${key} ${at}`).toBeInstanceOf(CorruptObjectError);
            expect(error.key).toBe(key);
            objects.damage(key, at);
          }
        }
        expect(await readAll(store, record.id, [file])).toEqual(EXPECTED);
      }
    }
  });

  it('is read although the way to it changes, cuts and loses what is asked for', async () => {
    const { objects, record } = await stored({ codec: 'gzip' });
    const faults = new Random(3);
    let last = '';
    const store = new MemoryStore({
      objects,
      faults: ({ op, key }) => {
        if (op !== 'get' || key.endsWith('backup.json') || last === key) return undefined;
        last = faults.chance(0.5) ? key : '';
        if (last === '') return undefined;
        return faults.chance(0.5) ? { kind: 'corrupt' } : { kind: 'lost' };
      },
    });
    expect(await readAll(store, record.id)).toEqual(EXPECTED);
  });

  it('names an object that is gone, or is longer or shorter', async () => {
    const { objects, store, record } = await stored();
    const key = `backups/${record.id}/${record.tars[1]?.volumes[1]}`;
    const { bytes, ...rest } = objects.get(key)!;
    for (const other of [bytes.subarray(1), Buffer.concat([bytes, Buffer.alloc(1)]), undefined]) {
      objects.remove(key);
      if (other) objects.create(key, { ...rest, bytes: other });
      await expect(readAll(store, record.id)).rejects.toMatchObject({
        code: 'WK_CORRUPT_OBJECT',
        key,
      });
    }
  });

  it('is not read by an index that leaves something out', async () => {
    const { store, record } = await stored();
    const area = { store, prefix: '' };
    const [first, second] = record.tars as [(typeof record.tars)[0], (typeof record.tars)[0]];
    for (const tars of [[second], [first, { ...second, size: second.size + 512 }]]) {
      const reader = new BackupReader(area, { ...record, tars });
      await expect(reader.index()).rejects.toThrow(/base\.index.*does not fit/);
    }
  });
});
