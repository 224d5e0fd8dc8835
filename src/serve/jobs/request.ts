import type { JobOutcome } from '../status.js';

export const BACKUP_TYPES = ['full', 'differential', 'incremental'] as const;

/** What somebody asks for. */
export type JobRequest =
  | { job: 'verify'; full: boolean }
  | { job: 'backup'; type: (typeof BACKUP_TYPES)[number] }
  | { job: 'expire' }
  | { job: 'rehearse' };

/** A run, as whoever asked for it knows it. */
export interface RunReport {
  id: number;
  job: string;
  place: string;
  state: 'queued' | 'running' | 'ended';
  outcome?: JobOutcome;
  code?: number;
  message?: string;
}
