import type { ConfigFault } from '../../errors.js';
import type { JobRequest, RunReport } from '../jobs/request.js';
import type { ErrorReport, ServerStatus } from '../status.js';
import type { Applied } from '../supervisor/supervisor.js';

/** One line of JSON to the control socket, and one back. */
export type ControlRequest =
  | { command: 'status'; server?: string }
  | { command: 'reload' }
  | { command: 'pause'; server: string }
  | { command: 'resume'; server: string; acceptGap?: boolean }
  | { command: 'run'; server: string; request: JobRequest }
  | { command: 'runs'; ids: readonly number[] }
  | { command: 'cancel'; server: string };

/** What each answers. */
export interface ControlResults {
  status: { version: string; pid: number; config: string; servers: ServerStatus[] };
  reload: Applied;
  pause: Record<string, never>;
  resume: Record<string, never>;
  run: { runs: RunReport[] };
  runs: { runs: RunReport[] };
  cancel: { runs: RunReport[] };
}

export type ControlAnswer =
  | { ok: true; result: ControlResults[keyof ControlResults] }
  | { ok: false; error: ErrorReport & { path?: string; faults?: readonly ConfigFault[] } };

/** Bytes of a request; nothing that is asked for is longer. */
export const LONGEST_REQUEST = 4096;
