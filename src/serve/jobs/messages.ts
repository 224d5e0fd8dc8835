import type { ErrorReport, JobCause, JobOutcome, LogEntry } from '../status.js';
import type { JobMemory } from './memory.js';
import type { JobSpec } from './plan.js';

/** To a process of jobs. The channel's end means `stop` with `end`, too. */
export type ToJob =
  | { kind: 'run'; spec: JobSpec; by: JobCause; startedAt: string; memory: JobMemory[] }
  | { kind: 'recall'; servers: Recalled[] }
  /** `end`: it is to be begun again another time; `cancel`: not. */
  | { kind: 'stop'; why: 'end' | 'cancel' };

/** A server of which it is asked what was done; `fresh` is noted of jobs that are not known there. */
export interface Recalled {
  server: string;
  directory: string;
  fresh: JobMemory[];
}

/** How a run ended. */
export interface RunEnd {
  outcome: JobOutcome;
  endedAt: string;
  /** Exit code of the command, if it ran to its end. */
  code?: number;
  findings?: number;
  error?: ErrorReport;
}

export type FromJob =
  | { kind: 'ready' }
  | { kind: 'log'; entry: Omit<LogEntry, 'server' | 'job'> }
  /** Process group of a hook that runs now: if this process is killed, it has to be ended. */
  | { kind: 'group'; pid: number | undefined }
  | { kind: 'recalled'; server: string; memory: JobMemory[] | undefined; error?: ErrorReport }
  | { kind: 'end'; end: RunEnd };
