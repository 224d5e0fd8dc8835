import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { appendFile, chmod, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { copyRunningServer } from './base-backup.js';
import { binDir } from './binaries.js';
import { CertificateAuthority } from './certificates.js';
import { childrenOf, isRunning, signal } from './processes.js';
import { giveToServer, killAtEnd, removeScratch, scratchDir, serverUser } from './scratch.js';
import {
  baseSettings,
  formatConninfo,
  freePort,
  PASSWORD,
  type ServerOptions,
  writeHba,
  writeSettings,
} from './server-config.js';
import { createDataDirectory } from './template.js';
import { waitFor } from './wait.js';

export { MAJORS, type Major, NEWEST_MAJOR, OUTER_MAJORS } from './binaries.js';
export { PASSWORD, type ServerOptions } from './server-config.js';

const run = promisify(execFile);

const STOP_SIGNAL = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const;

/** What a server made from a copy may have of its own; the rest is as the origin's. */
export type CopyOptions = Partial<
  Pick<ServerOptions, 'settings' | 'hba' | 'auth' | 'archive' | 'fsync' | 'start'>
>;

/** A real PostgreSQL with its own data directory, port and socket. End it with `destroy()`. */
export class PostgresServer {
  readonly options: ServerOptions;
  readonly major: ServerOptions['major'];
  readonly segmentSize: number;
  readonly port: number;
  readonly host = '127.0.0.1';
  readonly user = 'postgres';
  /** Everything of this server is below it. */
  readonly dir: string;
  readonly dataDir: string;
  /** Directory of the unix socket: a `host` for libpq. */
  readonly socketDir: string;
  /** Where archive_command copies to, when `archive` is set. */
  readonly archiveDir: string;
  /** Of the postmaster: what its archive_command and restore_command have, too. */
  environment: NodeJS.ProcessEnv;
  /** Set when `tls` is: `ca.cert` is the sslrootcert; `ca.issue(user)` makes client certificates. */
  ca: CertificateAuthority | undefined;
  /** The postmaster, while it runs. */
  #process: ChildProcess | undefined;
  #clients = new Set<pg.Client>();
  #settings: Record<string, string>;

  private constructor(options: ServerOptions, port: number) {
    this.options = options;
    this.major = options.major;
    this.segmentSize = (options.segmentSizeMb ?? 1) * 1024 * 1024;
    this.port = port;
    this.dir = scratchDir(`pg${options.major}`, { forServer: true });
    this.dataDir = join(this.dir, 'data');
    this.socketDir = this.dir;
    this.archiveDir = join(this.dir, 'archive');
    this.environment = { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC', HOME: this.dir };
    this.#settings = { ...baseSettings(options, this), ...options.settings };
  }

  /** A new cluster, started unless `start: false`. */
  static async create(options: ServerOptions): Promise<PostgresServer> {
    return PostgresServer.#make(options, async (server) => {
      await createDataDirectory(server.dataDir, {
        major: server.major,
        segmentSizeMb: options.segmentSizeMb ?? 1,
        fresh: options.fresh ?? false,
        initdbArgs: options.initdbArgs ?? [],
      });
      if (options.tls) await server.#installCertificate();
    });
  }

  static async #make(
    options: ServerOptions,
    fill: (server: PostgresServer) => Promise<void>,
  ): Promise<PostgresServer> {
    const server = new PostgresServer(options, await freePort());
    try {
      await mkdir(server.archiveDir);
      giveToServer(server.archiveDir);
      await fill(server);
      await writeHba(server.dataDir, options);
      await writeSettings(server.dataDir, server.#settings);
      if (options.start ?? true) await server.start();
      return server;
    } catch (error) {
      await server.destroy();
      throw error;
    }
  }

  async #installCertificate(): Promise<void> {
    const dir = join(this.dir, 'tls');
    await mkdir(dir, { mode: 0o755 });
    this.ca = await CertificateAuthority.create(dir);
    const pair = await this.ca.issue('localhost', ['DNS:localhost', 'IP:127.0.0.1']);
    const files = [
      [this.ca.cert, 'root.crt'],
      [pair.cert, 'server.crt'],
      [pair.key, 'server.key'],
    ] as const;
    for (const [from, name] of files) {
      const to = join(this.dataDir, name);
      await copyFile(from, to);
      await chmod(to, 0o600);
      giveToServer(to);
    }
    this.#settings = { ssl_ca_file: 'root.crt', ...this.#settings };
  }

  get running(): boolean {
    return this.#process !== undefined;
  }

  /** Process id of the postmaster. */
  get pid(): number {
    if (this.#process?.pid === undefined) throw new Error('the server is not running');
    return this.#process.pid;
  }

  /** Starts the server; resolves when it takes connections, rejects with its log if it ends. */
  async start(options: { timeoutMs?: number } = {}): Promise<void> {
    const child = this.spawn();
    await waitFor(
      async () => {
        if (this.#process !== child) return true;
        const lines = (await readFile(join(this.dataDir, 'postmaster.pid'), 'utf8')).split('\n');
        // Line 8, LOCK_FILE_LINE_PM_STATUS; "standby": in recovery and not open for queries.
        return Number(lines[0]) === child.pid && /^(ready|standby)/.test(lines[7] ?? '');
      },
      { what: 'the server to start', intervalMs: 5, timeoutMs: options.timeoutMs ?? 60_000 },
    );
    if (this.#process !== child) {
      throw new Error(`PostgreSQL ${this.major} did not start:\n${await this.log()}`);
    }
    if (this.options.auth && this.options.auth !== 'trust') {
      // Of a transaction that began in a recovery, which may have ended since.
      await this.sql(`DO $$ BEGIN IF current_setting('transaction_read_only') = 'off' THEN
        ALTER USER postgres PASSWORD '${PASSWORD}'; END IF; END $$`);
    }
  }

  /** Starts the postmaster without waiting for anything: for a server that is meant to fail. */
  spawn(): ChildProcess {
    if (this.#process) throw new Error('the server is running already');
    const log = openSync(join(this.dir, 'log'), 'a');
    const child = spawn(join(binDir(this.major), 'postgres'), ['-D', this.dataDir], {
      ...serverUser,
      cwd: this.dir,
      // Its own process group: Ctrl-C in the terminal is for us, not for the server.
      detached: true,
      stdio: ['ignore', log, log],
      env: this.environment,
    });
    closeSync(log);
    child.once('error', () => this.#ended(child));
    child.once('exit', () => this.#ended(child));
    child.unref();
    killAtEnd(child);
    this.#process = child;
    return child;
  }

  #ended(child: ChildProcess): void {
    if (this.#process === child) this.#process = undefined;
  }

  /** Resolves when the postmaster is gone, whoever ends it. */
  async waitStopped(timeoutMs = 60_000): Promise<void> {
    const stopped = () => !this.#process;
    try {
      await waitFor(stopped, { what: 'the server to stop', timeoutMs, intervalMs: 5 });
    } catch (cause) {
      const log = (await this.log()).split('\n').slice(-40).join('\n');
      throw new Error(`the server ${this.pid} does not stop; its log ends:\n${log}`, { cause });
    }
  }

  /** Asks the server to stop and waits. A fast stop waits for every walsender's client. */
  async stop(mode: keyof typeof STOP_SIGNAL = 'fast', timeoutMs = 60_000): Promise<void> {
    if (!this.#process) return;
    signal(this.pid, STOP_SIGNAL[mode]);
    await this.waitStopped(timeoutMs);
  }

  /** SIGKILL for the postmaster and all its children; resolves when the last one is gone. */
  async kill9(): Promise<void> {
    if (!this.#process) return;
    const pid = this.pid;
    // Stopped first, it cannot start another child between the listing and the kill.
    signal(pid, 'SIGSTOP');
    const pids = [pid, ...childrenOf(pid)];
    for (const one of pids) signal(one, 'SIGKILL');
    await this.waitStopped();
    await waitFor(() => !pids.some(isRunning), { what: 'killed processes to go', intervalMs: 2 });
  }

  async restart(mode: keyof typeof STOP_SIGNAL = 'fast'): Promise<void> {
    await this.stop(mode);
    await this.start();
  }

  /** A setting as the server's file has it; undefined where that leaves the default. */
  setting(name: string): string | undefined {
    return this.#settings[name];
  }

  /** Changes settings (undefined removes one) and reloads them if the server runs. */
  async configure(settings: Record<string, string | undefined>): Promise<void> {
    const all = Object.entries({ ...this.#settings, ...settings });
    this.#settings = Object.fromEntries(
      all.filter((e): e is [string, string] => e[1] !== undefined),
    );
    await writeSettings(this.dataDir, this.#settings);
    if (!this.#process) return;
    const [before] = await this.sql('SELECT pg_conf_load_time()::text AS t');
    signal(this.pid, 'SIGHUP');
    await waitFor(
      async () => (await this.sql('SELECT pg_conf_load_time()::text AS t'))[0]?.t !== before?.t,
      { what: 'the settings to be loaded' },
    );
  }

  /** A connected superuser session; ended with the server at the latest. */
  async client(config: pg.ClientConfig = {}): Promise<pg.Client> {
    const client = new pg.Client({
      host: this.socketDir,
      port: this.port,
      user: this.user,
      database: 'postgres',
      ...config,
    });
    // A killed server ends its clients; without a listener that would end the test process.
    client.on('error', () => {});
    await client.connect();
    this.#clients.add(client);
    client.once('end', () => this.#clients.delete(client));
    return client;
  }

  /** Runs one query in a session of its own and gives its rows. */
  // biome-ignore lint/suspicious/noExplicitAny: a row is what the query says
  async sql<T = Record<string, any>>(text: string, params?: unknown[]): Promise<T[]> {
    const client = await this.client();
    try {
      return (await client.query(text, params as never)).rows as T[];
    } finally {
      await client.end();
    }
  }

  async #value(expression: string): Promise<string> {
    const rows = await this.sql<{ v: string }>(`SELECT (${expression})::text AS v`);
    return rows[0]?.v as string;
  }

  /** On a primary the flush position, on a standby the replay position. */
  async currentLsn(): Promise<Lsn> {
    return parseLsn(
      await this.#value(
        'CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END',
      ),
    );
  }

  /** Ends the current segment and gives its file name. Never a no-op: writes a record first. */
  async switchWal(): Promise<string> {
    await this.sql("SELECT pg_logical_emit_message(false, 'walkeep', 'switch')");
    return this.#value('pg_walfile_name(pg_switch_wal())');
  }

  /** Name of the segment that holds the current write position. */
  async currentSegment(): Promise<string> {
    return this.#value('pg_walfile_name(pg_current_wal_lsn())');
  }

  async systemIdentifier(): Promise<string> {
    return this.#value('SELECT system_identifier FROM pg_control_system()');
  }

  /** Process ids of the walsenders, oldest first. */
  async walSenderPids(): Promise<number[]> {
    const rows = await this.sql<{ pid: number }>(
      "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender' ORDER BY backend_start",
    );
    return rows.map((row) => row.pid);
  }

  /** Waits until archive_command has stored a segment; gives the path of the copy. */
  async waitArchived(segment: string, timeoutMs = 60_000): Promise<string> {
    const file = join(this.archiveDir, segment);
    await waitFor(() => existsSync(file), { what: `${segment} to be archived`, timeoutMs });
    return file;
  }

  /** Promotes a standby; resolves with its new timeline when it takes writes. */
  async promote(): Promise<number> {
    // Without waiting: its snapshot could be in the way of what is still replayed.
    await this.sql('SELECT pg_promote(false)');
    await waitFor(async () => (await this.#value('NOT pg_is_in_recovery()')) === 'true', {
      what: 'the promotion',
    });
    return Number.parseInt((await this.currentSegment()).slice(0, 8), 16);
  }

  /** A copy of the running server's data directory, made with the backup functions. */
  async baseBackup(): Promise<string> {
    const target = join(scratchDir('base', { forServer: true }), 'data');
    const client = await this.client();
    try {
      await copyRunningServer(client, this.major, this.dataDir, target);
    } finally {
      await client.end();
    }
    return target;
  }

  /** A streaming standby of this server, from a base backup (made now unless given). */
  async createStandby(
    options: CopyOptions & { slot?: string; applicationName?: string; backup?: string } = {},
  ): Promise<PostgresServer> {
    const { slot, applicationName = 'standby', backup = await this.baseBackup(), ...own } = options;
    return this.#fromBackup(backup, 'standby.signal', own, {
      primary_conninfo: this.conninfo({ host: this.socketDir, application_name: applicationName }),
      wal_retrieve_retry_interval: '100ms',
      ...(slot ? { primary_slot_name: slot } : {}),
    });
  }

  /** A server that recovers from a base backup with `restoreCommand`; runs as the servers' user. */
  async recoverFrom(
    options: CopyOptions & {
      backup: string;
      restoreCommand: string;
      /** recovery_target…, for example `{ recovery_target_action: 'promote' }`. */
      targetSettings?: Record<string, string>;
      /** Go on as a standby at the end of the archive instead of becoming a primary. */
      standby?: boolean;
    },
  ): Promise<PostgresServer> {
    const { backup, restoreCommand, targetSettings, standby, ...own } = options;
    return this.#fromBackup(backup, standby ? 'standby.signal' : 'recovery.signal', own, {
      restore_command: restoreCommand,
      wal_retrieve_retry_interval: '100ms',
      ...targetSettings,
    });
  }

  /**
   * A server whose data directory `restore` makes, which is not there yet; it keeps its settings, but
   * for its port. Started by whoever calls this.
   */
  createRestored(
    restore: (dataDir: string) => Promise<void>,
    settings: Record<string, string> = {},
  ): Promise<PostgresServer> {
    const { initdbArgs, fresh, archive, start, ...origin } = this.options;
    const options = { ...origin, settings: { ...origin.settings, ...settings }, start: false };
    return PostgresServer.#make(options, (server) => restore(server.dataDir));
  }

  #fromBackup(
    backup: string,
    signalFile: string,
    own: CopyOptions,
    recovery: Record<string, string>,
  ): Promise<PostgresServer> {
    const { initdbArgs, fresh, archive, start, ...origin } = this.options;
    const settings = { ...origin.settings, ...recovery, ...own.settings };
    return PostgresServer.#make({ ...origin, ...own, settings }, async (server) => {
      await run('cp', ['-a', backup, server.dataDir]);
      const file = join(server.dataDir, signalFile);
      await writeFile(file, '');
      giveToServer(file);
      server.ca = this.ca;
      if (this.ca) server.#settings = { ssl_ca_file: 'root.crt', ...server.#settings };
    });
  }

  /** A conninfo string for TCP as the superuser; keywords given here win. */
  conninfo(keywords: Record<string, string | number> = {}): string {
    return formatConninfo({ host: this.host, port: this.port, user: this.user, ...keywords });
  }

  /** The same for libpq tools, as environment. */
  get env(): Record<string, string> {
    return { PGHOST: this.host, PGPORT: String(this.port), PGUSER: this.user };
  }

  /** What the server logged so far. */
  async log(): Promise<string> {
    return readFile(join(this.dir, 'log'), 'utf8').catch(() => '');
  }

  /** Appends lines to a file of the data directory, for settings that must come last. */
  async append(file: string, text: string): Promise<void> {
    await appendFile(join(this.dataDir, file), text);
  }

  /** Kills the server if it runs and removes all its files. */
  async destroy(): Promise<void> {
    await this.kill9();
    await Promise.all([...this.#clients].map((client) => client.end().catch(() => {})));
    removeScratch(this.dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }
}
