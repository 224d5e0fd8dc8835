import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  DiskFullError,
  FsyncError,
  StoreAccessError,
  StoreUncertainError,
  StoreUnsupportedError,
} from '../../src/errors.js';
import { nodeTreeFileSystem, type TreeFileSystem } from '../../src/files/tree-file-system.js';
import { bytesOf, contentOf } from '../../src/store/content.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import type { ObjectStore } from '../../src/store/store.js';
import { withoutHardLinks } from '../support/no-links.js';
import { removeScratch, scratchDir } from '../support/scratch.js';
import { collect, keys, storeContract, whole } from './contract.js';

// A listing of a directory has no pages.
const settings = { many: 120, rounds: 5 };

storeContract('a directory', openDirectory, settings);

describe('without hard links', () => {
  withoutHardLinks('EPERM');
  storeContract('a directory', openDirectory, { many: 40, rounds: 1 });

  it('makes a name durable before it is told to anybody, also one whose maker died', async () => {
    const dir = scratchDir();
    await openFileStore(dir, { init: true });
    let dies = true;
    const dying = failing((op, path) =>
      dies && op === 'fsync' && path.endsWith('/d') ? 'EIO' : undefined,
    );
    const store = await openFileStore(dir, { fs: dying });
    await expect(store.create('d/a', text('x'))).rejects.toThrow(FsyncError);
    dies = false;
    const synced: string[] = [];
    const watching = failing((op, path) => {
      if (op === 'fsync') synced.push(path);
      return undefined;
    });
    const other = await openFileStore(dir, { fs: watching });
    for (const look of [
      () => other.head('d/a'),
      () => other.get('d/a'),
      () => keys(other.list('')),
    ]) {
      synced.length = 0;
      expect(await look()).toBeDefined();
      expect(synced).toContain(join(dir, 'd'));
    }
    synced.length = 0;
    await other.create('e/b', text('x'));
    expect(synced).toContain(join(dir, 'd'));
    synced.length = 0;
    expect(await other.head('d/a')).toBeDefined();
    expect(synced).toEqual([]);
  });
});

async function openDirectory() {
  const dir = scratchDir('store');
  const store = await openFileStore(dir, { init: true });
  return {
    store,
    again: () => openFileStore(dir),
    [Symbol.asyncDispose]: async () => {
      await store.close();
      removeScratch(dir);
    },
  };
}

const text = (content: string) => contentOf(Buffer.from(content));

/** The real file system, but for calls that fail. */
function failing(fails: (op: keyof TreeFileSystem, path: string) => string | undefined) {
  const paths = new Map<number, string>();
  const names = Object.keys(nodeTreeFileSystem) as (keyof TreeFileSystem)[];
  const calls = names.map((op) => {
    const real = nodeTreeFileSystem[op] as (...args: unknown[]) => Promise<unknown>;
    const call = async (...args: unknown[]) => {
      const path = typeof args[0] === 'number' ? (paths.get(args[0]) ?? '') : String(args[0]);
      const code = fails(op, path);
      if (code !== undefined) throw Object.assign(new Error(code), { code });
      const result = await real(...args);
      if (op === 'open') paths.set(result as number, path);
      return result;
    };
    return [op, op.endsWith('Sync') ? real : call] as const;
  });
  return Object.fromEntries(calls) as unknown as TreeFileSystem;
}

async function refusesAll(store: ObjectStore): Promise<void> {
  await expect(store.get('a')).rejects.toThrow(StoreAccessError);
  await expect(store.head('a')).rejects.toThrow(StoreAccessError);
  await expect(keys(store.list(''))).rejects.toThrow(StoreAccessError);
  await expect(store.remove(['a'])).rejects.toThrow(StoreAccessError);
  await expect(store.create('a', text('x'))).rejects.toThrow(StoreAccessError);
}

describe('the directory of a store', () => {
  it('is never made unasked', async () => {
    const dir = join(scratchDir(), 'not', 'there');
    await expect(openFileStore(dir)).rejects.toThrow(/it is not there/);
    expect(existsSync(dir)).toBe(false);
    const store = await openFileStore(dir, { init: true });
    expect(await store.create('a', text('x'))).toEqual({ created: true });
    expect(await whole(await openFileStore(dir, { init: true }), 'a')).toEqual(Buffer.from('x'));
  });

  it('is not taken for an archive while it is empty or has other things in it', async () => {
    const dir = scratchDir();
    await expect(openFileStore(dir)).rejects.toThrow(/it is empty/);
    mkdirSync(join(dir, 'lost+found'));
    const refused = openFileStore(dir);
    await expect(refused).rejects.toThrow(StoreAccessError);
    await expect(refused).rejects.toThrow(/nothing in it is of an archive/);
    writeFileSync(join(dir, 'file'), '');
    await expect(openFileStore(join(dir, 'file'))).rejects.toThrow(StoreAccessError);
  });

  it('is one, whoever wrote what is in it', async () => {
    const names = [
      'archive.json',
      '.walkeep-ledger',
      '000000010000000000000001',
      '000000010000000000000001.gz',
      '000000010000000000000002.partial',
      '00000002.history',
    ];
    for (const name of names) {
      const dir = scratchDir();
      writeFileSync(join(dir, name), 'bytes');
      const store = await openFileStore(dir);
      const [entry] = await collect(store.list(''));
      expect(entry).toMatchObject({ key: name, size: 5 });
      // Of what others stored only the bytes are known.
      expect(await store.head(name)).toMatchObject({ sha256: undefined, meta: {} });
      expect(await whole(store, name)).toEqual(Buffer.from('bytes'));
      expect(await store.head('nothing')).toBeUndefined();
      // Reading leaves nothing.
      expect(readdirSync(dir)).toEqual([name]);
      expect((await store.create(name, text('other'))).created).toBe(false);
      expect(await store.create('systems/1/x', text('x'))).toEqual({ created: true });
      expect(readFileSync(join(dir, name), 'utf8')).toBe('bytes');
    }
  });

  it('that is gone, or whose disk is, never answers that something is absent', async () => {
    const dir = scratchDir();
    const store = await openFileStore(dir, { init: true });
    await store.create('a', text('x'));
    renameSync(dir, `${dir}.away`);
    await refusesAll(store);
    // As a mount point without its disk.
    mkdirSync(dir);
    await refusesAll(store);
    expect(readdirSync(dir)).toEqual([]);
    removeScratch(dir);
    renameSync(`${dir}.away`, dir);
    expect(await whole(store, 'a')).toEqual(Buffer.from('x'));
    expect(await store.head('b')).toBeUndefined();
  });

  it('may be a link, but nothing in it is followed', async () => {
    const [dir, outside] = [scratchDir(), scratchDir()];
    await openFileStore(dir, { init: true });
    const link = join(scratchDir(), 'link');
    symlinkSync(dir, link);
    const store = await openFileStore(link);
    writeFileSync(join(outside, 'secret'), 'secret');
    symlinkSync(outside, join(dir, 'out'));
    symlinkSync(join(outside, 'secret'), join(dir, 'file'));
    symlinkSync('nowhere', join(dir, 'dangling'));
    for (const key of ['out/secret', 'file', 'dangling', 'out/new', 'out/new/x', 'out']) {
      await expect(store.get(key)).rejects.toThrow(StoreAccessError);
      await expect(store.head(key)).rejects.toThrow(StoreAccessError);
      await expect(store.create(key, text('x'))).rejects.toThrow(StoreAccessError);
      await expect(store.remove([key])).rejects.toThrow(StoreAccessError);
    }
    await expect(keys(store.list('out/'))).rejects.toThrow(StoreAccessError);
    expect(await keys(store.list(''))).toEqual([]);
    expect(readdirSync(outside)).toEqual(['secret']);
    expect(readFileSync(join(outside, 'secret'), 'utf8')).toBe('secret');
  });

  it('has no room of its own that leads elsewhere', async () => {
    const [dir, outside] = [scratchDir(), scratchDir()];
    writeFileSync(join(dir, 'archive.json'), '{}');
    symlinkSync(outside, join(dir, '.walkeep-store'));
    const store = await openFileStore(dir);
    await expect(store.create('a', text('x'))).rejects.toThrow(StoreAccessError);
    expect(readdirSync(outside)).toEqual([]);
  });

  it('of a later version is left alone', async () => {
    const dir = scratchDir();
    await openFileStore(dir, { init: true });
    writeFileSync(join(dir, '.walkeep-store', 'store.json'), '{"format":2,"naming":"link"}');
    const store = await openFileStore(dir);
    await expect(store.create('a', text('x'))).rejects.toThrow(StoreUnsupportedError);
  });

  it('holds an object or a directory of a name, not both', async () => {
    const { store } = await openDirectory();
    await store.create('a/b', text('x'));
    await expect(store.create('a', text('y'))).rejects.toThrow(StoreUncertainError);
    await expect(store.create('a/b/c', text('y'))).rejects.toThrow(StoreUnsupportedError);
    expect(await keys(store.list(''))).toEqual(['a/b']);
  });
});

describe('what is kept of an object', () => {
  const sidecars = (dir: string) =>
    readdirSync(join(dir, '.walkeep-store', 'meta'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.json'))
      .map((name) => join(dir, '.walkeep-store', 'meta', name));

  it('is never taken for another object that came to stand there', async () => {
    const dir = scratchDir();
    const store = await openFileStore(dir, { init: true });
    await store.create('a', text('one'), { meta: { of: 'one' } });
    renameSync(join(dir, 'a'), join(dir, 'b'));
    writeFileSync(join(dir, 'a'), 'two');
    for (const key of ['a', 'b']) {
      expect(await store.head(key)).toMatchObject({ sha256: undefined, meta: {} });
    }
  });

  it('is kept where a file system has coarse times', async () => {
    const dir = scratchDir();
    const store = await openFileStore(dir, { init: true });
    await store.create('a', text('one'), { meta: { of: 'one' } });
    const seconds = Math.floor(statSync(join(dir, 'a')).mtimeMs / 1000);
    utimesSync(join(dir, 'a'), seconds, seconds);
    expect(await store.head('a')).toMatchObject({ meta: { of: 'one' } });
    utimesSync(join(dir, 'a'), seconds - 60, seconds - 60);
    expect(await store.head('a')).toMatchObject({ meta: {} });
  });

  it('may be damaged: then only the bytes are known', async () => {
    const dir = scratchDir();
    const store = await openFileStore(dir, { init: true });
    await store.create('a', text('one'), { meta: { of: 'one' } });
    for (const content of ['', '{', '{}', '[]', 'null', '{"key":"a"}']) {
      writeFileSync(sidecars(dir)[0] as string, content);
      expect(await store.head('a')).toMatchObject({ sha256: undefined, meta: {} });
    }
    expect(await whole(store, 'a')).toEqual(Buffer.from('one'));
  });

  it('goes with the object', async () => {
    const dir = scratchDir();
    const store = await openFileStore(dir, { init: true });
    await store.create('a', text('one'));
    expect(sidecars(dir)).toHaveLength(1);
    await store.remove(['a']);
    expect(sidecars(dir)).toEqual([]);
  });
});

describe('a disk that fails', () => {
  const left = (dir: string) => readdirSync(join(dir, '.walkeep-store', 'new'));

  for (const code of ['ENOSPC', 'EDQUOT']) {
    it(`by ${code} stores nothing, and goes on once there is space`, async () => {
      const dir = scratchDir();
      let full = true;
      const fs = failing((op) => (full && op === 'writev' ? code : undefined));
      await openFileStore(dir, { init: true });
      const store = await openFileStore(dir, { fs });
      await expect(store.create('a', text('x'))).rejects.toThrow(DiskFullError);
      expect(left(dir)).toEqual([]);
      expect(await store.head('a')).toBeUndefined();
      full = false;
      expect(await store.create('a', text('x'))).toEqual({ created: true });
    });
  }

  it('to sync an object stores nothing, and nothing more in this process', async () => {
    const dir = scratchDir();
    await openFileStore(dir, { init: true });
    let failed = 0;
    const fs = failing((op, path) => {
      if (op !== 'fsync' || !path.includes('/new/') || failed > 0) return undefined;
      failed += 1;
      return 'EIO';
    });
    const store = await openFileStore(dir, { fs });
    await expect(store.create('a', text('x'))).rejects.toThrow(FsyncError);
    await expect(store.create('b', text('x'))).rejects.toThrow(FsyncError);
    expect(left(dir)).toEqual([]);
    expect(await keys(store.list(''))).toEqual([]);
  });

  it('to sync a name leaves a mark, by which others know', async () => {
    const dir = scratchDir();
    await (await openFileStore(dir, { init: true })).create('d/other', text('x'));
    const fs = failing((op, path) => (op === 'fsync' && path.endsWith('/d') ? 'EIO' : undefined));
    const store = await openFileStore(dir, { fs });
    await expect(store.create('d/a', text('x'), { meta: { a: 'b' } })).rejects.toThrow(FsyncError);
    expect(left(dir)).toHaveLength(2);
    const synced: string[] = [];
    const watching = failing((op, path) => {
      if (op === 'fsync') synced.push(path);
      return undefined;
    });
    const other = await openFileStore(dir, { fs: watching, isDead: async () => true });
    expect((await other.head('d/a'))?.meta).toEqual({ a: 'b' });
    expect(synced).toContain(join(dir, 'd'));
    await other.create('d/b', text('x'));
    expect(left(dir)).toEqual([]);
    expect((await other.head('d/a'))?.meta).toEqual({ a: 'b' });
  });

  for (const [code, error] of [
    ['EACCES', StoreAccessError],
    ['EIO', StoreUncertainError],
    ['ESTALE', StoreUncertainError],
    ['ENOTCONN', StoreUncertainError],
    ['EMFILE', StoreUncertainError],
  ] as const) {
    it(`by ${code} gives no answer`, async () => {
      const dir = scratchDir();
      const real = await openFileStore(dir, { init: true });
      await real.create('d/a', text('x'));
      const store = (op: keyof TreeFileSystem) =>
        openFileStore(dir, {
          fs: failing((o, path) => (o === op && /\/d(\/a)?\/?$/.test(path) ? code : undefined)),
        });
      await expect((await store('open')).get('d/a')).rejects.toThrow(error);
      await expect((await store('stat')).get('d/a')).rejects.toThrow(error);
      await expect((await store('stat')).head('d/a')).rejects.toThrow(error);
      await expect((await store('stat')).create('d/a', text('x'))).rejects.toThrow(error);
      await expect(keys((await store('readdir')).list('d/'))).rejects.toThrow(error);
      await expect(keys((await store('stat')).list('d/'))).rejects.toThrow(error);
      await expect((await store('unlink')).remove(['d/a'])).rejects.toThrow(error);
      await expect((await store('link')).create('d/a', text('x'))).resolves.toMatchObject({
        created: false,
      });
      const got = await (await store('read')).get('d/a');
      await expect(bytesOf(got!.body)).rejects.toThrow(error);
    });
  }

  it('by EPERM retains what is to be removed', async () => {
    const dir = scratchDir();
    await (await openFileStore(dir, { init: true })).create('a', text('x'));
    const fs = failing((op, path) =>
      op === 'unlink' && path.endsWith('/a') ? 'EPERM' : undefined,
    );
    const store = await openFileStore(dir, { fs });
    expect(await store.remove(['a', 'b'])).toEqual({ removed: ['b'], retained: ['a'] });
  });

  it('with a file server that repeats a link whose answer was lost is understood', async () => {
    const dir = scratchDir();
    await openFileStore(dir, { init: true });
    const fs: TreeFileSystem = {
      ...nodeTreeFileSystem,
      link: async (from, to) => {
        await nodeTreeFileSystem.link(from, to);
        return nodeTreeFileSystem.link(from, to);
      },
    };
    const store = await openFileStore(dir, { fs });
    expect(await store.create('a', text('x'), { meta: { a: 'b' } })).toEqual({ created: true });
    expect(left(dir)).toEqual([]);
    expect((await store.head('a'))?.meta).toEqual({ a: 'b' });
  });
});

describe('names that a file system takes for the same', () => {
  /** Below `dir` only lower case is stored, and any case is found. */
  const insensitive = (dir: string): TreeFileSystem => {
    const real = new Map<string, string>();
    const fold = (path: string) => {
      if (!path.startsWith(dir)) return path;
      const parts = path.slice(dir.length).split('/');
      let at = '';
      for (const part of parts) {
        const folded = `${at}/${part}`.toLowerCase();
        const known = real.get(folded) ?? part;
        if (!existsSync(join(dir, at, known))) real.delete(folded);
        const kept = real.get(folded) ?? part;
        real.set(folded, kept);
        at = `${at}/${kept}`;
      }
      return join(dir, at);
    };
    const names = Object.keys(nodeTreeFileSystem) as (keyof TreeFileSystem)[];
    const calls = names.map((op) => {
      const call = nodeTreeFileSystem[op] as (...args: unknown[]) => unknown;
      return [
        op,
        (...args: unknown[]) => call(...args.map((a) => (typeof a === 'string' ? fold(a) : a))),
      ];
    });
    return Object.fromEntries(calls) as TreeFileSystem;
  };

  it('are not: absent is what has another case, and it cannot be stored', async () => {
    const dir = scratchDir();
    const store = await openFileStore(dir, { init: true, fs: insensitive(dir) });
    expect(await store.create('Dir/Key', text('x'))).toEqual({ created: true });
    for (const key of ['dir/Key', 'Dir/key', 'DIR/KEY']) {
      expect(await store.get(key)).toBeUndefined();
      expect(await store.head(key)).toBeUndefined();
      await expect(store.create(key, text('y'))).rejects.toThrow(StoreUnsupportedError);
      await store.remove([key]);
      expect(await keys(store.list(`${key.split('/')[0]}/`))).toEqual(
        key.startsWith('Dir/') ? ['Dir/Key'] : [],
      );
    }
    expect(await keys(store.list(''))).toEqual(['Dir/Key']);
    expect((await store.create('Dir/Key', text('y'))).created).toBe(false);
    expect(await whole(store, 'Dir/Key')).toEqual(Buffer.from('x'));
  });
});

it('makes files that only their owner may read', async () => {
  const dir = join(scratchDir(), 'new');
  const store = await openFileStore(dir, { init: true });
  await store.create('a/b', text('x'));
  chmodSync(dir, 0o755);
  for (const [path, mode] of [
    ['a', 0o700],
    ['a/b', 0o600],
    ['.walkeep-store', 0o700],
  ] as const) {
    expect(statSync(join(dir, path)).mode & 0o777).toBe(mode);
  }
});
