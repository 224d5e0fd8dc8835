import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { killAtEnd, packageRoot, scratchDir } from './scratch.js';

export interface CliOptions {
  /** Which executable of bin/. Default walkeep. */
  program?: 'walkeep' | 'pg_receivewal';
  /** More environment; PG* variables of our own environment are never passed on. */
  env?: Record<string, string>;
  /** Text for stdin, which is then closed. Without it stdin is empty. */
  input?: string;
  /** User to run as, where we are root. */
  uid?: number;
  /** Its group; default: of the same number. */
  gid?: number;
  cwd?: string;
  /** Another package than that of the sources, as `copyPackage` makes. */
  root?: string;
  /** Another node than the one that runs the tests. */
  node?: string;
  /** Arguments for node itself, before the executable. */
  nodeArgs?: string[];
}

export interface ExitStatus {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A built executable of bin/ that runs as a child; ends with this process at the latest. */
export class CliRun {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  /** Resolves when the child has ended and all its output is here. */
  readonly exit: Promise<ExitStatus>;
  #ended = false;
  readonly #command: string;

  constructor(args: string[], options: CliOptions) {
    const program = options.program ?? 'walkeep';
    this.#command = [program, ...args].join(' ');
    const inherited = Object.entries(process.env).filter(
      ([name]) => !/^(PG|NODE_|VITEST)/.test(name),
    );
    this.child = spawn(
      options.node ?? process.execPath,
      [...(options.nodeArgs ?? []), join(options.root ?? packageRoot, 'bin', program), ...args],
      {
        ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.gid ?? options.uid }),
        cwd: options.cwd ?? '/',
        // An own home: no ~/.pgpass or service file of whoever runs the tests.
        env: { ...Object.fromEntries(inherited), HOME: home(), ...options.env },
        stdio: ['pipe', 'pipe', 'pipe'],
      },
    );
    killAtEnd(this.child);
    this.child.stdout?.setEncoding('utf8').on('data', (text) => {
      this.stdout += text;
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text) => {
      this.stderr += text;
    });
    this.child.stdin?.on('error', () => {});
    this.child.stdin?.end(options.input ?? '');
    this.exit = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        this.#ended = true;
        resolve({ code, signal });
      });
    });
    this.exit.catch(() => {});
  }

  get pid(): number {
    return this.child.pid as number;
  }

  get running(): boolean {
    return !this.#ended;
  }

  /** Waits until stderr and stdout together match; rejects with the output if the child ends. */
  async waitForOutput(pattern: RegExp, timeoutMs = 60_000): Promise<RegExpExecArray> {
    const find = () => pattern.exec(this.stderr) ?? pattern.exec(this.stdout);
    return new Promise((resolve, reject) => {
      const check = () => {
        const match = find();
        if (match) finish(() => resolve(match));
      };
      const fail = (why: string) =>
        finish(() =>
          reject(
            new Error(`${this.#command}: ${why} ${pattern}\n${this.stderr}\n${this.stdout}`.trim()),
          ),
        );
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        this.child.stdout?.off('data', check);
        this.child.stderr?.off('data', check);
        this.child.off('close', closed);
        settle();
      };
      const closed = () => {
        check();
        fail('ended without');
      };
      const timer = setTimeout(() => fail(`within ${timeoutMs} ms no`), timeoutMs);
      this.child.stdout?.on('data', check);
      this.child.stderr?.on('data', check);
      this.child.on('close', closed);
      if (this.#ended) closed();
      else check();
    });
  }

  /** Sends a signal and waits for the end. */
  async stop(signal: NodeJS.Signals = 'SIGINT'): Promise<ExitStatus> {
    if (!this.#ended) this.child.kill(signal);
    return this.exit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop('SIGKILL');
  }
}

let homeDir: string | undefined;
function home(): string {
  homeDir ??= scratchDir('home');
  return homeDir;
}

/** Starts an executable of bin/ (build first). Await `.exit` for one that ends by itself. */
export function runCli(args: string[], options: CliOptions = {}): CliRun {
  return new CliRun(args, options);
}

/** What was folded to the width of a terminal, as one line. */
export const unfolded = (text: string): string => text.replaceAll(/\s+/g, ' ');
