import type { ServerConfig, ServerStore } from '../config/config.js';
import type { ArchiveStatus, ServerStatus } from '../status.js';

/** What is looked at of one server. */
export interface Observed {
  server: ServerConfig;
  stores: readonly ObservedStore[];
}

/** A store, with the files that its keys are in; what is in them is read by who needs it. */
export type ObservedStore = Pick<
  ServerStore,
  'name' | 'place' | 'accessKeyFile' | 'secretKeyFile' | 'identityFile'
>;

/** To the observer's process. The channel's end means stop. */
export type ToObserver = { kind: 'watch'; servers: readonly Observed[] };

/** From it. Anything is a sign of life. */
export type FromObserver =
  /** It listens. */
  | { kind: 'ready' }
  | { kind: 'alive' }
  | { kind: 'archives'; archives: Record<ServerStatus['name'], ArchiveStatus> };
