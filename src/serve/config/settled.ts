import { resolve } from 'node:path';
import { CODECS } from '../../codec/codecs.js';
import type { CompressionOption } from '../../receive/options.js';
import type {
  Listen,
  NotifyConfig,
  RetentionConfig,
  ServeConfig,
  ServerConfig,
  ServerStore,
  WebConfig,
  WorkConfig,
} from './config.js';
import { type ConfigFile, LISTEN } from './model.js';
import { COMPRESS, durationMs, TROUBLES } from './work-model.js';

/** Where nothing is said of it. */
const RPO = '30s';
const EXPIRE_AT = '45 4 * * *';
const HEARTBEAT = '1m';

type FileServer = ConfigFile['servers'][string];
type FileRetention = NonNullable<FileServer['retention']>;

/** A valid file with all its defaults. */
export function settled(file: ConfigFile): ServeConfig {
  const { control, web, metrics, notify = {}, defaults = {} } = file;
  const all = Object.entries(file.servers).map(([name, own]): [string, FileServer] => [
    name,
    { ...defaults, ...own },
  ]);
  const servers = all.map(([name, server]) => serverOf(name, server));
  return {
    ...(control ? { control } : {}),
    ...(web ? { web: webOf(web) } : {}),
    ...(metrics ? { metrics: listenOf(metrics.listen) } : {}),
    notify: notifyOf(notify),
    servers,
    work: all.map(([, own], i) => workOf(servers[i] as ServerConfig, own, file.stores ?? {})),
  };
}

function serverOf(name: string, server: FileServer): ServerConfig {
  const { slot, members } = server;
  return {
    name,
    connection: server.connection,
    directory: resolve(server.directory),
    ...(server.password_file === undefined ? {} : { passwordFile: server.password_file }),
    ...(slot === undefined ? {} : { slot }),
    ensureSlot: slot !== undefined && (server.ensure_slot ?? false),
    synchronous: server.synchronous ?? false,
    compression: compressionOf(server.compress ?? 'none'),
    ...(server.allow_group_access ? { allowGroupAccess: true as const } : {}),
    ...(members
      ? { members: { ...(members.hosts ? { hosts: members.hosts } : {}), slots: members.slots } }
      : {}),
  };
}

function workOf(
  server: ServerConfig,
  own: FileServer,
  stores: NonNullable<ConfigFile['stores']>,
): WorkConfig {
  const { rpo = RPO, verify = {}, backup, retention, rehearse, hooks = {} } = own;
  return {
    server,
    rpo: durationMs(rpo),
    stores: Object.entries(own.stores ?? {}).map(([name, { prefix, retention }]) => {
      const shared = stores[name] as (typeof stores)[string];
      return storeOf(name, shared, prefix, retention ?? own.retention);
    }),
    verify: defined({ quick: verify.quick, full: verify.full }),
    ...(backup
      ? {
          backup: {
            ...defined({
              full: backup.full,
              differential: backup.differential,
              incremental: backup.incremental,
              compress: backup.compress,
              maxAge: backup.max_age === undefined ? undefined : durationMs(backup.max_age),
            }),
            to: backup.to ?? 'directory',
            verifyPages: backup.verify_pages ?? false,
          },
        }
      : {}),
    ...(retention ? { retention: retentionOf(retention) } : {}),
    ...(rehearse
      ? {
          rehearse: {
            at: rehearse.at,
            from: rehearse.from ?? 'directory',
            sql: rehearse.sql ?? [],
            ...defined({
              dbname: rehearse.dbname,
              scratch: rehearse.scratch,
              pgBin: rehearse.pg_bin,
              timeout: rehearse.timeout === undefined ? undefined : durationMs(rehearse.timeout),
            }),
          },
        }
      : {}),
    hooks: defined(hooks),
  };
}

function storeOf(
  name: string,
  shared: NonNullable<ConfigFile['stores']>[string],
  prefix: string | undefined,
  retention: FileRetention | undefined,
): ServerStore {
  return {
    name,
    place: placeBelow(shared.place, prefix),
    ...defined({
      accessKeyFile: shared.access_key_file,
      secretKeyFile: shared.secret_key_file,
      compress: shared.compress,
      identityFile: shared.identity_file,
    }),
    recipients: shared.recipients ?? [],
    ...(retention ? { retention: retentionOf(retention) } : {}),
  };
}

/** `s3://wal?region=x` and `shop` make `s3://wal/shop?region=x`. */
export function placeBelow(place: string, prefix: string | undefined): string {
  if (prefix === undefined) return place;
  const [, path = '', rest = ''] = /^([^?]*)(.*)$/s.exec(place) ?? [];
  return `${path.replace(/\/+$/, '')}/${prefix}${rest}`;
}

function retentionOf({ window, redundancy, at }: FileRetention): RetentionConfig {
  return {
    ...defined({
      window: window === undefined ? undefined : durationMs(window),
      redundancy,
    }),
    at: at ?? EXPIRE_AT,
  };
}

function webOf({ listen, token_file: tokenFile, tls }: NonNullable<ConfigFile['web']>): WebConfig {
  return {
    listen: listenOf(listen),
    ...defined({ tokenFile }),
    ...(tls ? { tls: { certFile: tls.cert_file, keyFile: tls.key_file } } : {}),
  };
}

function notifyOf({ heartbeat, webhook }: NonNullable<ConfigFile['notify']>): NotifyConfig {
  return {
    ...(heartbeat
      ? {
          heartbeat: {
            urlFile: heartbeat.url_file,
            every: durationMs(heartbeat.every ?? HEARTBEAT),
          },
        }
      : {}),
    ...(webhook ? { webhook: { urlFile: webhook.url_file, on: webhook.on ?? TROUBLES } } : {}),
  };
}

export function listenOf(text: string): Listen {
  const [, host = '', port] = LISTEN.exec(text) ?? [];
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) };
}

function compressionOf(text: string): CompressionOption {
  const [, method, level] = COMPRESS.exec(text) as unknown as [
    string,
    CompressionOption['method'],
    string?,
  ];
  const isDefault = level === undefined || Number(level) === CODECS[method].levels.byDefault;
  return isDefault ? { method } : { method, level: Number(level) };
}

/** Without what is undefined. */
function defined<T extends object>(all: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };
}
