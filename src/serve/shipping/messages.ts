import type { ShipCompression } from '../../ship/options.js';
import type { ServerStore } from '../config/config.js';
import type { ErrorReport, StoreStatus } from '../status.js';
import type { FromWorker } from '../worker-messages.js';

/** What is shipped, and how: all that its process knows. Of another one it is begun anew. */
export interface ShipTask extends Omit<ServerStore, 'compress' | 'identityFile' | 'retention'> {
  directory: string;
  compression?: ShipCompression;
}

/** To a process that ships. The channel's end means stop, too. */
export type ToShipper = { kind: 'start'; task: ShipTask } | { kind: 'stop' };

export interface ShipSnapshot
  extends Pick<StoreStatus, 'queueSegments' | 'queueBytes' | 'shippedLsn'> {
  state: Extract<StoreStatus['state'], 'starting' | 'shipping' | 'away' | 'held'>;
  /** Milliseconds since all that was completed was there, 0: it is. Absent: not known yet. */
  age?: number;
  /** Segments shipped, and tries that failed, since the process began. */
  segments: number;
  failures: number;
  error?: ErrorReport;
}

export type FromShipper = FromWorker<ShipSnapshot>;
