import type { ServerConfig } from '../config/config.js';
import type { ErrorReport, LogEntry, ReceiverSnapshot } from '../status.js';

/** To a receiver's process. The channel's end means stop, too. */
export type ToReceiver =
  | { kind: 'start'; config: ServerConfig; acceptGap: boolean }
  | { kind: 'stop' };

/** From it. Anything is a sign of life. */
export type FromReceiver =
  /** It listens. */
  | { kind: 'ready' }
  | { kind: 'news'; snapshot: ReceiverSnapshot; log: LogEntry[]; lost: number }
  /** The last one. */
  | { kind: 'end'; log: LogEntry[]; error?: ErrorReport };
