import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { giveToServer, serverUser } from '../test/support/scratch.js';
import { findTool } from '../test/support/tools.js';

const STANZA = 'bench';

/** A throw-away pgBackRest repository of one server's WAL, without the asynchronous mode. */
export class PgBackRest {
  readonly #command: readonly string[];
  readonly #dataDir: string;

  private constructor(command: readonly string[], dataDir: string) {
    this.#command = command;
    this.#dataDir = dataDir;
  }

  /** Undefined where pgBackRest is not installed. `compress` as its compress-type. */
  static create(
    directory: string,
    dataDir: string,
    compress: 'none' | 'gz',
  ): PgBackRest | undefined {
    const program = findTool('pgbackrest');
    if (!program) return undefined;
    mkdirSync(directory);
    giveToServer(directory);
    const config = join(directory, 'pgbackrest.conf');
    const settings = {
      'repo1-path': join(directory, 'repo'),
      'compress-type': compress,
      'lock-path': join(directory, 'lock'),
      'spool-path': join(directory, 'spool'),
      'log-level-file': 'off',
      'archive-async': 'n',
    };
    const lines = Object.entries(settings).map(([key, value]) => `${key}=${value}\n`);
    writeFileSync(config, `[global]\n${lines.join('')}\n[${STANZA}]\n`);
    const self = new PgBackRest([program, `--config=${config}`, `--stanza=${STANZA}`], dataDir);
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

  /** The command that fetches a segment; `dataDir` is the working directory of who calls it. */
  get(dataDir: string, name: string, target: string): string[] {
    return [...this.#command, `--pg1-path=${dataDir}`, 'archive-get', name, target];
  }

  /** The restore_command of a server in whatever directory. */
  get restoreCommand(): string {
    return [...this.#command, '--pg1-path="$PWD"', 'archive-get', '%f', '"%p"'].join(' ');
  }
}
