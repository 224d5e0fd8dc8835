import type { ServerConfig } from '../config/config.js';
import type { ReceiverSnapshot } from '../status.js';
import type { FromWorker } from '../worker-messages.js';

/** To a receiver's process. The channel's end means stop, too. */
export type ToReceiver =
  | { kind: 'start'; config: ServerConfig; acceptGap: boolean }
  | { kind: 'stop' };

export type FromReceiver = FromWorker<ReceiverSnapshot>;
