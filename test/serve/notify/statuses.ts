import type { Circumstances } from '../../../src/serve/notify/troubles.js';
import type { ArchiveStatus, JobStatus, ServerStatus } from '../../../src/serve/status.js';

export const NOW = Date.parse('2026-03-04T12:00:00Z');
/** Milliseconds before that, as ISO 8601. */
export const ago = (ms: number) => new Date(NOW - ms).toISOString();
export const HOUR = 3_600_000;

/** A server that is well. */
export const serverOf = (more: Partial<ServerStatus> = {}): ServerStatus => ({
  ...{ name: 'shop', state: 'streaming', since: ago(HOUR), directory: '/d', restarts: 0 },
  ...{ rpoSeconds: 0, rpoLimitSeconds: 30, totals: { segments: 0, connections: 1 } },
  receiver: { state: 'streaming', segments: 0, connections: 1 },
  ...more,
});

/** One with nothing wrong in it. */
export const archiveOf = (more: Partial<ArchiveStatus> = {}): ArchiveStatus => ({
  ...{ readAt: ago(0), segments: 3, bytes: 3, timelines: [], gaps: [], backups: [], windows: [] },
  ...{ besideWindows: [], places: [{ place: 'directory', readAt: ago(0) }] },
  ...more,
});

export const jobOf = (job: JobStatus['job'], more: Partial<JobStatus> = {}): JobStatus => ({
  ...{ job, place: 'directory', state: 'waiting' },
  ...more,
});

export const around = (more: Partial<Circumstances> = {}): Circumstances => ({
  ...{ configIsGood: true, now: NOW, begun: NOW - HOUR, restarts: () => 0 },
  ...more,
});
