import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { beforeAll, describe, expect, it } from 'vitest';
import { partialKey, segmentKey } from '../../src/archive/store-keys.js';
import { Identities } from '../../src/codec/age/identities.js';
import { parseRecipients, type Recipients } from '../../src/codec/age/recipients.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { checkKeys, checkStore, isOpen } from '../../src/key/check-keys.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { MemoryStore } from '../../src/store/memory.js';
import type { GetOptions, ObjectStore } from '../../src/store/store.js';
import { run } from '../cli/run.js';
import { scratchDir } from '../support/scratch.js';
import { beginArchive, put, storeArchiveOf } from '../support/store-archive.js';
import { archiveOf, SYSTEM_ID, segmentOf } from '../support/wal-archive.js';

const seg = (n: number, timeline = 1) =>
  `0000000${timeline}00000000${n.toString(16).toUpperCase().padStart(8, '0')}`;

const WAL = segmentOf('switch', seg(7));

interface Pair {
  secret: string;
  name: string;
  identities: Identities;
  recipients: Recipients;
}
let old: Pair;
let young: Pair;

beforeAll(async () => {
  const pair = async (): Promise<Pair> => {
    const secret = await generateX25519Identity();
    const name = await identityToRecipient(secret);
    const identities = await Identities.parse(secret);
    return { secret, name, identities, recipients: await parseRecipients(name) };
  };
  [old, young] = [await pair(), await pair()];
});

const encrypted = (recipients: Recipients) => encodeBytes(WAL, { codec: 'gzip', recipients });

async function memory(): Promise<ObjectStore> {
  const store = new MemoryStore();
  await beginArchive(store);
  return store;
}

const segment = (store: ObjectStore, name: string, bytes: Uint8Array) =>
  put(store, segmentKey(SYSTEM_ID, name), bytes);

describe('checkKeys', () => {
  it('says which identity opens what, and what none opens', async () => {
    const store = await memory();
    const both = await parseRecipients([old.name, young.name]);
    await segment(store, seg(1), WAL);
    await segment(store, seg(2), await encrypted(old.recipients));
    await segment(store, seg(3), await encrypted(both));
    await segment(store, seg(4), await encrypted(young.recipients));
    const { objects, total } = await checkStore(store, old.identities);
    expect(total).toBe(4);
    expect(
      objects?.map(({ name, encrypted, recipients }) => [name, encrypted, recipients]),
    ).toEqual([
      [seg(1), false, 0],
      [seg(2), true, 1],
      [seg(3), true, 2],
      [seg(4), true, 1],
    ]);
    expect(objects?.map(isOpen)).toEqual([true, true, true, false]);
    const joined = Identities.join([old.identities, young.identities]);
    const again = await checkStore(store, joined);
    expect(again.objects?.map(({ openedBy }) => openedBy)).toEqual([
      [],
      [old.name],
      [old.name, young.name],
      [young.name],
    ]);
  });

  it('calls nothing open that is damaged at its beginning, or nothing known', async () => {
    const store = await memory();
    const bytes = await encrypted(old.recipients);
    const mac = Buffer.from(bytes);
    mac[mac.indexOf('\n--- ') + 6]! ^= 1;
    await segment(store, seg(1), bytes.subarray(0, 60));
    await segment(store, seg(2), Buffer.from('not anything'));
    await segment(store, seg(3), mac);
    await segment(store, seg(4), Buffer.alloc(0));
    const { objects } = await checkStore(store, old.identities);
    expect(objects?.map(isOpen)).toEqual([false, false, false, false]);
  });

  it('reads a header that is longer than most', async () => {
    const store = await memory();
    const many = await parseRecipients([...Array(200).fill(young.name), old.name]);
    await segment(store, seg(1), await encrypted(many));
    const { objects } = await checkStore(store, old.identities);
    expect(objects).toMatchObject([{ recipients: 201, openedBy: [old.name] }]);
  });

  it('looks at the ends of timelines, the unfinished and a sample; or at all', async () => {
    const store = await memory();
    const bytes = await encrypted(old.recipients);
    for (let n = 1; n <= 40; n++) await segment(store, seg(n), bytes);
    for (const n of [30, 31, 32]) await segment(store, seg(n, 2), bytes);
    for (const end of [10n, 20n]) await put(store, partialKey(SYSTEM_ID, seg(33, 2), end), bytes);
    const looked = async (options: object) =>
      (await checkStore(store, old.identities, options)).objects?.map(({ name }) => name) ?? [];
    const ends = [seg(1), seg(40), seg(30, 2), seg(32, 2), `${seg(33, 2)}.partial`];
    const some = await looked({});
    expect(some).toHaveLength(ends.length + 16);
    expect(some).toEqual(expect.arrayContaining(ends));
    expect(some).toEqual([...some].sort());
    expect(await looked({ sample: 1 })).toEqual([seg(1), seg(21), ...ends.slice(1)]);
    expect(await looked({ sample: 1000 })).toHaveLength(44);
    expect(await looked({ all: true })).toHaveLength(45);
    const last = await checkStore(store, old.identities);
    expect(last.objects?.at(-1)?.key).toBe(partialKey(SYSTEM_ID, seg(33, 2), 20n));
  });

  it('reads no more than the beginnings, and passes over what is removed meanwhile', async () => {
    const store = await memory();
    for (const n of [1, 2, 3]) await segment(store, seg(n), await encrypted(old.recipients));
    const ranges: GetOptions['range'][] = [];
    const get = store.get.bind(store);
    store.get = async (key, options) => {
      if (!key.includes('/wal/')) return get(key, options);
      ranges.push(options?.range);
      return key.endsWith(seg(2)) ? undefined : get(key, options);
    };
    const { objects } = await checkStore(store, old.identities);
    expect(objects?.map(({ name }) => name)).toEqual([seg(1), seg(3)]);
    expect(ranges).toEqual(Array(3).fill({ start: 0, end: 16 * 1024 }));
  });

  it('has no answer without WAL, without an archive, or for another cluster', async () => {
    const { identities } = old;
    await expect(checkStore(await memory(), identities)).rejects.toThrow(/holds no WAL/);
    const nothing = new MemoryStore();
    await expect(checkStore(nothing, identities)).rejects.toThrow(/not the archive of anything/);
    const other = checkStore(await memory(), identities, { systemId: 77n });
    await expect(other).rejects.toThrow(/another cluster/);
    await expect(checkKeys(scratchDir('flat'), {})).rejects.toThrow(/no identity is given/);
  });
});

describe('walkeep key check', () => {
  const identityFile = (...pairs: Pair[]) => {
    const path = join(scratchDir('keys'), 'identity');
    writeFileSync(path, pairs.map(({ secret }) => `${secret}\n`).join(''));
    return path;
  };
  const check = (...args: string[]) => run('walkeep', 'key', 'check', ...args);

  it('prints neighbours of the same answer as one, within 80 columns', async () => {
    const { place, store } = await storeArchiveOf(archiveOf('switch').dir, (plain) =>
      encodeBytes(plain, { codec: 'gzip', recipients: old.recipients }),
    );
    const file = identityFile(old, young);
    const { code, stdout } = await check('--identity', file, place);
    expect(code).toBe(0);
    expect(stdout.split('\n')).toEqual([
      `${seg(6)} - ${seg(12)}.partial`,
      '  7 objects, encrypted for 1 recipient',
      `  opened by ${old.name}`,
      'looked at 7 of 7 objects',
      `opens nothing: ${young.name}`,
      '',
    ]);
    await segment(store, seg(20), await encrypted(young.recipients));
    const wrong = await check('--identity', identityFile(old), '--sample', '1', place);
    expect(wrong.code).toBe(1);
    expect(wrong.stdout).toMatch(
      / {2}opened by none of these identities\nlooked at 4 of 8 objects/,
    );
    for (const line of (stdout + wrong.stdout).split('\n')) expect(line.length).toBeLessThan(81);
    expect(stdout + wrong.stdout).not.toContain(old.secret);
  });

  it('--json prints an object a line', async () => {
    const { place, store } = await storeArchiveOf(archiveOf('switch').dir);
    await segment(store, seg(20), await encrypted(young.recipients));
    const { code, stdout } = await check('--json', '--all', '--identity', identityFile(old), place);
    const objects = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(code).toBe(1);
    expect(objects).toHaveLength(8);
    expect(objects[0]).toMatchObject({ encrypted: false, recipients: 0, openedBy: [] });
    expect(objects).toContainEqual({
      key: segmentKey(SYSTEM_ID, seg(20)),
      name: seg(20),
      encrypted: true,
      recipients: 1,
      openedBy: [],
    });
  });

  it('says of a flat directory that nothing there is encrypted', async () => {
    const { dir } = archiveOf('switch');
    const file = identityFile(old);
    const { code, stdout } = await check('--identity', file, dir);
    expect(code).toBe(0);
    expect(stdout).toBe(`nothing is encrypted in "${dir}": it is a flat directory\n`);
    const json = await check('--json', '--identity', file, dir);
    expect(JSON.parse(json.stdout)).toEqual({ place: dir, encrypted: false });
    writeFileSync(join(dir, `${seg(1)}.age`), await encrypted(old.recipients));
    expect((await check('--identity', file, dir)).code).toBe(2);
  });

  it('ends with 2 where it could not look', async () => {
    const { place } = await storeArchiveOf(archiveOf('switch').dir);
    const file = identityFile(old);
    const empty = join(scratchDir('flat'), 'empty');
    mkdirSync(empty);
    const begun = join(scratchDir('store'), 'begun');
    await beginArchive(await openFileStore(begun, { init: true }));
    const wrong: [string[], RegExp][] = [
      [[place], /no identity is given/],
      [['--identity', `${file}.none`, place], /could not read identity file/],
      [['--identity', file, `${place}/none`], /could not open directory/],
      [['--identity', file, empty], /holds no WAL/],
      [['--identity', file, begun], /holds no WAL/],
      [['--identity', file], /no archive specified/],
      [['--identity', file, place, 'more'], /too many/],
      [['--all', '--sample', '3', '--identity', file, place], /exclude each other/],
      [['--system-id', '77', '--identity', file, place], /another cluster/],
    ];
    for (const [args, message] of wrong) {
      const { code, stdout, stderr } = await check(...args);
      expect({ code, stdout }, args.join(' ')).toEqual({ code: 2, stdout: '' });
      expect(stderr).toMatch(message);
    }
    expect(await run('walkeep', 'key')).toMatchObject({ code: 2 });
    expect(await run('walkeep', 'key', 'check')).toMatchObject({ code: 2 });
    const named = await run('walkeep', 'key', 'check', place);
    expect(await run('walkeep', 'key', 'check', '-D', place)).toEqual(named);
    expect(await run('walkeep', 'key', 'chek', place)).toMatchObject({ code: 2 });
  });
});
