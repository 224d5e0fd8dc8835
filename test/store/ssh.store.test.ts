import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StoreAccessError, StoreUncertainError } from '../../src/errors.js';
import { contentOf } from '../../src/store/content.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { parsePlace, type SshPlace } from '../../src/store/place.js';
import { openSshStore, type SshStoreOptions } from '../../src/store/ssh/ssh-store.js';
import type { ObjectStore } from '../../src/store/store.js';
import { killAtEnd, packageRoot, removeScratch, scratchDir } from '../support/scratch.js';
import { Sshd, sshMissing, walkeepCommand } from '../support/sshd.js';
import { waitFor } from '../support/wait.js';
import { keys, storeContract, whole } from './contract.js';

describe.skipIf(sshMissing)(`over ssh${sshMissing ? ` (${sshMissing})` : ''}`, () => {
  let sshd: Sshd;
  let key: string;

  beforeAll(async () => {
    sshd = await Sshd.start();
    key = sshd.addKey();
  });
  afterAll(async () => {
    await sshd?.[Symbol.asyncDispose]();
  });

  const open = (dir: string, options: SshStoreOptions = {}) =>
    openSshStore(parsePlace(sshd.place(dir)) as SshPlace, { env: sshd.env(key), ...options });

  storeContract(
    'a directory over ssh',
    async () => {
      const dir = scratchDir('store');
      await openFileStore(dir, { init: true });
      const store = open(dir);
      return {
        store,
        again: async () => open(dir),
        [Symbol.asyncDispose]: async () => {
          await store.close();
          removeScratch(dir);
        },
      };
    },
    { many: 120, rounds: 3 },
  );

  describe('what is no answer', () => {
    const text = (content: string) => contentOf(Buffer.from(content));
    /** Whatever is asked, it fails so; nothing is ever absent. */
    const fails = async (
      store: ObjectStore,
      kind: new (message: string) => Error,
      message: RegExp,
    ) => {
      const calls = [
        () => store.get('a'),
        () => store.head('a'),
        () => keys(store.list('')),
        () => store.create('a', text('x')),
        () => store.remove(['a']),
        () => store.probe(),
      ];
      // All at once: they share the connection, and its failure.
      for (const result of await Promise.allSettled(calls.map((call) => call()))) {
        const error = (result as PromiseRejectedResult).reason;
        expect(error).toBeInstanceOf(kind);
        expect(`${error.message} | ${error.detail} | ${error.hint}`).toMatch(message);
      }
      await store.close();
    };
    const once = { attempts: 1 };

    it('a host whose key is not known', async () => {
      const env = sshd.env(key, { knownHosts: '/dev/null' });
      await fails(open('/srv', { env, ...once }), StoreAccessError, /Host key verification failed/);
    });

    it('a key that is not let in', async () => {
      const dir = scratchDir();
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, 'other')]);
      const env = sshd.env(join(dir, 'other'));
      await fails(open('/srv', { env }), StoreAccessError, /Permission denied \(publickey/);
    });

    it('a host that does not answer', async () => {
      const place = parsePlace(`ssh://127.0.0.1:1/srv`) as SshPlace;
      const store = openSshStore(place, { env: sshd.env(key), ...once });
      await fails(store, StoreUncertainError, /Connection refused/);
    });

    it('no ssh here', async () => {
      const env = { ...sshd.env(key), WALKEEP_RSH: '/nowhere/ssh' };
      await fails(open('/srv', { env }), StoreAccessError, /could not start "\/nowhere\/ssh"/);
    });

    it('no walkeep there, or an older one', async () => {
      const env = sshd.env(key, { walkeep: '/nowhere/walkeep' });
      await fails(open('/srv', { env }), StoreAccessError, /cannot be run on.*WALKEEP_REMOTE/);
      const older = sshd.env(key, { walkeep: `echo 'unrecognized command "store"' >&2; exit 1;` });
      await fails(open('/srv', { env: older }), StoreAccessError, /unrecognized command "store"/);
    });

    it('a login that prints something', async () => {
      const env = sshd.env(key, { walkeep: `echo 'Welcome to the machine'; ${walkeepCommand}` });
      await fails(open('/srv', { env }), StoreAccessError, /Welcome to the machine.*bashrc/);
    });

    it('a directory that is not there, or empty, or no archive', async () => {
      const dir = scratchDir();
      await fails(open(join(dir, 'none')), StoreAccessError, /it is not there/);
      await fails(open(dir), StoreAccessError, /it is empty/);
      mkdirSync(join(dir, 'lost+found'));
      await fails(open(dir), StoreAccessError, /nothing in it is of an archive/);
    });

    it('a disk that is gone while it is served', async () => {
      const dir = scratchDir();
      await openFileStore(dir, { init: true });
      const store = open(dir);
      expect(await store.head('a')).toBeUndefined();
      renameSync(dir, `${dir}.away`);
      mkdirSync(dir);
      await fails(store, StoreAccessError, /it is empty/);
    });
  });

  it('takes any name of a directory as it is', async () => {
    const parent = scratchDir();
    for (const name of [
      `it's`,
      'a b',
      '$HOME',
      '`id`',
      'x;touch injected',
      '"q"',
      '-dash',
      'ü&|<>',
    ]) {
      const dir = join(parent, name);
      await openFileStore(dir, { init: true });
      const place = { ...(parsePlace(sshd.place('/x')) as SshPlace), path: dir };
      const store = openSshStore(place, { env: sshd.env(key) });
      expect(await store.create('a', contentOf(Buffer.from(name)))).toEqual({ created: true });
      expect(readFileSync(join(dir, 'a'), 'utf8')).toBe(name);
      await store.close();
    }
    expect(readdirSync(parent)).toHaveLength(8);
  });

  it('uses one session for all, which ends with the store', async () => {
    const dir = scratchDir();
    await openFileStore(dir, { init: true });
    const before = sshd.servers().length;
    const store = open(dir);
    const names = Array.from({ length: 60 }, (_, i) => `k${i}`);
    await Promise.all(names.map((name) => store.create(name, contentOf(Buffer.from(name)))));
    await Promise.all(names.map((name) => whole(store, name)));
    expect(sshd.servers().length).toBe(before + 1);
    await store.close();
    await waitFor(() => sshd.servers().length === before);
  });

  it('reads the directory that a receiver writes to, as it is', async () => {
    const dir = scratchDir();
    const names = [
      '.walkeep-ledger',
      '000000010000000000000001',
      '000000010000000000000002.partial',
      '00000002.history',
    ];
    for (const name of names) writeFileSync(join(dir, name), `of ${name}`);
    const store = open(dir);
    expect(await keys(store.list(''))).toEqual(names);
    for (const name of names) {
      expect((await whole(store, name))?.toString()).toBe(`of ${name}`);
      expect(await store.head(name)).toMatchObject({ sha256: undefined, meta: {} });
    }
    expect(await store.get('000000010000000000000003')).toBeUndefined();
    expect(readdirSync(dir)).toEqual(names);
    await store.close();
  });

  it('follows no link out of the directory', async () => {
    const [dir, outside] = [scratchDir(), scratchDir()];
    await openFileStore(dir, { init: true });
    writeFileSync(join(outside, 'secret'), 'secret');
    symlinkSync(outside, join(dir, 'out'));
    symlinkSync(join(outside, 'secret'), join(dir, 'file'));
    const store = open(dir);
    for (const name of ['out/secret', 'file', 'out/new']) {
      await expect(store.get(name)).rejects.toThrow(StoreAccessError);
      await expect(store.create(name, contentOf(Buffer.from('x')))).rejects.toThrow(
        StoreAccessError,
      );
      await expect(store.remove([name])).rejects.toThrow(StoreAccessError);
    }
    expect(readdirSync(outside)).toEqual(['secret']);
    await store.close();
  });

  describe('a key for one purpose', () => {
    const text = (content: string) => contentOf(Buffer.from(content));
    const withRole = async (role: string) => {
      const dir = scratchDir();
      const local = await openFileStore(dir, { init: true });
      await local.create('a', text('x'));
      const command = `${walkeepCommand} store --stdio ${dir} ${role}`;
      const env = sshd.env(sshd.addKey({ command }));
      return { dir, local, store: open(dir, { env }), env };
    };

    it('may only read', async () => {
      const { store, local } = await withRole('--read-only');
      expect((await whole(store, 'a'))?.toString()).toBe('x');
      expect(await keys(store.list(''))).toEqual(['a']);
      expect(await store.head('b')).toBeUndefined();
      await expect(store.create('b', text('y'))).rejects.toThrow(StoreAccessError);
      await expect(store.create('a', text('x'))).rejects.toThrow(StoreAccessError);
      await expect(store.remove(['a'])).rejects.toThrow(StoreAccessError);
      await expect(store.probe()).rejects.toThrow(StoreAccessError);
      expect(await keys(local.list(''))).toEqual(['a']);
      await store.close();
    });

    it('may add and not remove', async () => {
      const { store, local } = await withRole('--no-remove');
      expect(await store.create('b', text('y'))).toEqual({ created: true });
      expect((await store.create('a', text('z'))).created).toBe(false);
      await expect(store.remove(['a'])).rejects.toThrow(StoreAccessError);
      expect((await store.probe()).conditionalCreate).toBe(true);
      expect(await keys(local.list(''))).toEqual(['a', 'b']);
      await store.close();
    });

    it('has its directory, and no other is taken for it', async () => {
      const { dir, env } = await withRole('');
      const other = await withRole('');
      const store = open(other.dir, { env });
      await expect(store.get('a')).rejects.toThrow(/is not served to this key/);
      await store.close();
      const link = join(scratchDir(), 'link');
      symlinkSync(dir, link);
      const same = open(link, { env });
      expect((await whole(same, 'a'))?.toString()).toBe('x');
      await same.close();
    });
  });

  describe('a connection that breaks', () => {
    const bytes = randomBytes(3 * 1024 * 1024);
    const half = bytes.subarray(0, bytes.length >> 1);
    const rest = bytes.subarray(bytes.length >> 1);

    it('in the middle of a create leaves nothing that could be taken for the object', async () => {
      const dir = scratchDir();
      const local = await openFileStore(dir, { init: true });
      const store = open(dir, { attempts: 1 });
      const arrived = () =>
        readdirSync(join(dir, '.walkeep-store', 'new')).some(
          (name) => statSync(join(dir, '.walkeep-store', 'new', name)).size > 0,
        );
      async function* dying() {
        yield half;
        await waitFor(arrived);
        sshd.kill();
        yield rest;
      }
      const content = { ...contentOf(bytes), open: dying };
      try {
        await expect(store.create('a', content)).rejects.toThrow(StoreUncertainError);
        expect(await local.head('a')).toBeUndefined();
      } finally {
        await sshd.restart();
      }
      expect(await store.create('a', contentOf(bytes))).toEqual({ created: true });
      // What the killed server left goes with the next one.
      expect(readdirSync(join(dir, '.walkeep-store', 'new'))).toEqual([]);
      expect(Buffer.compare((await whole(store, 'a'))!, bytes)).toBe(0);
      await store.close();
    });

    it('is made anew, and what was asked is asked again', async () => {
      const dir = scratchDir();
      await openFileStore(dir, { init: true });
      const store = open(dir, { backOff: 50, attempts: 8 });
      const tries: number[] = [];
      async function* dyingOnce() {
        tries.push(tries.length);
        yield half;
        if (tries.length === 1) {
          sshd.kill();
          await sshd.restart();
        }
        yield rest;
      }
      const content = { ...contentOf(bytes), open: dyingOnce };
      expect(await store.create('a', content)).toEqual({ created: true });
      expect(tries.length).toBeGreaterThan(1);
      // More than one side has under way before the other side has read some of it.
      const names = Array.from({ length: 20_000 }, (_, i) => `k${i}`.padEnd(100, '-')).sort();
      for (const name of names) writeFileSync(join(dir, name), '');
      const seen: string[] = [];
      for await (const { key: name } of store.list('k')) {
        seen.push(name);
        if (seen.length !== 10) continue;
        sshd.kill();
        await sshd.restart();
        expect(sshd.servers()).toEqual([]);
      }
      expect(seen.length).toBe(names.length);
      expect(seen).toEqual(names);
      expect(sshd.servers()).toHaveLength(1);
      await store.close();
    });

    it('in the middle of a body is told', async () => {
      const dir = scratchDir();
      await openFileStore(dir, { init: true });
      const store = open(dir);
      await store.create('a', contentOf(randomBytes(8 * 1024 * 1024)));
      const got = await store.get('a');
      const read = async () => {
        let pieces = 0;
        for await (const _ of got!.body) if (++pieces === 1) sshd.kill();
      };
      try {
        await expect(read()).rejects.toThrow(StoreUncertainError);
      } finally {
        await sshd.restart();
      }
      expect((await whole(store, 'a'))?.length).toBe(8 * 1024 * 1024);
      await store.close();
    });

    it('is given up when the other side says nothing any more', async () => {
      const dir = scratchDir();
      const local = await openFileStore(dir, { init: true });
      await local.create('a', contentOf(bytes));
      const before = sshd.servers();
      const store = open(dir, { silence: 4000, attempts: 1 });
      expect(await store.head('a')).toBeDefined();
      const [server] = sshd.servers().filter((pid) => !before.includes(pid));
      process.kill(server as number, 'SIGSTOP');
      try {
        const calls = [
          store.head('a'),
          store.get('b'),
          store.create('b', contentOf(bytes)),
          keys(store.list('')),
        ];
        for (const result of await Promise.allSettled(calls)) {
          expect(result.status).toBe('rejected');
          expect((result as PromiseRejectedResult).reason).toBeInstanceOf(StoreUncertainError);
          expect(String((result as PromiseRejectedResult).reason)).toMatch(/no answer for 4 s/);
        }
        // The next one starts anew.
        expect((await whole(store, 'a'))?.length).toBe(bytes.length);
      } finally {
        process.kill(server as number, 'SIGKILL');
      }
      await store.close();
    });

    it('has a deadline with all its tries', async () => {
      const place = parsePlace(`ssh://127.0.0.1:1/srv`) as SshPlace;
      const env = sshd.env(key);
      const store = openSshStore(place, { env, attempts: 1e9, backOff: 20, timeout: 1500 });
      await expect(store.head('a')).rejects.toThrow(/no answer within 1.5 s/);
      await store.close();
    });
  });

  it('ends a server whose client is killed, and nothing is half there', async () => {
    const dir = scratchDir();
    const local = await openFileStore(dir, { init: true });
    const program = `
      import { openSshStore } from ${JSON.stringify(join(packageRoot, 'dist/store/ssh/ssh-store.js'))};
      import { contentOf } from ${JSON.stringify(join(packageRoot, 'dist/store/content.js'))};
      const store = openSshStore(${JSON.stringify(parsePlace(sshd.place(dir)))});
      for (let i = 0; ; i++) {
        await store.create('k' + i, contentOf(Buffer.alloc(1_000_000, i)));
        console.log(i);
      }`;
    for (const least of [0, 3]) {
      const before = sshd.servers();
      const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
        env: sshd.env(key),
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      killAtEnd(child);
      let [said, complaint, ended] = ['', '', false];
      child.stdout.setEncoding('utf8').on('data', (t) => {
        said += t;
      });
      child.stderr.setEncoding('utf8').on('data', (t) => {
        complaint += t;
      });
      child.once('close', () => {
        ended = true;
      });
      await waitFor(() => ended || said.split('\n').length > least + 1);
      expect(ended, complaint).toBe(false);
      child.kill('SIGKILL');
      await waitFor(() => sshd.servers().every((pid) => before.includes(pid)));
      const acknowledged = said.split('\n').length - 1;
      const there = await keys(local.list(''));
      expect(there.length).toBeGreaterThanOrEqual(acknowledged);
      for (const name of there) {
        const number = Number(name.slice(1));
        expect((await whole(local, name))?.equals(Buffer.alloc(1_000_000, number))).toBe(true);
      }
      await local.remove(there);
    }
    await local.create('last', contentOf(Buffer.from('x')));
  });
});
