import { type ChildProcess, spawn } from 'node:child_process';
import fsp from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TargetError } from '../errors.js';
import type { Owner } from '../restore/file-system.js';
import { killServerIn } from './leftover-server.js';
import { PORT, type Scratch } from './scratch.js';

/**
 * Runs the server and reads a pipe that only the rehearsal holds the other end of. However that
 * ends, killed as well, the pipe ends with it, and the server is stopped at once. The signal is sent
 * until the server is gone: in its first moments it takes none.
 */
const GUARD = `
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
( read -r none <&3; while kill -QUIT "$server" 2>/dev/null; do sleep 1; done ) &
reader=$!
wait "$server"
code=$?
kill "$reader" 2>/dev/null
exit "$code"
`;

const LOOK_EVERY = 20;

export interface ServerOptions {
  bin: string;
  scratch: Scratch;
  owner: Owner | undefined;
  major: number;
  promote: boolean;
  keepPreload: boolean;
  settings: Readonly<Record<string, string>>;
}

/** The settings with which nobody outside notices the server: they win over those of files. */
export function guardedSettings(options: Omit<ServerOptions, 'bin' | 'owner'>): [string, string][] {
  const { scratch, major, promote, keepPreload, settings } = options;
  const all: Record<string, string> = {
    listen_addresses: '',
    port: `${PORT}`,
    unix_socket_directories: `"${scratch.socket.replaceAll('"', '""')}"`,
    unix_socket_group: '',
    unix_socket_permissions: '0700',
    hba_file: scratch.hba,
    ident_file: scratch.ident,
    external_pid_file: '',
    ssl: 'off',
    hot_standby: 'on',
    // What leaves the machine, or changes something there.
    archive_mode: 'off',
    primary_conninfo: '',
    primary_slot_name: '',
    synchronous_standby_names: '',
    max_logical_replication_workers: '0',
    // A query that looks is not to be ended by one that was logged later.
    max_standby_archive_delay: '-1',
    restart_after_crash: 'off',
    zero_damaged_pages: 'off',
    ignore_checksum_failure: 'off',
    huge_pages: 'try',
    cluster_name: 'walkeep rehearse',
    // What is read in the log.
    logging_collector: 'off',
    log_destination: 'stderr',
    log_min_messages: 'warning',
    log_line_prefix: '%m ',
    log_statement: 'none',
    log_min_duration_statement: '-1',
    log_connections: 'off',
    log_disconnections: 'off',
    lc_messages: 'C',
  };
  if (!keepPreload) {
    all.shared_preload_libraries = '';
    all.session_preload_libraries = '';
    all.local_preload_libraries = '';
  }
  if (major < 15) all.stats_temp_directory = 'pg_stat_tmp';
  if (major >= 17) {
    all.sync_replication_slots = 'off';
    all.event_triggers = 'off';
  }
  // Autovacuum of a promoted server would change what is compared.
  if (promote) all.autovacuum = 'off';
  return Object.entries({ ...all, ...settings });
}

/** A server of a restored directory. */
export class RehearsalServer {
  readonly #child: ChildProcess;
  readonly #scratch: Scratch;
  readonly #ended: Promise<void>;
  #running = true;

  private constructor(child: ChildProcess, scratch: Scratch, ended: Promise<void>) {
    this.#child = child;
    this.#scratch = scratch;
    this.#ended = ended.then(() => {
      this.#running = false;
    });
  }

  /** Starts it and waits for nothing. @throws TargetError */
  static async spawn(options: ServerOptions): Promise<RehearsalServer> {
    const { bin, scratch, owner } = options;
    const log = await fsp.open(scratch.log, 'a', 0o600);
    try {
      const settings = guardedSettings(options).flatMap(([name, value]) => [
        '-c',
        `${name}=${value}`,
      ]);
      const command = [join(bin, 'postgres'), '-D', scratch.dataDir, ...settings];
      const child = spawn('/bin/sh', ['-c', GUARD, 'walkeep-rehearse', ...command], {
        ...owner,
        cwd: scratch.dataDir,
        // Ctrl-C in the terminal is for us, and we stop the server.
        detached: true,
        stdio: ['pipe', log.fd, log.fd],
        env: { ...inherited(), LC_ALL: 'C' },
      });
      child.stdin?.on('error', () => {});
      const ended = new Promise<void>((resolve, reject) => {
        child.once('error', (cause) => {
          reject(new TargetError(`could not run "${command[0]}": ${cause.message}`, { cause }));
        });
        child.once('exit', () => resolve());
      });
      const server = new RehearsalServer(child, scratch, ended);
      server.#ended.catch(() => {});
      if (child.pid === undefined) await server.#ended;
      return server;
    } finally {
      await log.close();
    }
  }

  get running(): boolean {
    return this.#running;
  }

  /** Resolves true when recovery has begun, false if the server has ended. */
  async begun(signal: AbortSignal): Promise<boolean> {
    while (this.#running) {
      const path = join(this.#scratch.dataDir, 'postmaster.pid');
      const text = await fsp.readFile(path, 'utf8').catch(() => '');
      // LOCK_FILE_LINE_PM_STATUS
      if (/^(starting|standby|ready)/.test(text.split('\n')[7] ?? '')) return true;
      await this.pause(signal, LOOK_EVERY);
    }
    return false;
  }

  /** Waits that long, or until the server ends. @throws the signal's reason */
  async pause(signal: AbortSignal, milliseconds: number): Promise<void> {
    signal.throwIfAborted();
    const stop = new AbortController();
    const any = AbortSignal.any([signal, stop.signal]);
    await Promise.race([
      delay(milliseconds, undefined, { signal: any }).catch(() => {}),
      this.#ended,
    ]);
    stop.abort();
    signal.throwIfAborted();
  }

  /** Stops it without writing anything more; resolves when no process of it is left. */
  async stop(): Promise<void> {
    this.#child.stdin?.end();
    // Of the guard that is killed nobody would hear.
    await killServerIn(this.#scratch.dataDir);
    await this.#ended.catch(() => {});
  }
}

/** Without what libpq, or the server, would take for settings of ours. */
export function inherited(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(?:PG|LC_)/.test(name)),
  );
}
