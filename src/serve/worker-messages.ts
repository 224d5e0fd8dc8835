import type { ErrorReport, LogEntry } from './status.js';

/** What a process that works for "serve" tells it. Anything is a sign of life. */
export type FromWorker<Snapshot> =
  /** It listens. */
  | { kind: 'ready' }
  | { kind: 'news'; snapshot: Snapshot; log: LogEntry[]; lost: number }
  /** The last one. */
  | { kind: 'end'; log: LogEntry[]; snapshot?: Snapshot; error?: ErrorReport };
