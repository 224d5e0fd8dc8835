import { type SpawnSyncOptions, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, dirname, join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { copyPackage } from '../support/package-copy.js';
import { killAtEnd, packageRoot, scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

// `bin/walkeep` as users and PostgreSQL run it: as a program, by its first line. All other tests
// give it to a node of their own.
vi.setConfig({ testTimeout: 60_000 });

const BIN = join(packageRoot, 'bin', 'walkeep');
/** What the commands end with when nothing is known. */
const FAILURE = {
  ...{ fetch: 127, push: 1, verify: 2, find: 2, check: 2, cleanup: 2, list: 1, slot: 1 },
  ...{ key: 2, status: 2 },
};
const COMMANDS = Object.keys(FAILURE) as (keyof typeof FAILURE)[];

type Words = readonly [string, ...string[]];
/** Shells that can be /bin/sh, as far as they are installed. */
const SHELLS: readonly Words[] = [['dash'], ['bash'], ['busybox', 'sh'], ['mksh']];
const INSTALLED = SHELLS.filter(([sh, ...as]) => spawnSync(sh, [...as, '-c', ':']).status === 0);

function environment(more: Record<string, string> = {}): Record<string, string> {
  const path = [dirname(process.execPath), process.env.PATH].join(delimiter);
  return { PATH: path, HOME: scratchDir('home'), ...more };
}

function run(command: readonly string[], options: SpawnSyncOptions = {}) {
  const [program, ...args] = command as [string, ...string[]];
  const { status, signal, stdout, stderr } = spawnSync(program, args, {
    env: environment(),
    ...options,
    encoding: 'utf8',
    timeout: 20_000,
  });
  return { status, signal, stdout, stderr };
}

/** An archive that has one file, and a place to bring it to. */
function archive() {
  const root = scratchDir('entry');
  chmodSync(root, 0o777);
  const dir = join(root, 'archive');
  mkdirSync(dir);
  writeFileSync(join(dir, '00000002.history'), '1\t0/3000000\tno recovery target specified\n');
  const target = join(root, 'RECOVERYHISTORY');
  return { root, dir, target, has: '00000002.history', lacks: '00000003.history' };
}

describe.each(INSTALLED.map((words) => [words[0], words] as const))('under %s', (_name, words) => {
  test('answers are 0 and 1, the rest as it is', () => {
    const { dir, target, has, lacks } = archive();
    const fetch = (...args: string[]) => run([...words, BIN, 'fetch', ...args]);
    expect(fetch(dir, has, target)).toEqual({ status: 0, signal: null, stdout: '', stderr: '' });
    expect(existsSync(target)).toBe(true);
    expect(fetch(dir, lacks, target)).toMatchObject({ status: 1, stderr: '' });
    expect(fetch(join(dir, 'x'), has, target).status).toBe(205);
    expect(fetch(dir, 'no-name', target).status).toBe(200);
    expect(run([...words, BIN, 'verify', join(dir, 'x')]).status).toBe(2);
    expect(run([...words, BIN, 'list', join(dir, 'x')]).status).toBe(1);
    for (const command of [[], ['receive'], ...COMMANDS.map((c) => [c])]) {
      const version = run([...words, BIN, ...command, '--version']);
      expect(version).toMatchObject({ status: 0, stderr: '' });
      expect(version.stdout).toMatch(/^walkeep \d/);
    }
    expect(run([...words, BIN]).status).toBe(1);
    expect(run([...words, BIN, 'no-command']).status).toBe(1);
  });

  test.each([
    '--require /nonexistent.cjs',
    '--import /nonexistent.mjs',
    '--no-such-option',
    '--version',
  ])('NODE_OPTIONS=%s is the failure of the command', (NODE_OPTIONS) => {
    for (const command of ['fetch', 'push', 'verify'] as const) {
      const { status } = run([...words, BIN, command, '--version'], {
        env: environment({ NODE_OPTIONS }),
      });
      expect([command, status]).toEqual([command, FAILURE[command]]);
    }
  });

  test('without node it says so', () => {
    const program = run(['sh', '-c', `command -v ${words[0]}`]).stdout.trim();
    for (const command of [...COMMANDS, 'receive']) {
      const { status } = run([program, ...words.slice(1), BIN, command, '--version'], {
        env: environment({ PATH: '/nonexistent' }),
      });
      expect([command, status]).toEqual([command, 127]);
    }
  });

  test.each([0, 1])('a module that ends node with %i has answered nothing', (code) => {
    const module = join(scratchDir('preload'), 'end.cjs');
    writeFileSync(module, `process.exit(${code});`);
    const env = environment({ NODE_OPTIONS: `--require ${module}` });
    for (const command of ['fetch', 'push', 'verify'] as const) {
      const { status } = run([...words, BIN, command, 'x'], { env });
      expect([command, status]).toEqual([command, FAILURE[command]]);
    }
  });

  test.each([0, 1, 2, 9, 42])('nor has a stand-in for node that ends with %i', (code) => {
    const root = scratchDir('stand-in');
    writeFileSync(join(root, 'node'), `#!/bin/sh\nexit ${code}\n`, { mode: 0o755 });
    const env = environment({ PATH: [root, process.env.PATH].join(delimiter) });
    for (const command of COMMANDS) {
      const { status } = run([...words, BIN, command, 'x'], { env });
      expect([command, status]).toEqual([command, FAILURE[command]]);
    }
  });

  test('no process, no descriptors', (context) => {
    if (process.getuid?.() !== 0) context.skip('needs root to become a user without processes');
    const { root, dir, target, has } = archive();
    const bin = join(copyPackage(), 'bin', 'walkeep');
    // The limit counts all processes of the user, so that it must be one that has no other.
    const uid = 54_000 + (process.pid % 1000);
    for (const limit of ['-u 1', '-n 13', '-n 16']) {
      const script = `ulimit ${limit} && exec ${words.join(' ')} "$@"`;
      const { status } = run(['bash', '-c', script, 'bash', bin, 'fetch', dir, has, target], {
        uid,
        gid: uid,
        cwd: root,
      });
      const answer = status === 0 && existsSync(target);
      expect([limit, status, answer || (status ?? 255) > 125]).toEqual([limit, status, true]);
      rmSync(target, { force: true });
    }
  });

  test('stdin is what it was, or closed', () => {
    const { dir, target, has } = archive();
    const out = join(dirname(target), 'stdin');
    const preload = join(dirname(target), 'read.cjs');
    writeFileSync(
      preload,
      `const fs = require('fs'); fs.writeFileSync(${JSON.stringify(out)}, fs.readFileSync(0));`,
    );
    const env = environment({ NODE_OPTIONS: `--require ${preload}` });
    const fetch = [...words, BIN, 'fetch', dir, has, target];
    expect(run(fetch, { env, input: 'a password\n' })).toMatchObject({ status: 0, stderr: '' });
    expect(readFileSync(out, 'utf8')).toBe('a password\n');
    rmSync(target);
    const closed = run(['bash', '-c', 'exec "$@" <&- >&- 2>&-', 'x', ...fetch]);
    expect(closed).toMatchObject({ status: 0 });
    expect(existsSync(target)).toBe(true);
  });

  test.each([
    ['SIGTERM', { code: null, signal: 'SIGTERM' }],
    ['SIGINT', { code: null, signal: 'SIGINT' }],
    ['SIGHUP', { code: 129, signal: null }],
    ['SIGQUIT', { code: 131, signal: null }],
  ] as const)('%s reaches node, and is what it ends with', async (signal, end) => {
    const { shellProcess, node, ended } = await waiting(words);
    shellProcess.kill(signal);
    expect(await ended).toEqual(end);
    expect(existsSync(`/proc/${node}`)).toBe(false);
  });

  test('node does not outlive it, nor its end go unnoticed', async () => {
    const first = await waiting(words);
    first.shellProcess.kill('SIGKILL');
    await waitFor(() => !existsSync(`/proc/${first.node}`), { what: 'node to end' });
    const second = await waiting(words);
    process.kill(second.node, 'SIGKILL');
    expect(await second.ended).toEqual({ code: 137, signal: null });
  });

  test('a receiver is the process that was started', async () => {
    const server = createServer(() => {}).listen(0, '127.0.0.1');
    try {
      await waitFor(() => server.listening);
      const { port } = server.address() as { port: number };
      const connected = new Promise((resolve) => server.once('connection', resolve));
      const [program, ...args] = words;
      const conninfo = `host=127.0.0.1 port=${port} user=x sslmode=disable`;
      const child = spawn(
        program,
        [...args, BIN, 'receive', '-D', scratchDir('wal'), '-d', conninfo],
        {
          env: environment(),
          stdio: 'ignore',
        },
      );
      killAtEnd(child);
      await connected;
      expect(readlinkSync(`/proc/${child.pid}/exe`)).toBe(realpathSync(process.execPath));
      const ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
      child.kill('SIGTERM');
      // By its own decision, not by the signal.
      expect(await ended).not.toBe(null);
    } finally {
      server.close();
      server.unref();
    }
  });
});

/** `fetch --wait` at work: the shell, and the node below it. */
async function waiting([program, ...before]: Words) {
  const { dir, target } = archive();
  // Behind all that the history speaks of: WAL that is missing before would end it at once.
  const name = '000000020000000000000009';
  const started = join(dirname(target), 'started');
  const preload = join(dirname(target), 'tell.cjs');
  writeFileSync(
    preload,
    // The first look for the segment: all handlers stand.
    `const fs = require('fs'); const { statSync } = fs;
     fs.statSync = (path, ...args) => {
       if (String(path).endsWith(${JSON.stringify(name)})) fs.writeFileSync(${JSON.stringify(started)}, '');
       return statSync(path, ...args);
     };`,
  );
  const args = [...before, BIN, 'fetch', '--wait=60', dir, name, target];
  const shellProcess = spawn(program, args, {
    // A group of its own: what is sent to one process is sent to no other.
    detached: true,
    stdio: 'ignore',
    env: environment({ NODE_OPTIONS: `--require ${preload}` }),
  });
  killAtEnd(shellProcess);
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    shellProcess.once('exit', (code, signal) => resolve({ code, signal }));
  });
  const { pid } = shellProcess;
  const node = await waitFor(
    () => {
      const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
      const child = Number(children.split(' ')[0]);
      // It has found that there is nothing to fetch yet, and looks again and again.
      return existsSync(started) && child;
    },
    { what: 'node below the shell' },
  );
  return { shellProcess, node, ended };
}

test('by links, relative paths, PATH, and with spaces in its path', () => {
  const { root, dir, target, has, lacks } = archive();
  const spaced = join(root, 'a place with "quotes" and spaces');
  cpSync(copyPackage(), spaced, { recursive: true });
  const bin = join(spaced, 'bin', 'walkeep');
  const link = join(root, 'walkeep');
  symlinkSync(bin, join(root, 'link to it'));
  symlinkSync('link to it', link);
  const check = (program: string, options: SpawnSyncOptions = {}) => {
    rmSync(target, { force: true });
    expect(run([program, 'fetch', dir, has, target], options)).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(existsSync(target)).toBe(true);
    expect(run([program, 'fetch', dir, lacks, target], options).status).toBe(1);
  };
  check(bin);
  check(link);
  check('./walkeep', { cwd: root });
  check('walkeep', { env: environment({ PATH: [root, environment().PATH].join(delimiter) }) });
});
