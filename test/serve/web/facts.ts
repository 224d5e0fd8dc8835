import type { BuilderAnswer } from '../../../src/serve/restore/builder.js';
import type { LogEntry, ServerStatus } from '../../../src/serve/status.js';
import { Memory } from '../../../src/serve/web/memory.js';
import type { WebFacts } from '../../../src/serve/web/page.js';

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

export const iso = (at: number) => new Date(at).toISOString();

/** A server that is well, with backups of two weeks. */
export function serverOf(now: number, more: Partial<ServerStatus> = {}): ServerStatus {
  const at = (ms: number) => iso(now - ms);
  const days = [13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0.3];
  return {
    ...{ name: 'shop', state: 'streaming', since: at(9 * DAY), directory: '/var/lib/walkeep/shop' },
    ...{ pid: 4711, restarts: 0, rpoSeconds: 0, rpoLimitSeconds: 30 },
    totals: { segments: 7, connections: 1 },
    receiver: {
      ...{ state: 'streaming', segments: 7, connections: 1, recoveryAge: 0 },
      server: {
        ...{ host: 'pg1.example', port: 5432, version: 180_004, systemId: '7500000000000000001' },
        timeline: 2,
      },
      position: {
        ...{ received: '1A/40001000', written: '1A/40001000', flushed: '1A/40001000' },
        ...{ serverEnd: '1A/40001000', timeline: 2 },
      },
    },
    jobs: [
      {
        ...{ job: 'verify_quick', place: 'directory', state: 'waiting', schedule: '5 * * * *' },
        next: at(-20 * MINUTE),
        last: {
          startedAt: at(41 * MINUTE),
          endedAt: at(40 * MINUTE),
          outcome: 'good',
          by: 'schedule',
        },
        lastSuccess: at(40 * MINUTE),
      },
      {
        ...{ job: 'backup_full', place: 'directory', state: 'waiting', schedule: '30 1 * * sun' },
        next: at(-2 * DAY),
        last: {
          startedAt: at(6 * DAY),
          endedAt: at(6 * DAY - HOUR),
          outcome: 'good',
          by: 'missed',
        },
        lastSuccess: at(6 * DAY - HOUR),
      },
    ],
    stores: [
      {
        ...{ name: 'minio', place: 's3://wal/shop', state: 'shipping', since: at(9 * DAY) },
        ...{ queueSegments: 0, queueBytes: 0, rpoSeconds: 0, shippedLsn: '1A/40000000' },
        totals: { segments: 90, failures: 0 },
      },
    ],
    archive: {
      ...{ readAt: at(20_000), freeBytes: 5e11, segments: 98_123, bytes: 1.6e12 },
      timelines: [
        {
          timeline: 1,
          ranges: [
            {
              ...{ from: '10/0', to: '18/3000000', segments: 40_000, bytes: 6e11 },
              ...{ firstCommit: at(13.5 * DAY), lastCommit: at(5 * DAY) },
            },
          ],
        },
        {
          ...{ timeline: 2, parent: 1, branch: '18/2F00000' },
          ranges: [
            {
              ...{ from: '18/2000000', to: '1A/40000000', segments: 58_123, bytes: 1e12 },
              ...{ firstCommit: at(5 * DAY), lastCommit: at(25_000) },
            },
          ],
        },
      ],
      ...{
        gaps: [],
        besideWindows: [],
        latest: 2,
        places: [{ place: 'directory', readAt: at(9000) }],
      },
      backups: days.map((age, i) => ({
        ...{
          id: `${iso(now - age * DAY)
            .slice(0, 19)
            .replace(/[-:T]/g, '')}F`,
          place: 'directory',
        },
        ...{
          type: i % 7 === 0 ? ('full' as const) : ('incremental' as const),
          state: 'complete' as const,
        },
        ...{ startedAt: at(age * DAY + HOUR), endedAt: at(age * DAY), timeline: age > 5 ? 1 : 2 },
        ...{
          kept: false,
          reaches: [],
          endLsn: '11/0',
          bytes: i % 7 === 0 ? 4.1e11 : 9.3e9,
          restorableTo: at(25_000),
        },
      })),
      windows: [
        { from: at(13 * DAY), to: at(25_000), backup: 'F', place: 'directory', timeline: 2 },
      ],
      slot: {
        ...{ readAt: at(20_000), name: 'walkeep', exists: true, active: true },
        ...{ walStatus: 'reserved', retainedBytes: 1.7e7 },
      },
    },
    ...more,
  };
}

/** One with two gaps, one of them accepted, and WAL that nothing can be restored with. */
export function withGaps(now: number, more: Partial<ServerStatus> = {}): ServerStatus {
  const at = (ms: number) => iso(now - ms);
  const server = serverOf(now);
  const { archive } = server;
  if (!archive) throw new Error('no archive');
  return {
    ...server,
    archive: {
      ...archive,
      gaps: [
        {
          ...{ timeline: 1, from: '13/0', to: '14/0', segments: 256, accepted: true },
          ...{ after: at(10 * DAY), before: at(9.5 * DAY) },
        },
        {
          ...{ timeline: 2, from: '19/0', to: '19/3000000', segments: 3, accepted: false },
          ...{ after: at(2 * DAY), before: at(2 * DAY - 4 * MINUTE) },
        },
      ],
      windows: [
        { from: at(13 * DAY), to: at(10 * DAY), backup: 'F1', place: 'directory', timeline: 1 },
        { from: at(9 * DAY), to: at(2 * DAY), backup: 'F2', place: 'directory', timeline: 2 },
        { from: at(1 * DAY), to: at(25_000), backup: 'F3', place: 'directory', timeline: 2 },
      ],
    },
    troubles: [
      {
        ...{ kind: 'gap', severity: 'critical', since: at(2 * DAY) },
        text: 'WAL is missing on timeline 2 from 19/0 to 19/3000000',
      },
    ],
    ...more,
  };
}

/** Its server is away since 40 minutes. */
export function dead(now: number, more: Partial<ServerStatus> = {}): ServerStatus {
  const server = serverOf(now);
  const { archive } = server;
  if (!archive) throw new Error('no archive');
  const last = iso(now - 40 * MINUTE);
  archive.windows = archive.windows.map((window) => ({ ...window, to: last }));
  for (const { timeline, ranges } of archive.timelines) {
    if (timeline === 2 && ranges[0]) ranges[0].lastCommit = last;
  }
  const error = {
    ...{ code: 'WK_CONNECTION', message: 'could not connect to "pg1.example", port 5432: refused' },
    hint: 'Is the server running, and does it accept connections there?',
  };
  return {
    ...server,
    ...{ state: 'disconnected', since: iso(now - 40 * MINUTE), rpoSeconds: 2400 },
    receiver: {
      ...(server.receiver as object),
      state: 'disconnected',
      recoveryAge: 2.4e6,
      error,
    } as never,
    troubles: [
      {
        ...{ kind: 'rpo', severity: 'critical', since: iso(now - 39 * MINUTE) },
        text: 'WAL of more than 30 s would be lost with the server',
      },
    ],
    ...more,
  };
}

/** Nothing was ever received. */
export function empty(now: number, more: Partial<ServerStatus> = {}): ServerStatus {
  const archive = {
    readAt: iso(now),
    segments: 0,
    bytes: 0,
    timelines: [],
    gaps: [],
    backups: [],
    windows: [],
    ...{ besideWindows: [], places: [] },
  };
  return {
    ...{ name: 'new', state: 'connecting', since: iso(now), directory: '/d', restarts: 0, archive },
    ...{ rpoSeconds: 3, rpoLimitSeconds: 30, totals: { segments: 0, connections: 0 } },
    ...more,
  };
}

/** What a page is made of, to be changed in between. */
export class ScriptedFacts implements WebFacts {
  all: ServerStatus[];
  good = true;
  readonly memory = new Memory();
  /** Of every restore that is asked for. */
  restorable: BuilderAnswer = { state: 'failed', error: { code: 'WK_TIMEOUT', message: 'none' } };

  constructor(all: ServerStatus[]) {
    this.all = all;
  }

  servers(): ServerStatus[] {
    return this.all;
  }

  configIsGood(): boolean {
    return this.good;
  }

  work(): undefined {
    return undefined;
  }

  async restore(): Promise<BuilderAnswer> {
    return this.restorable;
  }

  note(entry: LogEntry): void {
    this.memory.note(entry);
  }
}
