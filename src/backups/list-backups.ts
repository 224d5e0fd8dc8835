import { abandonedOf } from '../archive/backups/abandoned.js';
import { type BackupArea, openBackupArea } from '../archive/backups/area.js';
import { readBackups } from '../archive/backups/catalog.js';
import { readLeases } from '../archive/backups/lease.js';
import { BackupReader } from '../archive/backups/reader.js';
import { judgeBackups, type PlacedBackup } from '../archive/backups/state.js';
import { leadsThrough, Ways } from '../archive/backups/ways.js';
import type { Catalog } from '../archive/catalog.js';
import { type ArchiveOptions, openArchive } from '../archive/places/open-archive.js';
import { readCatalog } from '../archive/read-catalog.js';
import { type BackupWindow, windowOf } from '../archive/targets/window.js';
import { type BackupRecord, beganAt } from '../base/backup-record.js';
import { UsageError } from '../errors.js';

/**
 * `complete`: it can be restored. `needs-wal`: it is whole, and WAL that it needs is not here. `failed`:
 * it was never finished, and nobody is at it.
 */
export type ListedState = 'complete' | 'needs-wal' | 'damaged' | 'running' | 'failed';

export interface ListedBackup {
  id: string;
  state: ListedState;
  /** Why it is not complete. */
  problem?: string;
  kind: 'full' | 'incremental';
  kept: boolean;
  /** When it began, by the clock of who took it. */
  began: Date;
  /** Bytes as they are stored. */
  stored: number;
  objects: number;
  /** Of one that has a record. */
  record?: BackupRecord;
  /** Milliseconds. */
  duration?: number;
  /** IDs of what it is based on, the newest first, the full one last. Empty of a full one. */
  chain: string[];
  /** Of an incremental one: bytes that it takes less than the full one that it is based on. */
  saved?: number;
  /** Bytes that are stored of it and its chain: what a restore reads at most. */
  restored?: number;
  /** Those that are based on it. */
  children: string[];
  /** What it can be recovered to, one for each timeline, the newest first. */
  windows: BackupWindow[];
}

export interface BackupList {
  place: string;
  /** In the order in which they began. */
  backups: ListedBackup[];
}

/** A file of a backup. */
export interface BackupFile {
  /** As in the data directory. */
  path: string;
  type: 'file' | 'directory' | 'link';
  size: number;
}

export interface ListBackupsOptions extends ArchiveOptions {
  /** Only this one. */
  id?: string | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * The base backups of a place, with what each can be recovered to. Few segments are read.
 * @throws UsageError if there is none with that ID; what the place throws
 */
export async function listBackups(
  place: string,
  options: ListBackupsOptions = {},
): Promise<BackupList> {
  const { id, systemId, signal } = options;
  const area = await openBackupArea(place, { systemId, signal });
  try {
    const judged = await lookAtBackups(area, signal);
    const wanted = id === undefined ? judged : judged.filter((b) => b.id === id);
    if (id !== undefined && wanted.length === 0) throw unknown(place, id);
    const archive = await openArchive(place, options);
    try {
      const catalog = await readCatalog(archive);
      return { place, backups: await listJudged(catalog, judged, { wanted, signal }) };
    } finally {
      await archive.close();
    }
  } finally {
    await area.close();
  }
}

/** What there is of backups, and how each is. */
export async function lookAtBackups(
  area: BackupArea,
  signal?: AbortSignal,
): Promise<PlacedBackup[]> {
  // By our clock: it decides what a word says, and nothing is done.
  const now = new Date();
  const leases = await readLeases(area, { now, signal });
  const found = await readBackups(area, signal);
  const abandoned = await abandonedOf(area, found, leases, signal);
  return judgeBackups(found, { leases, now, abandoned });
}

/** With what each can be recovered to by the WAL of an archive. */
export async function listJudged(
  catalog: Catalog,
  judged: readonly PlacedBackup[],
  options: { wanted?: readonly PlacedBackup[]; signal?: AbortSignal | undefined } = {},
): Promise<ListedBackup[]> {
  const { wanted = judged, signal } = options;
  const windows = await windowsOf(catalog, wanted, signal);
  return wanted.map((b) => listed(b, judged, windows.get(b.id) ?? []));
}

/** What a backup holds, in the order of its tars. @throws as `listBackups`, EncryptedError */
export async function listFiles(
  place: string,
  id: string,
  options: ListBackupsOptions = {},
): Promise<BackupFile[]> {
  const { systemId, signal } = options;
  const area = await openBackupArea(place, { systemId, signal });
  try {
    const found = (await readBackups(area, signal)).find((b) => b.id === id);
    if (found?.problem) throw found.problem;
    if (!found?.record) throw unknown(place, id);
    const index = await new BackupReader(area, found.record, options).index(signal);
    return index.tars.flatMap(({ members }, i) => {
      const oid = found.record?.tars[i]?.oid;
      const root = oid === undefined ? '' : `pg_tblspc/${oid}/`;
      return members.map(({ name, type, size }): BackupFile => {
        const path = `${root}${Buffer.from(name, 'latin1').toString()}`;
        return { path, type: type === 'symlink' ? 'link' : type, size };
      });
    });
  } finally {
    await area.close();
  }
}

function unknown(place: string, id: string): UsageError {
  return new UsageError(`"${place}" has no backup ${id}`, {
    hint: '"walkeep backups" lists those that there are.',
  });
}

function listed(
  { id, state, kept, problem, found, chain }: PlacedBackup,
  all: readonly PlacedBackup[],
  windows: BackupWindow[],
): ListedBackup {
  const { record } = found;
  const isReachable = windows.some((window) => window.to !== undefined);
  const needsWal = state === 'complete' && !isReachable && record?.wal !== 'included';
  const why = needsWal ? (windows[0]?.why ?? 'WAL that it needs is not here') : problem;
  const duration = record && Date.parse(record.end.time) - Date.parse(record.start.time);
  return {
    id,
    state: needsWal ? 'needs-wal' : state === 'leftover' ? 'failed' : state,
    ...(why === undefined ? {} : { problem: why }),
    kind: id.includes('I-') ? 'incremental' : 'full',
    ...{ kept, began: beganAt(id), objects: found.objects.length, windows },
    stored: found.objects.reduce((sum, object) => sum + object.size, 0),
    ...(record ? { record } : {}),
    ...(duration === undefined ? {} : { duration }),
    ...chainIn(found, chain),
    children: all.flatMap((b) => (b.record?.parent === id ? [b.id] : [])),
  };
}

/** What an incremental backup hangs on, and what it saves. */
function chainIn(
  { record }: PlacedBackup['found'],
  chain: PlacedBackup['chain'],
): Pick<ListedBackup, 'chain' | 'saved' | 'restored'> {
  const full = chain.at(-1);
  if (!record || !full) return { chain: [] };
  const [own, whole] = [storedOf(record), storedOf(full)];
  return {
    chain: chain.map(({ id }) => id),
    saved: whole - own,
    restored: chain.reduce((sum, one) => sum + storedOf(one), own),
  };
}

function storedOf({ objects }: BackupRecord): number {
  return objects.reduce((sum, { size }) => sum + size, 0);
}

/**
 * Two backups of which one leads to the other, over WAL without a hole and past no fork, reach the
 * same ends: these are looked for once.
 */
async function windowsOf(
  catalog: Catalog,
  backups: readonly PlacedBackup[],
  signal: AbortSignal | undefined,
): Promise<Map<string, BackupWindow[]>> {
  const { timelines, histories, segmentSize, ledger } = catalog;
  const stored = new Date(0);
  const ways = new Ways(
    timelines.flatMap(({ timeline, segments }) =>
      segments.map(({ segment }) => ({ timeline, segment, stored })),
    ),
    histories.flatMap((h) => (h.history ? [h.history] : [])),
    [],
    ...([segmentSize, ledger] as const),
  );
  const through = ({ end }: BackupRecord): string =>
    ways.all
      .filter((way) => leadsThrough(way, end))
      .map((way) => way.timeline)
      .join();
  const found = new Map<string, BackupWindow[]>();
  const done: { record: BackupRecord; windows: BackupWindow[] }[] = [];
  for (const { id, state, found: one } of [...backups].reverse()) {
    signal?.throwIfAborted();
    const { record } = one;
    if (!record || state !== 'complete') continue;
    const { start, end } = record;
    if (catalog.systemId !== undefined && catalog.systemId !== record.systemId) continue;
    const same = done.find(
      ({ record: later, windows }) =>
        windows.every((window) => window.to !== undefined) &&
        later.start.timeline === start.timeline &&
        later.end.timeline === end.timeline &&
        later.start.lsn >= end.lsn &&
        through(later) === through(record) &&
        ways.has(end.timeline, start.lsn, later.end.lsn),
    );
    const windows = same
      ? same.windows.map((window) => ({ ...window, from: end.lsn }))
      : await windowOf(catalog, record, signal);
    if (!same) done.push({ record, windows });
    found.set(id, windows);
  }
  return found;
}
