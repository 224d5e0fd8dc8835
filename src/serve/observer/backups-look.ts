import { EmptyStoreError, openBackupArea } from '../../archive/backups/area.js';
import type { Catalog } from '../../archive/catalog.js';
import { openArchive } from '../../archive/places/open-archive.js';
import { readCatalog } from '../../archive/read-catalog.js';
import type { BackupWindow } from '../../archive/targets/window.js';
import { type ListedBackup, listJudged, lookAtBackups } from '../../backups/list-backups.js';
import { TimeoutError, WalkeepError } from '../../errors.js';
import { formatLsn } from '../../lsn.js';
import { oneLine, withoutSecrets } from '../../text.js';
import type { TimestampTz } from '../../wal/records/timestamp.js';
import { timelineEnd } from '../../wal/timeline.js';
import { storeEnvironment } from '../config/stores.js';
import type { BackupStatus } from '../status.js';
import type { BackupsLook, LookJob } from './jobs.js';
import { latestOf } from './wal-look.js';
import type { BackupReach } from './windows.js';

/** Backups that are told, timelines of each, and characters of what is said of it. */
const MOST = 200;
const MOST_TIMELINES = 8;
const MOST_TEXT = 500;

type Job = Extract<LookJob, { kind: 'backups' }>;

/** Looks at the backups of a place, as "walkeep backups" does. @throws what a place throws */
export async function lookAtPlace(job: Job): Promise<BackupsLook> {
  const { place, timeout } = job;
  const signal = AbortSignal.timeout(timeout);
  return look(job, signal).catch((e) => {
    if (e instanceof WalkeepError || !signal.aborted) throw e;
    throw new TimeoutError(`"${place}" was not read to its end within ${timeout / 1000} s`);
  });
}

async function look(job: Job, signal: AbortSignal): Promise<BackupsLook> {
  const { directory, store } = job;
  const place = store?.place ?? directory;
  const env = store && storeEnvironment(store);
  const readAt = new Date().toISOString();
  const area = await openBackupArea(place, { env, signal }).catch((e) => {
    if (e instanceof EmptyStoreError) return undefined;
    throw e;
  });
  if (!area) return { readAt, backups: [], more: 0, reaches: [] };
  try {
    const judged = await lookAtBackups(area, signal);
    if (judged.length === 0) return { readAt, backups: [], more: 0, reaches: [] };
    const identityFiles = store?.identityFile === undefined ? [] : [store.identityFile];
    const archive = await openArchive(place, { identityFiles, env });
    try {
      const catalog = await readCatalog(archive);
      const listed = await listJudged(catalog, judged, { signal });
      const latest = latestOf(catalog);
      const told = listed.slice(-MOST);
      return {
        readAt,
        backups: told.map((backup) => statusOf(backup, job.place, latest)),
        more: listed.length - told.length,
        reaches: listed.flatMap((backup) => reachesOf(backup, job.place, catalog, latest)),
        ...(latest === undefined ? {} : { latest }),
      };
    } finally {
      await archive.close();
    }
  } finally {
    await area.close();
  }
}

/** Its end can be had: by WAL that is here, or since it has what it needs itself. */
const isUsable = ({ state }: ListedBackup): boolean => state === 'complete';

function statusOf(backup: ListedBackup, place: string, latest: number | undefined): BackupStatus {
  const { id, kind, state, kept, began, stored, record, problem, windows } = backup;
  const best =
    windows.find((w) => w.timeline === latest && w.to !== undefined) ??
    windows.find((w) => w.to !== undefined) ??
    windows[0];
  const why = problem ?? best?.why;
  const restorableTo =
    isUsable(backup) && record ? timeOf(best, Date.parse(record.end.time)) : undefined;
  return {
    ...{ id, place, type: kind, state, kept, bytes: stored },
    startedAt: record?.start.time ?? began.toISOString(),
    ...(record
      ? {
          endedAt: record.end.time,
          timeline: record.end.timeline,
          endLsn: formatLsn(record.end.lsn),
          ...(record.parent === undefined ? {} : { parent: record.parent }),
        }
      : {}),
    ...(restorableTo === undefined ? {} : { restorableTo: new Date(restorableTo).toISOString() }),
    ...(why === undefined ? {} : { why: textOf(why) }),
    reaches: windows.slice(0, MOST_TIMELINES).map(({ timeline, to, why: end }) => ({
      timeline,
      ...(to ? { lsn: formatLsn(to.lsn) } : {}),
      ...(to?.time === undefined ? {} : isoOf(to.time)),
      why: textOf(end),
    })),
  };
}

function reachesOf(
  backup: ListedBackup,
  place: string,
  catalog: Catalog,
  latest: number | undefined,
): BackupReach[] {
  const { id, record, windows } = backup;
  if (!record || !isUsable(backup)) return [];
  const from = Date.parse(record.end.time);
  if (!Number.isFinite(from)) return [];
  const own = { backup: id, place, from };
  const reached = windows.filter((w) => w.to !== undefined);
  if (reached.length === 0) {
    const { timeline } = record.end;
    return [{ ...own, to: from, timeline, beside: timeline !== latest }];
  }
  const history = catalog.timelines.find((t) => t.timeline === latest)?.history;
  return reached.map((window) => {
    const { timeline } = window;
    const fork = history && timelineEnd(history, timeline);
    // All of it is before where the way of `latest` left that timeline.
    const onWay = fork !== undefined && (window.to?.lsn ?? 0n) <= fork;
    return { ...own, to: timeOf(window, from), timeline, beside: timeline !== latest && !onWay };
  });
}

/** Of the last commit that is reached, else that of the end of the backup. */
function timeOf(window: BackupWindow | undefined, end: number): number {
  const time = window?.to?.time;
  return Math.max(end, (time === undefined ? undefined : millisecondsOf(time)) ?? end);
}

function isoOf(time: TimestampTz): { time?: string } {
  const at = millisecondsOf(time);
  return at === undefined ? {} : { time: new Date(at).toISOString() };
}

/** 1970 in 2000, milliseconds, and the last time of a Date. */
const EPOCH = 946_684_800_000;
const LAST = 8.64e15;

/** Rounded down: recovery to that time ends before a commit, and not behind the last one. */
function millisecondsOf(time: TimestampTz): number | undefined {
  const at = Math.floor(Number(time) / 1000) + EPOCH;
  return Math.abs(at) <= LAST ? at : undefined;
}

/** Names of files and what servers call things are in it. */
function textOf(text: string): string {
  const line = oneLine(withoutSecrets(text));
  return line.length > MOST_TEXT ? `${line.slice(0, MOST_TEXT)}…` : line;
}
