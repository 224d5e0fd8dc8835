import type { CompressionOption } from '../../receive/options.js';
import type { MemberSlotKeeper } from '../../server/member-slot.js';
import type { HOOKED, TROUBLES } from './work-model.js';

/** What a receiver is told of its server: all of it, as JSON. Of another one it is begun anew. */
export interface ServerConfig {
  name: string;
  connection: string;
  passwordFile?: string;
  directory: string;
  slot?: string;
  ensureSlot: boolean;
  synchronous: boolean;
  compression: CompressionOption;
  allowGroupAccess?: true;
  members?: { hosts?: readonly string[]; slots: MemberSlotKeeper };
}

/** Where something is answered by HTTP. */
export interface Listen {
  host: string;
  port: number;
}

/** The status page. */
export interface WebConfig {
  listen: Listen;
  tokenFile?: string;
  tls?: { certFile: string; keyFile: string };
}

export type Trouble = (typeof TROUBLES)[number];

export interface NotifyConfig {
  /** Milliseconds between. */
  heartbeat?: { urlFile: string; every: number };
  webhook?: { urlFile: string; on: readonly Trouble[] };
}

/** What stays of a place. */
export interface RetentionConfig {
  /** Milliseconds before now of which every moment stays restorable. */
  window?: number;
  redundancy?: number;
  /** When the rest is removed, as cron has it (UTC). */
  at: string;
}

/** A store as one server uses it. */
export interface ServerStore {
  /** As the configuration calls it. */
  name: string;
  /** With the prefix of this server. */
  place: string;
  accessKeyFile?: string;
  secretKeyFile?: string;
  /** `zstd:3`; absent: as "walkeep ship" has it. */
  compress?: string;
  recipients: readonly string[];
  identityFile?: string;
  retention?: RetentionConfig;
}

/** Where backups go and rehearsals read from; a store by its name. */
export type WorkPlace = 'directory' | (string & {});

/** Times are as cron has them, in UTC. */
export interface BackupConfig {
  full?: string;
  differential?: string;
  incremental?: string;
  /** Milliseconds. */
  maxAge?: number;
  to: WorkPlace;
  compress?: string;
  verifyPages: boolean;
}

export interface RehearseConfig {
  at: string;
  from: WorkPlace;
  sql: readonly string[];
  dbname?: string;
  scratch?: string;
  pgBin?: string;
  /** Milliseconds. */
  timeout?: number;
}

export type HookedJob = (typeof HOOKED)[number];
/** Program and arguments. */
export type Hooks = Partial<Record<`${'before' | 'after'}_${HookedJob}`, readonly string[]>>;

/** What is done for a server beside receiving from it. */
export interface WorkConfig {
  /** The server, as its receiver has it. */
  server: ServerConfig;
  /** Milliseconds; more that could be lost is an alarm. */
  rpo: number;
  stores: readonly ServerStore[];
  verify: { quick?: string; full?: string };
  backup?: BackupConfig;
  /** Of the directory; stores have their own. */
  retention?: RetentionConfig;
  rehearse?: RehearseConfig;
  hooks: Hooks;
}

/** A valid configuration with its defaults. */
export interface ServeConfig {
  control?: { socket: string };
  web?: WebConfig;
  metrics?: Listen;
  notify: NotifyConfig;
  servers: readonly ServerConfig[];
  /** One for each of the servers, in their order. */
  work: readonly WorkConfig[];
}
