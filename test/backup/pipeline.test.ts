import { createHash } from 'node:crypto';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, test } from 'vitest';
import { readBackups } from '../../src/archive/backups/catalog.js';
import { backupKey } from '../../src/archive/backups/keys.js';
import { Warnings } from '../../src/backup/source.js';
import type { BackupRecord } from '../../src/base/backup-record.js';
import { parseBaseIndex } from '../../src/base/base-index.js';
import { Identities } from '../../src/codec/age/identities.js';
import { decodeBytes } from '../../src/codec/stages.js';
import { CorruptObjectError, NotSupportedError } from '../../src/errors.js';
import { bytesOf } from '../../src/store/content.js';
import { MemoryStore } from '../../src/store/memory.js';
import { COMPRESSIONS } from '../../src/wal/file-name.js';
import {
  backUp,
  type FakeBackup,
  FILES,
  manifestFiles,
  manifestOf,
  pseudo,
  SPACE,
  tarOf,
  WHOLE,
} from './fake-server.js';

const area = (store: MemoryStore) => ({
  ...{ place: 'memory:', store, prefix: '', close: async () => {} },
});

async function objectOf(store: MemoryStore, id: string, name: string): Promise<Buffer> {
  const got = await store.get(backupKey('', id, name));
  return bytesOf(got!.body);
}

/** The tars, put together from the volumes alone. */
async function tarsOf(
  store: MemoryStore,
  { id, tars, codec }: BackupRecord,
  identities?: Identities,
): Promise<Buffer[]> {
  return Promise.all(
    tars.map(async ({ volumes }) => {
      const parts = await Promise.all(
        volumes.map(async (name) => {
          const stored = await objectOf(store, id, name);
          if (codec === 'none') return stored;
          return (await decodeBytes(stored, { name, ...(identities && { identities }) })).content;
        }),
      );
      return Buffer.concat(parts);
    }),
  );
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

test.each(COMPRESSIONS)('what is stored with %s is what the server sent', async (method) => {
  const store = new MemoryStore();
  const { id, record, stored, files } = await backUp(store, WHOLE, { compression: { method } });
  const expected = [tarOf(SPACE), tarOf(FILES)];
  expect(await tarsOf(store, record)).toEqual(expected);
  expect(record).toMatchObject({ id, codec: method, encrypted: false, from: 'primary' });
  expect(record.size).toBe(expected[0]!.length + expected[1]!.length);
  expect(files).toBe(FILES.length + SPACE.length);

  const [listed, more] = await readBackups(area(store));
  expect(more).toBeUndefined();
  expect(listed).toMatchObject({ id, record, kept: false });
  // Every object is named with its digest, but for the record itself.
  const names = listed!.objects.map(({ key }) => key.slice(backupKey('', id).length));
  expect(record.objects.map(({ name }) => name).sort()).toEqual(
    names.filter((name) => name !== 'backup.json').sort(),
  );
  for (const { name, size, sha256: digest } of record.objects) {
    const bytes = await objectOf(store, id, name);
    expect([bytes.length, sha256(bytes)]).toEqual([size, digest]);
  }
  expect(stored).toBe(record.objects.reduce((sum, { size }) => sum + size, 0));
  expect(await objectOf(store, id, 'pg_control')).toEqual(FILES.at(-1)!.content);
  expect(await objectOf(store, id, 'backup_label')).toEqual(FILES[0]!.content);
  expect(await objectOf(store, id, 'backup_manifest')).toEqual(manifestOf(manifestFiles(WHOLE)));
  // Neither a lease nor anything else stays.
  const all = store.objects.entries().map(([key]) => key);
  expect(all.filter((key) => !key.startsWith(`backups/${id}/`))).toEqual([]);
});

test('the index leads to every frame and every member', async () => {
  const store = new MemoryStore();
  const { id, record } = await backUp(store, WHOLE, { compression: { method: 'gzip', level: 1 } });
  const text = await decodeBytes(await objectOf(store, id, 'base.index'), { name: 'base.index' });
  const { tars } = parseBaseIndex(Buffer.from(text.content).toString());
  expect(tars.map(({ name }) => name)).toEqual(['16388.tar', 'base.tar']);
  const whole = await tarsOf(store, record);
  for (const [i, { frames, members }] of tars.entries()) {
    const volumes = await Promise.all(
      record.tars[i]!.volumes.map((name) => objectOf(store, id, name)),
    );
    for (const { offset, length, volume, at, stored, sha256: digest } of frames) {
      const frame = volumes[volume]!.subarray(at, at + stored);
      expect(sha256(frame)).toBe(digest);
      const { content } = await decodeBytes(frame, { name: 'frame' });
      expect(Buffer.from(content)).toEqual(whole[i]!.subarray(offset, offset + length));
    }
    expect(members).toHaveLength(WHOLE.tars[i]!.files.length);
    for (const { name, offset, size } of members) {
      const file = WHOLE.tars[i]!.files.find((one) => one.name === name);
      expect(whole[i]!.subarray(offset + 512, offset + 512 + size)).toEqual(file?.content);
    }
  }
});

test.each([
  ['none', 16 << 20],
  ['gzip', 16 << 20],
] as const)(
  'a large tar with %s is cut into volumes whose names are in their order',
  async (method, most) => {
    const content = Buffer.concat([pseudo(60 << 20, 5), Buffer.alloc(9 << 20)]);
    const files = [...FILES, { name: 'base/1/1', content }];
    const store = new MemoryStore();
    const backup = { tars: [{ name: 'base.tar', files }], chunk: 65_536 };
    const { record } = await backUp(store, backup, { compression: { method } });
    const { volumes, size } = record.tars[0]!;
    const suffix = method === 'none' ? '' : '.gz';
    expect(volumes).toEqual(volumes.map((_, i) => `base.tar${suffix}.000${i}`));
    const sizes = record.objects.filter(({ name }) => volumes.includes(name)).map((o) => o.size);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(most);
    if (method === 'none') expect(sizes.reduce((a, b) => a + b)).toBe(size);
    const whole = tarOf(files);
    expect((await tarsOf(store, record))[0]!.equals(whole)).toBe(true);
    // What has nothing but a part of the large file can be compared by itself.
    const stored = await objectOf(store, record.id, 'base.index');
    const text = Buffer.from((await decodeBytes(stored, { name: 'index' })).content).toString();
    const { frames } = parseBaseIndex(text).tars[0]!;
    const told = frames.filter(({ content }) => content !== undefined);
    expect(told).toHaveLength(method === 'none' ? 0 : frames.length - 2);
    for (const { offset, length, content } of told) {
      expect(sha256(whole.subarray(offset, offset + length))).toBe(content);
    }
  },
);

test('a tar that a server does not end is ended', async () => {
  const store = new MemoryStore();
  const { record } = await backUp(store, { ...WHOLE, terminated: false });
  expect(await tarsOf(store, record)).toEqual([tarOf(SPACE), tarOf(FILES)]);
});

test('all but the record and the claim is encrypted where there are recipients', async () => {
  const identity = await generateX25519Identity();
  const recipients = [await identityToRecipient(identity)];
  const store = new MemoryStore();
  const { id, record } = await backUp(store, WHOLE, { recipients });
  expect(record.encrypted).toBe(true);
  for (const [key, { bytes }] of store.objects.entries()) {
    const isOpen = /\/(backup|claim)\.json$/.test(key);
    const isAge = Buffer.from(bytes).toString('latin1').startsWith('age-encryption.org/v1\n');
    expect([key, isAge]).toEqual([key, !isOpen]);
  }
  const identities = await Identities.parse(identity);
  expect(await tarsOf(store, record, identities)).toEqual([tarOf(SPACE), tarOf(FILES)]);
  // A file of 8 kB is no page of WAL: what it is inside is not asked.
  expect((await objectOf(store, id, 'pg_control')).length).toBeGreaterThan(8192);
});

const changed = (name: string, content: Buffer): FakeBackup => ({
  tars: WHOLE.tars.map((tar) => ({
    ...tar,
    files: tar.files.map((file) => (file.name === name ? { name, content } : file)),
  })),
  manifest: manifestFiles(WHOLE),
});

const flipped = pseudo(70_000, 1);
flipped[40_000]! ^= 1;
const missing = { name: 'base/1/7', content: Buffer.from('x') };
const WRONG: [string, FakeBackup, RegExp][] = [
  ['another bit', changed('base/1/1259', flipped), /"base\/1\/1259" has another checksum/],
  ['another size', changed('base/1/1260', pseudo(511, 2)), /"base\/1\/1260" has 511 bytes/],
  [
    'a missing file',
    { ...WHOLE, manifest: [...manifestFiles(WHOLE), missing] },
    /"base\/1\/7" did not come/,
  ],
  [
    'a surplus file',
    { ...WHOLE, manifest: manifestFiles(WHOLE).filter(({ name }) => name !== 'empty') },
    /"empty" is not in it/,
  ],
  [
    'a file that comes twice',
    { tars: [{ name: 'base.tar', files: [...FILES, FILES[3]!] }], manifest: FILES },
    /"empty" is twice/,
  ],
  ['no label', { tars: [{ name: 'base.tar', files: FILES.slice(1) }] }, /no backup_label/],
];

test.each(WRONG)('%s is found, and nothing is left', async (_, backup, message) => {
  const store = new MemoryStore();
  const error = await backUp(store, backup).catch((e) => e);
  expect(error).toBeInstanceOf(CorruptObjectError);
  expect(error.message).toMatch(message);
  expect(store.objects.entries()).toEqual([]);
});

test('WAL that is included is not in the manifest', async () => {
  const wal = { name: 'pg_wal/000000010000000000000002', content: pseudo(100, 9) };
  const store = new MemoryStore();
  const backup = { tars: [{ name: 'base.tar', files: [...FILES, wal] }], manifest: FILES };
  const archive = { stored: () => Promise.reject(new Error('not asked')) } as never;
  const { record } = await backUp(store, backup, { wal: 'include', archive });
  expect(record.wal).toBe('included');
});

test('a tablespace that the server leaves out is refused before anything is copied', async () => {
  const store = new MemoryStore();
  const inPlace = [
    { oid: 16388, name: 'there' },
    { oid: 16400, name: 'here' },
  ];
  const error = await backUp(store, WHOLE, { facts: { inPlaceTablespaces: inPlace } }).catch(
    (e) => e,
  );
  expect(error).toBeInstanceOf(NotSupportedError);
  expect(error.message).toMatch(/: "here" \(16400\)$/);
  expect(store.objects.entries()).toEqual([]);
});

test('configuration outside the data directory is stored, or named', async () => {
  const store = new MemoryStore();
  const content = Buffer.from('port = 5432\n');
  const files = [
    { path: '/etc/postgresql/15/main/conf.d', kind: 'directory' as const, content: undefined },
    { path: '/etc/postgresql/15/main/postgresql.conf', kind: 'settings' as const, content },
    { path: '/etc/ssl/a b.key', kind: 'tls' as const, content: undefined },
  ];
  const { id, record } = await backUp(store, WHOLE, {
    facts: { configuration: { files, complete: true } },
  });
  expect(record.outside).toEqual([
    { path: '/etc/postgresql/15/main/conf.d', kind: 'directory' },
    {
      ...{ path: '/etc/postgresql/15/main/postgresql.conf', kind: 'settings' },
      object: 'outside/001-postgresql.conf',
    },
    { path: '/etc/ssl/a b.key', kind: 'tls' },
  ]);
  expect(await objectOf(store, id, 'outside/001-postgresql.conf')).toEqual(content);
});

test('who stops it is told his reason, and nothing is left', async () => {
  const store = new MemoryStore();
  const stop = new AbortController();
  const reason = new Error('enough');
  class Stopping extends MemoryStore {
    override async create(...args: Parameters<MemoryStore['create']>) {
      if (args[0].includes('.tar.')) stop.abort(reason);
      return super.create(...args);
    }
  }
  const stopping = new Stopping({ objects: store.objects });
  await expect(backUp(stopping, WHOLE, { signal: stop.signal })).rejects.toBe(reason);
  expect(store.objects.entries()).toEqual([]);
});

test('a slow store makes the server wait instead of filling the memory', async () => {
  const held: (() => void)[] = [];
  class Slow extends MemoryStore {
    override async create(...args: Parameters<MemoryStore['create']>) {
      if (args[0].includes('.tar.')) await new Promise<void>((resolve) => held.push(resolve));
      return super.create(...args);
    }
  }
  const files = [...FILES, { name: 'base/1/1', content: Buffer.alloc(400 << 20, 1) }];
  const backup: FakeBackup = { tars: [{ name: 'base.tar', files }], chunk: 1 << 20 };
  const bytes: number[] = [];
  const taken = backUp(new Slow(), backup, {
    compression: { method: 'none' },
    onProgress: (progress) => bytes.push(progress.bytes),
  });
  // It stands still, and far before the end.
  const isStill = () => held.length > 0 && bytes.length > 5 && bytes.at(-1) === bytes.at(-4);
  await expect.poll(isStill, { timeout: 20_000 }).toBe(true);
  expect(bytes.at(-1)).toBeLessThan(200 << 20);
  const timer = setInterval(() => held.shift()?.(), 1);
  await taken;
  clearInterval(timer);
});

test('a warning for each file of a server does not flood the record', () => {
  const told: string[] = [];
  const warnings = new Warnings(({ message }) => told.push(message));
  for (let n = 1; n <= 100_000; n++) warnings.add({ code: 'x', message: `${n}` });
  expect(told).toHaveLength(101);
  expect(warnings.messages).toHaveLength(101);
  expect(warnings.messages.at(-1)).toBe('99900 more warnings behind the first 100');
});

test('files are proven by the checksum that the server was asked for, and by no other', async () => {
  const sums = (algorithm: 'CRC32C' | 'SHA256') => ({
    backup: { ...WHOLE, algorithm },
    options: { manifestChecksums: algorithm },
  });
  const [crc, sha] = [sums('CRC32C'), sums('SHA256')];
  await backUp(new MemoryStore(), sha.backup, sha.options);
  const asked = backUp(new MemoryStore(), crc.backup, sha.options);
  await expect(asked).rejects.toThrow('has no checksum by SHA256 in it');
  const wrong = { ...FILES[4]!, content: pseudo(70_000, 9) };
  const manifest = manifestFiles(WHOLE).map((file) => (file.name === wrong.name ? wrong : file));
  for (const { backup, options } of [crc, sha]) {
    const other = backUp(new MemoryStore(), { ...backup, manifest }, options);
    await expect(other).rejects.toThrow('"base/1/1259" has another checksum');
  }
});
