import { writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import type { Major } from './binaries.js';
import { giveToServer } from './scratch.js';

export interface ServerOptions {
  major: Major;
  /** wal_segment_size. Default 1: segments finish quickly. */
  segmentSizeMb?: number;
  /** More lines of postgresql.conf; values are quoted here. */
  settings?: Record<string, string>;
  /**
   * Lines of pg_hba.conf for everything but the superuser on the unix socket, which the harness
   * itself uses. Default: `auth` for all connections.
   */
  hba?: string[];
  /** Method of the default pg_hba.conf lines. Default trust. The password is `PASSWORD`. */
  auth?: 'trust' | 'scram-sha-256' | 'md5' | 'password';
  /** Copy every finished segment to `archiveDir` with archive_command: the reference. */
  archive?: boolean;
  /** Switch TLS on, with a certificate for localhost and 127.0.0.1. */
  tls?: boolean;
  /** The server's own fsync. Default false, for speed: no test cuts the power. */
  fsync?: boolean;
  /** More arguments of initdb; implies `fresh`. */
  initdbArgs?: string[];
  /** Run initdb for this server alone: another system identifier than all others. */
  fresh?: boolean;
  /** False only makes the data directory. Default true: started and ready. */
  start?: boolean;
}

/** The superuser's password where `auth` asks for one. */
export const PASSWORD = 'geheim';

/** A setting or conninfo value in single quotes. */
const quoted = (value: string) => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;

export async function writeSettings(
  dataDir: string,
  settings: Record<string, string>,
): Promise<void> {
  const file = join(dataDir, 'walkeep.conf');
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${quoted(value)}\n`);
  await writeFile(file, lines.join(''));
  giveToServer(file);
}

export async function writeHba(dataDir: string, options: ServerOptions): Promise<void> {
  const method = options.auth ?? 'trust';
  const lines = options.hba ?? [
    `local all all ${method}`,
    `local replication all ${method}`,
    `host all all 127.0.0.1/32 ${method}`,
    `host replication all 127.0.0.1/32 ${method}`,
  ];
  const ours = ['local all postgres trust', 'local replication postgres trust'];
  const file = join(dataDir, 'pg_hba.conf');
  await writeFile(file, `${[...ours, ...lines].join('\n')}\n`);
  giveToServer(file);
}

/** What every test server has, before `options.settings`. */
export function baseSettings(
  options: ServerOptions,
  paths: { port: number; socketDir: string; archiveDir: string },
): Record<string, string> {
  const onOff = (value: boolean | undefined) => (value ? 'on' : 'off');
  return {
    listen_addresses: '127.0.0.1',
    port: String(paths.port),
    unix_socket_directories: paths.socketDir,
    wal_level: 'replica',
    max_wal_senders: '10',
    max_replication_slots: '10',
    max_prepared_transactions: '10',
    max_connections: '30',
    shared_buffers: '16MB',
    wal_keep_size: '256MB',
    hot_standby: 'on',
    fsync: onOff(options.fsync),
    autovacuum: 'off',
    log_line_prefix: '%m [%p] %b %q%a ',
    log_replication_commands: 'on',
    ...(options.auth
      ? { password_encryption: options.auth === 'md5' ? 'md5' : 'scram-sha-256' }
      : {}),
    ...(options.archive
      ? {
          archive_mode: 'on',
          // Renamed when whole: what lies there under its name is complete.
          archive_command:
            `cp %p ${paths.archiveDir}/.%f.tmp && ` +
            `mv ${paths.archiveDir}/.%f.tmp ${paths.archiveDir}/%f`,
        }
      : {}),
    ...(options.tls ? { ssl: 'on', ssl_cert_file: 'server.crt', ssl_key_file: 'server.key' } : {}),
  };
}

/** `keyword='value' …` as libpq reads it. */
export function formatConninfo(keywords: Record<string, string | number>): string {
  return Object.entries(keywords)
    .map(([key, value]) => {
      const text = String(value);
      if (/^[\w./:-]+$/.test(text)) return `${key}=${text}`;
      return `${key}='${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
    })
    .join(' ');
}

/**
 * A port that nobody listens on, below the range that the kernel hands out to outgoing
 * connections: such a one could take it while the server restarts. No other test gets it as long as
 * this process lives, in whatever process it runs.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 15_000 + Math.floor(Math.random() * 17_000);
    if (await isReserved(port)) return port;
  }
}

async function isReserved(port: number): Promise<boolean> {
  // An abstract name of Linux: of one network, and gone with the process that holds it.
  const held = process.platform === 'linux' ? await listening(`\0walkeep-test-port-${port}`) : true;
  if (!held) return false;
  const probe = await listening(port);
  if (probe) await new Promise((resolve) => probe.close(resolve));
  else if (held !== true) held.close();
  return probe !== undefined;
}

/** A server there that keeps no process alive; undefined if somebody else listens. */
function listening(at: string | number): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer().unref();
    server.once('error', () => resolve(undefined));
    const ready = () => resolve(server);
    if (typeof at === 'number') server.listen(at, '127.0.0.1', ready);
    else server.listen(at, ready);
  });
}
