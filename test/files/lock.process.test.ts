import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { DirectoryLockedError } from '../../src/errors.js';
import { acquireDirectoryLock, LOCK_FILE, readLockHolder } from '../../src/files/lock.js';
import { ownIdentity, type ProcessIdentity } from '../../src/files/process-identity.js';
import { NO_LINK_ERRNOS, UNLINKED, withoutHardLinks } from '../support/no-links.js';
import { killAtEnd, packageRoot, scratchDir } from '../support/scratch.js';

const linux = process.platform === 'linux';
const built = join(packageRoot, 'dist/files/lock.js');

/** Why tests in own namespaces cannot run here. */
const noUnshare =
  spawnSync('unshare', ['-n', '-p', '--fork', 'true']).status === 0
    ? ''
    : ' (unshare(1) is absent or not permitted)';

/** Answers every directory it is sent with how locking it went, and holds what it got. */
const child = (links: boolean) => `
${links ? '' : "import { createRequire } from 'node:module'; const require = createRequire('/');"}
${links ? '' : UNLINKED}
import { acquireDirectoryLock } from ${JSON.stringify(pathToFileURL(built).href)};
process.on('message', async (dir) => {
  try {
    await acquireDirectoryLock(dir, { graceMs: 0 });
    process.send('won');
  } catch (e) {
    process.send(e.code + ' ' + e.message + ' ' + (e.detail ?? ''));
  }
});
process.send('ready');
`;

class Contender {
  readonly #child: ChildProcess;
  constructor(wrapper: string[] = [], links = true) {
    const command = [...wrapper, process.execPath, '--input-type=module', '-e', child(links)];
    this.#child = spawn(command[0] as string, command.slice(1), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    killAtEnd(this.#child);
  }
  answer(): Promise<string> {
    return new Promise((resolve) => this.#child.once('message', (m) => resolve(String(m))));
  }
  async lock(path: string): Promise<string> {
    const answer = this.answer();
    this.#child.send(path);
    return answer;
  }
  kill(): Promise<void> {
    return new Promise((resolve) => {
      this.#child.once('exit', () => resolve());
      this.#child.kill('SIGKILL');
    });
  }
}

async function contenders(
  count: number,
  wrapper?: string[],
  links?: boolean,
): Promise<Contender[]> {
  const all = Array.from({ length: count }, () => new Contender(wrapper, links));
  await Promise.all(all.map((c) => c.answer()));
  return all;
}

beforeAll(() => {
  if (!existsSync(built)) throw new Error('run "npm run build" first: processes are started');
});

let dir: string;
beforeEach(() => {
  dir = scratchDir('lock');
});

const stale = async (path: string, changes: Partial<ProcessIdentity> = {}) => {
  const identity = { ...(await ownIdentity()), startTime: '1', ...changes };
  await writeFile(join(path, LOCK_FILE), JSON.stringify(identity));
  return identity;
};

/** The lock as it is made where there are no hard links. */
const asDirectory = async (path: string) => {
  const lock = join(path, LOCK_FILE);
  const content = await readFile(lock);
  await rm(lock);
  await mkdir(lock);
  await writeFile(join(lock, 'owner'), content);
};

it.runIf(linux)('without a name it still keeps others out, until it is released', async () => {
  const [other] = (await contenders(1)) as [Contender];
  const lock = await acquireDirectoryLock(dir, { graceMs: 0 });
  await lock.leaveNoName();
  expect(await readdir(dir)).toEqual([]);
  expect(await other.lock(dir)).toContain('WK_LOCKED');
  await lock.release();
  expect(await other.lock(dir)).toBe('won');
  const names = await readdir(dir);
  // Nothing of one that has it now is removed.
  await lock.leaveNoName();
  await lock.release();
  expect(await readdir(dir)).toEqual(names);
  await other.kill();
});

describe.each(NO_LINK_ERRNOS)('a file system without hard links: %s', (errno) => {
  withoutHardLinks(errno);

  it('locks, refuses a second one, and leaves nothing behind', async () => {
    const lock = await acquireDirectoryLock(dir);
    const error = await acquireDirectoryLock(dir, { graceMs: 0 }).catch((e) => e);
    expect(error).toBeInstanceOf(DirectoryLockedError);
    expect(error.message).toContain(`pid ${process.pid}`);
    expect(await readLockHolder(dir)).toMatchObject({ pid: process.pid, state: 'alive' });
    expect((await readdir(dir)).every((name) => name.startsWith('.'))).toBe(true);
    await lock.release();
    expect(await readdir(dir)).toEqual([]);
  });

  it.runIf(linux)('takes a stale lock over, of either kind', async () => {
    for (const kind of ['file', 'directory']) {
      await stale(dir);
      if (kind === 'directory') await asDirectory(dir);
      await (await acquireDirectoryLock(dir, { graceMs: 0 })).release();
      expect(await readdir(dir)).toEqual([]);
    }
  });

  it('takes what a crash left of a lock that was given up', async () => {
    await mkdir(join(dir, LOCK_FILE));
    await (await acquireDirectoryLock(dir, { graceMs: 0 })).release();
    expect(await readdir(dir)).toEqual([]);
  });

  it('does not take one over that may be alive, or names nobody', async () => {
    await stale(dir, { host: 'elsewhere', bootId: 'other' });
    await asDirectory(dir);
    const taken = acquireDirectoryLock(dir, { graceMs: 0 });
    await expect(taken).rejects.toThrow(/on host elsewhere/);
    await writeFile(join(dir, LOCK_FILE, 'owner'), '');
    const nameless = acquireDirectoryLock(dir, { graceMs: 0 });
    await expect(nameless).rejects.toMatchObject({ detail: expect.stringContaining('not say') });
  });
});

it.runIf(linux)('an archive that was copied to where there are hard links', async () => {
  await stale(dir);
  await asDirectory(dir);
  await (await acquireDirectoryLock(dir, { graceMs: 0 })).release();
  expect(await readdir(dir)).toEqual([]);
});

describe('one process', () => {
  it('locks, refuses a second one, and leaves nothing behind', async () => {
    const lock = await acquireDirectoryLock(dir);
    const error = await acquireDirectoryLock(dir, { graceMs: 0 }).catch((e) => e);
    expect(error).toBeInstanceOf(DirectoryLockedError);
    expect(error.message).toBe(
      `directory "${dir}" is in use by another receiver (pid ${process.pid} on host ${hostname()})`,
    );
    expect((await readdir(dir)).every((name) => name.startsWith('.'))).toBe(true);
    await lock.release();
    await lock.release();
    expect(await readdir(dir)).toEqual([]);
    await (await acquireDirectoryLock(dir, { graceMs: 0 })).release();
  });

  it('waits for a hand-over', async () => {
    const first = await acquireDirectoryLock(dir);
    const second = acquireDirectoryLock(dir, { graceMs: 60_000 });
    const third = await acquireDirectoryLock(dir, { graceMs: 0 }).catch((e) => e);
    expect(third).toBeInstanceOf(DirectoryLockedError);
    await first.release();
    await (await second).release();
  });

  it('stops waiting when told to', async () => {
    const lock = await acquireDirectoryLock(dir);
    const controller = new AbortController();
    const waiting = acquireDirectoryLock(dir, { graceMs: 60_000, signal: controller.signal });
    controller.abort(new Error('stop'));
    await expect(waiting).rejects.toThrow('stop');
    await lock.release();
  });

  it('does not remove a lock file that is not its own any more', async () => {
    const lock = await acquireDirectoryLock(dir);
    const other = await stale(dir, { host: 'elsewhere', bootId: 'other' });
    await lock.release();
    expect(JSON.parse(await readFile(join(dir, LOCK_FILE), 'utf8'))).toEqual(other);
  });

  it('fails with a typed error where there is no directory', async () => {
    await expect(acquireDirectoryLock(join(dir, 'missing'))).rejects.toMatchObject({
      code: 'WK_STORAGE',
      hint: 'Make it first, once its disk is mounted.',
    });
  });

  it.runIf(linux)('is kept by the socket when the lock file was removed by hand', async () => {
    const lock = await acquireDirectoryLock(dir);
    await rm(join(dir, LOCK_FILE));
    await expect(acquireDirectoryLock(dir, { graceMs: 0 })).rejects.toThrow(DirectoryLockedError);
    await lock.release();
  });

  it('takes a directory whose path is longer than a socket address', async () => {
    const long = join(dir, 'x'.repeat(120));
    await mkdir(long);
    const lock = await acquireDirectoryLock(long);
    expect((await readdir(long)).some((name) => name.endsWith('.sock'))).toBe(linux);
    await lock.release();
  });
});

describe('a stale lock', () => {
  it.runIf(linux).each([
    ['of a younger process with that pid', {}],
    ['of an earlier boot', { bootId: 'earlier', pid: 1 }],
    ['of a process that is gone', { pid: 2 ** 22 + 1 }],
  ])('is taken over: %s', async (_name, changes) => {
    await stale(dir, changes);
    const lock = await acquireDirectoryLock(dir, { graceMs: 0 });
    await lock.release();
    expect(await readdir(dir)).toEqual([]);
  });

  it.each([
    ['of another host', { host: 'elsewhere', bootId: 'other' }],
    ['of a container that cannot be seen', { pidNamespace: 'pid:[1]' }],
  ])('is not taken over: %s', async (_name, changes) => {
    await stale(dir, changes);
    const error = await acquireDirectoryLock(dir, { graceMs: 0 }).catch((e) => e);
    expect(error).toBeInstanceOf(DirectoryLockedError);
    expect(error.hint).toContain(`remove the file "${join(dir, LOCK_FILE)}"`);
  });

  it('is not taken over when it names nobody', async () => {
    await writeFile(join(dir, LOCK_FILE), '');
    await expect(acquireDirectoryLock(dir, { graceMs: 0 })).rejects.toMatchObject({
      message: `directory "${dir}" is in use by another receiver`,
      detail: expect.stringContaining('does not say'),
    });
  });

  it.runIf(linux)('is taken over though an earlier take-over crashed half-way', async () => {
    const first = await stale(dir);
    const claim = join(dir, `${LOCK_FILE}.${first.token}`);
    await writeFile(claim, JSON.stringify({ ...(await ownIdentity()), startTime: '2' }));
    const lock = await acquireDirectoryLock(dir, { graceMs: 0 });
    await lock.release();
    expect(await readdir(dir)).toEqual([]);
  });

  it('goes with the leftovers of crashes, once they are old', async () => {
    const old = join(dir, `${LOCK_FILE}.leftover.tmp`);
    await writeFile(old, '');
    await writeFile(join(dir, `${LOCK_FILE}.young.tmp`), '');
    await utimes(old, 1, 1);
    await (await acquireDirectoryLock(dir)).release();
    expect(await readdir(dir)).toEqual([`${LOCK_FILE}.young.tmp`]);
  });
});

describe.runIf(linux)('several processes', () => {
  it('a killed owner gives the directory free', async () => {
    const [first, second] = (await contenders(2)) as [Contender, Contender];
    expect(await first.lock(dir)).toBe('won');
    expect(await second.lock(dir)).toMatch(/^WK_LOCKED .*\(pid \d+ on host/);
    await first.kill();
    expect(await second.lock(dir)).toBe('won');
    await second.kill();
  });

  const race = async (rounds: number, wrapper?: string[], links?: boolean) => {
    const all = await contenders(8, wrapper, links);
    for (let round = 0; round < rounds; round++) {
      const path = join(dir, String(round));
      await mkdir(path);
      await stale(path);
      if (round % 2 === 1 && links === false) await asDirectory(path);
      const answers = await Promise.all(all.map((c) => c.lock(path)));
      expect(answers.filter((a) => a === 'won')).toHaveLength(1);
      expect(answers.filter((a) => a.startsWith('WK_LOCKED'))).toHaveLength(7);
    }
    await Promise.all(all.map((c) => c.kill()));
  };

  it('one of eight gets a stale lock', () => race(20), 120_000);

  it.skipIf(noUnshare !== '')(
    `one of eight gets a stale lock without the abstract socket${noUnshare}`,
    () => race(20, ['unshare', '-n']),
    120_000,
  );

  it('one of eight gets a stale lock without hard links', () => race(20, [], false), 120_000);

  it.skipIf(noUnshare !== '')(
    `one of eight gets a stale lock without hard links and the abstract socket${noUnshare}`,
    () => race(20, ['unshare', '-n'], false),
    120_000,
  );

  it.skipIf(noUnshare !== '')(
    `containers see each other, alive and dead${noUnshare}`,
    async () => {
      const container = ['unshare', '-n', '-p', '--fork', '--kill-child'];
      const [first] = (await contenders(1, container)) as [Contender];
      const [second] = (await contenders(1, container)) as [Contender];
      expect(await first.lock(dir)).toBe('won');
      expect(await second.lock(dir)).toMatch(/^WK_LOCKED/);
      await first.kill();
      await expect.poll(() => second.lock(dir), { timeout: 60_000 }).toBe('won');
      await second.kill();
    },
    120_000,
  );
});
