import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { giveToServer, serverUser } from '../test/support/scratch.js';
import { findTool } from '../test/support/tools.js';
import { waitFor } from '../test/support/wait.js';

const STANZA = 'bench';

/** A throw-away pgBackRest repository of one server's WAL, in a directory unless told otherwise. */
export class PgBackRest {
  readonly #command: readonly string[];
  readonly #dataDir: string;
  readonly #spool: string;

  private constructor(command: readonly string[], dataDir: string, spool: string) {
    this.#command = command;
    this.#dataDir = dataDir;
    this.#spool = spool;
  }

  /**
   * Undefined where pgBackRest is not installed. `compress` as its compress-type; `more` are settings
   * besides or instead.
   */
  static create(
    directory: string,
    dataDir: string,
    compress: 'none' | 'gz' | 'lz4' | 'zst',
    more: Readonly<Record<string, string>> = {},
  ): PgBackRest | undefined {
    const program = findTool('pgbackrest');
    if (!program) return undefined;
    mkdirSync(directory);
    giveToServer(directory);
    const config = join(directory, 'pgbackrest.conf');
    const spool = join(directory, 'spool');
    const settings = {
      'repo1-path': join(directory, 'repo'),
      'compress-type': compress,
      'lock-path': join(directory, 'lock'),
      'spool-path': spool,
      'log-level-file': 'off',
      'archive-async': 'n',
      ...more,
    };
    const lines = Object.entries(settings).map(([key, value]) => `${key}=${value}\n`);
    writeFileSync(config, `[global]\n${lines.join('')}\n[${STANZA}]\n`);
    const self = new PgBackRest(
      [program, `--config=${config}`, `--stanza=${STANZA}`],
      dataDir,
      spool,
    );
    self.#run([`--pg1-path=${dataDir}`, '--no-online', 'stanza-create']);
    return self;
  }

  #run(args: readonly string[]): void {
    const [program, ...first] = this.#command;
    execFileSync(program as string, [...first, ...args], {
      ...serverUser,
      stdio: 'pipe',
      cwd: '/',
    });
  }

  /** Stores WAL files. */
  push(paths: readonly string[]): void {
    for (const path of paths) this.#run([`--pg1-path=${this.#dataDir}`, 'archive-push', path]);
  }

  /**
   * Stores all that the server has marked as ready, by the asynchronous mode, and waits until it says
   * so of each.
   */
  async pushAhead(paths: readonly string[]): Promise<void> {
    this.push(paths.slice(0, 1));
    const done = join(this.#spool, 'archive', STANZA, 'out');
    const wanted = paths.map((path) => `${basename(path)}.ok`);
    await waitFor(() => wanted.every((name) => existsSync(join(done, name))), {
      what: 'all segments to be pushed',
      timeoutMs: 600_000,
      intervalMs: 2,
    });
  }

  /** Backs up the server, which is stopped. */
  backupStopped(): void {
    this.#run([`--pg1-path=${this.#dataDir}`, '--no-online', '--type=full', 'backup']);
  }

  /** The command that restores the backup. */
  restore(target: string): string[] {
    return [...this.#command, `--pg1-path=${target}`, '--type=none', 'restore'];
  }

  /** The command that fetches a segment; `dataDir` is the working directory of who calls it. */
  get(dataDir: string, name: string, target: string): string[] {
    return [...this.#command, `--pg1-path=${dataDir}`, 'archive-get', name, target];
  }

  /** The restore_command of a server in whatever directory. */
  get restoreCommand(): string {
    return [...this.#command, '--pg1-path="$PWD"', 'archive-get', '%f', '"%p"'].join(' ');
  }
}
