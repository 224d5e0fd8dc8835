import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { killAtEnd, packageRoot, scratchDir } from './scratch.js';
import { findTool } from './tools.js';
import { waitFor } from './wait.js';

const SSHD = ['/usr/sbin/sshd', '/usr/local/sbin/sshd', '/usr/lib/ssh/sshd'].find(existsSync);

/** Undefined where a real sshd and ssh can be used; else what is missing. */
export const sshMissing: string | undefined =
  SSHD === undefined
    ? 'sshd is missing'
    : ['ssh', 'ssh-keygen'].find((tool) => findTool(tool) === undefined)?.concat(' is missing');

export interface KeyOptions {
  /** What this key may run, whatever is asked for. */
  command?: string;
}

/** A real sshd on loopback, run by whoever runs the tests, with keys of its own. */
export class Sshd implements AsyncDisposable {
  readonly port: number;
  readonly #dir: string;
  #daemon: ChildProcess | undefined;
  /** Resolves when the daemon is gone. */
  #exit: Promise<unknown> = Promise.resolve();
  /** Daemons and their sessions. */
  readonly #killed: number[] = [];
  #log = '';
  #keys = 0;

  private constructor(dir: string, port: number) {
    this.#dir = dir;
    this.port = port;
  }

  static async start(): Promise<Sshd> {
    // Nobody but us may write above the keys: sshd looks.
    const dir = scratchDir('sshd');
    chmodSync(dir, 0o700);
    keygen(join(dir, 'host'));
    writeFileSync(join(dir, 'authorized_keys'), '', { mode: 0o600 });
    const port = await freePort();
    writeFileSync(
      join(dir, 'sshd_config'),
      [
        `Port ${port}`,
        'ListenAddress 127.0.0.1',
        `HostKey ${join(dir, 'host')}`,
        `PidFile ${join(dir, 'pid')}`,
        `AuthorizedKeysFile ${join(dir, 'authorized_keys')}`,
        'AuthenticationMethods publickey',
        'PermitRootLogin yes',
        'UsePAM no',
        // The temporary directory is everybody's.
        'StrictModes no',
        'MaxSessions 100',
        'MaxStartups 100',
        '',
      ].join('\n'),
    );
    const known = readFileSync(join(dir, 'host.pub'), 'utf8').split(' ').slice(0, 2).join(' ');
    writeFileSync(join(dir, 'known_hosts'), `[127.0.0.1]:${port} ${known}\n`);
    // It separates privileges below this; a package makes it at boot only.
    if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
    const sshd = new Sshd(dir, port);
    await sshd.#begin();
    return sshd;
  }

  get log(): string {
    return this.#log;
  }

  /** File that tells a client who this is. */
  get knownHosts(): string {
    return join(this.#dir, 'known_hosts');
  }

  /** Where a directory is, as a place. */
  place(directory: string): string {
    return `ssh://${userInfo().username}@127.0.0.1:${this.port}${directory}`;
  }

  /** Lets a new key in. */
  addKey({ command }: KeyOptions = {}): string {
    this.#keys += 1;
    const key = join(this.#dir, `key${this.#keys}`);
    keygen(key);
    const forced =
      command === undefined ? '' : `command="${command.replaceAll('"', '\\"')}",restrict `;
    const line = forced + readFileSync(`${key}.pub`, 'utf8');
    const all = join(this.#dir, 'authorized_keys');
    writeFileSync(all, readFileSync(all, 'utf8') + line, { mode: 0o600 });
    return key;
  }

  /** The environment of a client that has the key, and walkeep there as it was built here. */
  env(key: string, more: { knownHosts?: string; walkeep?: string } = {}): NodeJS.ProcessEnv {
    const options = [
      ['IdentityFile', key],
      ['IdentitiesOnly', 'yes'],
      ['UserKnownHostsFile', more.knownHosts ?? this.knownHosts],
      ['StrictHostKeyChecking', 'yes'],
      ['GlobalKnownHostsFile', '/dev/null'],
    ].map(([name, value]) => `-o '${name}=${value}'`);
    return {
      ...process.env,
      WALKEEP_RSH: `ssh -F none ${options.join(' ')}`,
      WALKEEP_REMOTE_COMMAND: more.walkeep ?? walkeepCommand,
    };
  }

  /**
   * Ends it with all its sessions, from one moment to the next, as a lost power does. They do nothing
   * more; that they are gone takes a moment, which `restart` waits for.
   */
  kill(): void {
    if (!this.#daemon || this.#daemon.exitCode !== null || this.#daemon.signalCode) return;
    // What stands still begins nothing between the look at its children and its end.
    const all = stopAll(this.#pid);
    this.#killed.push(...all);
    for (const pid of all) signal(pid, 'SIGKILL');
  }

  /** Processes of walkeep that serve a store here. */
  servers(): number[] {
    return descendants(this.#pid).filter((pid) => commandOf(pid).includes('\0--stdio\0'));
  }

  async restart(): Promise<void> {
    await this[Symbol.asyncDispose]();
    await this.#begin();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.#exit;
    await waitFor(() => !this.#killed.some(isRunning));
    this.#killed.length = 0;
  }

  get #pid(): number {
    return this.#daemon?.pid as number;
  }

  /** Starts a daemon, and waits until it says itself that it listens: another one may do so, too. */
  async #begin(): Promise<void> {
    await waitFor(async () => !(await isListening(this.port)));
    const daemon = spawn(SSHD as string, ['-D', '-e', '-f', join(this.#dir, 'sshd_config')], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    });
    killAtEnd(daemon);
    this.#daemon = daemon;
    this.#exit = once(daemon, 'exit');
    let said = '';
    await new Promise<void>((resolve, reject) => {
      daemon.once('close', (code) => reject(new Error(`sshd ended with ${code}: ${said}`)));
      daemon.stderr.setEncoding('utf8').on('data', (text) => {
        said += text;
        this.#log += text;
        if (said.includes(`Server listening on 127.0.0.1 port ${this.port}`)) resolve();
      });
    });
  }
}

/** For the shell there. */
export const walkeepCommand = `'${process.execPath}' '${join(packageRoot, 'bin', 'walkeep')}'`;

function keygen(path: string): void {
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', path]);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

const commandOf = (pid: number) => read(`/proc/${pid}/cmdline`);

/** A letter, behind a name in brackets that may have any. */
const stateOf = (pid: number) => /^.*\) (\w)/s.exec(read(`/proc/${pid}/stat`))?.[1] ?? '';

/** False also for what is dead and was not asked for its end by its parent yet. */
export const isRunning = (pid: number) => !/^[ZX]?$/.test(stateOf(pid));

const childrenOf = (pid: number) =>
  read(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean).map(Number);

/** Children, and theirs. */
function descendants(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendants(child)]);
}

/** Stops a process and all below it. Gives those that there are. */
function stopAll(pid: number): number[] {
  if (!signal(pid, 'SIGSTOP')) return [];
  // It runs on until it takes the signal.
  while (/^[RSD]$/.test(stateOf(pid)));
  return [pid, ...childrenOf(pid).flatMap(stopAll)];
}

/** False if it is gone already. */
function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

/** One for all tests of a suite, and the environment of somebody whom it lets in. */
export function sshdOfSuite(): { sshd: Sshd; env: Record<string, string> } {
  const own = {} as { sshd: Sshd; env: Record<string, string> };
  beforeAll(async () => {
    own.sshd = await Sshd.start();
    own.env = own.sshd.env(own.sshd.addKey()) as Record<string, string>;
  });
  afterAll(async () => {
    await own.sshd?.[Symbol.asyncDispose]();
  });
  return own;
}
