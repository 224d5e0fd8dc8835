import { WalkeepError } from '../errors.js';
import { withoutSecrets } from '../text.js';

/** An error as it goes from process to process, and to whoever asks. */
export interface ErrorReport {
  code: string;
  message: string;
  hint?: string;
  detail?: string;
}

export function reportOf(error: unknown): ErrorReport {
  if (!(error instanceof WalkeepError)) {
    const text = error instanceof Error ? error.message || error.name : String(error);
    return { code: 'WK_INTERNAL', message: withoutSecrets(text.split('\n')[0] ?? '') };
  }
  const { code, message, hint, detail } = error;
  return {
    ...{ code, message: withoutSecrets(message) },
    ...(hint === undefined ? {} : { hint: withoutSecrets(hint) }),
    ...(detail === undefined ? {} : { detail: withoutSecrets(detail) }),
  };
}

/** What a receiver is at. LSNs are texts, as PostgreSQL writes them. */
export interface ReceiverSnapshot {
  state: 'connecting' | 'streaming' | 'disconnected';
  server?: { host: string; port: number; version: number; systemId: string; timeline: number };
  position?: {
    received: string;
    written: string;
    flushed: string;
    serverEnd: string;
    timeline: number;
  };
  /** Milliseconds since all WAL of the server was durable here, 0: it is. Absent: not seen yet. */
  recoveryAge?: number;
  /** Segments completed, and connections made, since the process began. */
  segments: number;
  connections: number;
  /** Why the last connection ended; gone with the next one that streams. */
  error?: ErrorReport;
  /** By member: whether its slot keeps all that is not here yet; null: not known. */
  members?: Record<string, { covers: boolean | null; message: string }>;
}

/**
 * - `starting`: its process begins; `connecting`, `streaming`, `disconnected`: as it says itself
 * - `restarting`: its process ended, and another is begun after a while
 * - `held`: it ended for what a person has to look at, and stays so until `resume`
 * - `paused`: as somebody asked
 */
export type ServerState =
  | ReceiverSnapshot['state']
  | 'starting'
  | 'restarting'
  | 'held'
  | 'paused'
  | 'stopping';

/** One server, as `walkeep status --json` prints it. */
export interface ServerStatus {
  name: string;
  state: ServerState;
  /** Since when, as ISO 8601. */
  since: string;
  directory: string;
  /** Of its receiver, while there is one. */
  pid?: number;
  /** Times that its receiver was begun again since "serve" began or its configuration changed. */
  restarts: number;
  /** Of what its receiver ended last time, or why it is held. */
  ended?: ErrorReport;
  /** When another receiver is begun. */
  retryAt?: string;
  /** Seconds since its process was heard of, where that is too long: it hangs. */
  silentSeconds?: number;
  receiver?: ReceiverSnapshot;
  /**
   * Seconds since all WAL that the server had was durable here: what would be lost with the server. 0
   * only while the server says so itself; at first since "serve" began.
   */
  rpoSeconds: number;
  /** Segments completed and connections made since "serve" began. */
  totals: { segments: number; connections: number };
}

/** A line of the log. */
export interface LogEntry {
  level: 'info' | 'warning' | 'error';
  /** What happened, as one word for programs: `connect`, `restart`, `held` … */
  event: string;
  message: string;
  server?: string;
  code?: string;
  hint?: string;
  detail?: string;
}
