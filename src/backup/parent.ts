import type { Archive } from '../archive/archive.js';
import type { BackupArea } from '../archive/backups/area.js';
import { readBackups, readRecord } from '../archive/backups/catalog.js';
import { chainOf, linkProblem } from '../archive/backups/chain.js';
import { BackupReader } from '../archive/backups/reader.js';
import { judgeBackups, type PlacedBackup } from '../archive/backups/state.js';
import type { ArchiveKeys } from '../archive/places/open-archive.js';
import type { BackupRecord } from '../base/backup-record.js';
import { parseBackupLabel } from '../base/label.js';
import { parseManifest } from '../base/manifest.js';
import {
  CorruptObjectError,
  EncryptedError,
  NoIncrementalError,
  type ServerError,
  StoreAccessError,
  UsageError,
} from '../errors.js';
import { formatLsn } from '../lsn.js';
import type { ServerState } from '../server/server-state.js';
import { commonTimeline, isInHistory, timelineEnd } from '../wal/timeline.js';
import type { BackupSource } from './source.js';

/** What an incremental backup is based on. */
export interface BackupParent {
  /** The newest first, the full one last. */
  chain: [BackupRecord, ...BackupRecord[]];
  /** Of the first of them, as the server made it. */
  manifest: Buffer;
}

/** The first version that takes incremental backups. */
const PG17 = 170_000;
const MANIFEST = 'backup_manifest';

/**
 * Finds what an incremental backup is to be based on, and reads its manifest.
 * @param which `last`, `full`, or an ID
 * @throws NoIncrementalError where there is nothing, or it cannot be read; UsageError for an ID that
 *   is not there; StoreUncertainError
 */
export async function findParent(
  source: Pick<BackupSource, 'archive' | 'area' | 'state' | 'facts' | 'physical'>,
  which: string,
  keys: ArchiveKeys,
  signal: AbortSignal | undefined,
): Promise<BackupParent> {
  const { archive, area, state, facts, physical } = source;
  requireServer(physical.serverVersion, facts.summarizeWal);
  const found = await readBackups(area, signal);
  const backups = judgeBackups(found, { leases: [], now: new Date() });
  const parent = chosen(backups, which, state, area.place);
  const records = new Map(backups.flatMap(({ found: { record } }) => asEntry(record)));
  const chain = chainOf(parent, (id) => records.get(id));
  if ('broken' in chain) throw new NoIncrementalError(chain.broken);
  await requireTimeline(archive, parent, state);
  const manifest = await manifestOf(area, parent, keys, signal);
  return { chain: chain.chain as BackupParent['chain'], manifest };
}

const asEntry = (record: BackupRecord | undefined): [string, BackupRecord][] =>
  record ? [[record.id, record]] : [];

/** @throws NoIncrementalError */
function requireServer(serverVersion: number, summarizeWal: boolean | undefined): void {
  if (serverVersion < PG17) {
    throw new NoIncrementalError('the server is older than PostgreSQL 17', {
      hint: 'Servers from 17 on can tell what changed since a backup.',
    });
  }
  if (summarizeWal !== false) return;
  throw new NoIncrementalError('the server does not summarize its WAL', { hint: SUMMARIZE });
}

const SUMMARIZE =
  'Set summarize_wal = on there and reload it: backups that begin from then on can be based on.';

/** @throws NoIncrementalError, UsageError */
function chosen(
  backups: readonly PlacedBackup[],
  which: string,
  state: ServerState,
  place: string,
): BackupRecord {
  const isNamed = which !== 'last' && which !== 'full';
  if (isNamed) {
    const named = backups.find(({ id }) => id === which);
    const record = named?.found.record;
    if (!named || (!record && !named.problem)) {
      throw new UsageError(`"${place}" has no backup ${which}`, {
        hint: '"walkeep backups" lists those that there are.',
      });
    }
    const why = !record || named.state !== 'complete' ? named.problem : unfit(record, state);
    if (!record || why !== undefined) throw new NoIncrementalError(`backup ${which}: ${why}`);
    return record;
  }
  const records = backups.flatMap(({ state: is, found: { record } }) =>
    is === 'complete' && record && (which === 'last' || record.parent === undefined)
      ? [record]
      : [],
  );
  const [newest] = records.filter((record) => unfit(record, state) === undefined).sort(newestFirst);
  if (newest) return newest;
  const [other] = records;
  const why = other && `: backup ${other.id}: ${unfit(other, state)}`;
  throw new NoIncrementalError(`there is no backup that it can be based on${why ?? ''}`);
}

/**
 * Of one that another was merged into, the merged one: its chain is the shorter. Its ID does not tell,
 * which may be of the same second.
 */
function newestFirst(a: BackupRecord, b: BackupRecord): number {
  if (a.end.lsn !== b.end.lsn) return a.end.lsn < b.end.lsn ? 1 : -1;
  const chained = Number(a.parent !== undefined) - Number(b.parent !== undefined);
  return chained || (a.id < b.id ? 1 : -1);
}

/** Why the server cannot tell what changed since a backup. */
function unfit(record: BackupRecord, { systemId, history }: ServerState): string | undefined {
  if (record.systemId !== systemId) return 'it is of another cluster';
  if (record.tars.some(({ name }) => name === 'data.tar')) return 'it is of PolarDB';
  for (const { lsn, timeline } of [record.start, record.end]) {
    const end = timelineEnd(history, timeline);
    if (isInHistory(history, timeline) && (end === undefined || lsn <= end)) continue;
    return `it was taken at ${formatLsn(lsn)} on timeline ${timeline}, which is not in the history of the server, on timeline ${history.timeline}`;
  }
  return undefined;
}

/**
 * Two servers that were promoted from one count on with one number: a server believes that a backup on
 * such a timeline is of its own past. The history in the archive is that of whom the backup is of.
 * @throws NoIncrementalError; what the archive throws where it cannot tell
 */
async function requireTimeline(
  archive: Archive,
  { id, end: { timeline } }: BackupRecord,
  { history }: ServerState,
): Promise<void> {
  if (timeline === 1) return;
  const stored = await archive.history(timeline);
  if (stored.state !== 'good') return;
  if (commonTimeline(stored.history, history) === timeline) return;
  throw new NoIncrementalError(
    `backup ${id} was taken on another timeline ${timeline} than that of the server`,
    { hint: 'Two servers were promoted from one: each needs an archive of its own.' },
  );
}

/** @throws NoIncrementalError, StoreUncertainError */
async function manifestOf(
  area: BackupArea,
  record: BackupRecord,
  keys: ArchiveKeys,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const reader = new BackupReader(area, record, keys);
  try {
    const bytes = await reader.content(MANIFEST, signal);
    const { version, systemId, walRanges } = parseManifest(bytes, reader.key(MANIFEST));
    if (version < 2) {
      throw new NoIncrementalError(`the manifest of backup ${record.id} is of an older PostgreSQL`);
    }
    const first = walRanges.at(-1);
    const { start } = record;
    if (systemId !== record.systemId || first?.start !== start.lsn) {
      throw new NoIncrementalError(`the manifest of backup ${record.id} is of another backup`);
    }
    return bytes;
  } catch (cause) {
    const isReason =
      cause instanceof CorruptObjectError ||
      cause instanceof EncryptedError ||
      cause instanceof StoreAccessError;
    if (!isReason) throw cause;
    throw new NoIncrementalError(cause.message, {
      cause,
      ...(cause instanceof EncryptedError
        ? { hint: 'Give the key with --identity: the server has to see the manifest.' }
        : {}),
    });
  }
}

/**
 * That all of it is still there, now that a lease keeps it so.
 * @throws NoIncrementalError, StoreUncertainError
 */
export async function requireChain(
  area: BackupArea,
  { chain }: BackupParent,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const { id } of chain) {
    const { record } = await readRecord(area, id, signal);
    if (!record) throw new NoIncrementalError(`backup ${id} was removed a moment ago`);
  }
}

/**
 * That a backup is based on the one that it is meant to be based on, or on none.
 * @param content of its backup_label
 * @throws CorruptObjectError
 */
export function requireBasedOn(
  content: Buffer,
  id: string,
  parent: BackupRecord | undefined,
): BackupRecord['incrementalFrom'] {
  const { incrementalFrom } = parseBackupLabel(content);
  if (!parent && !incrementalFrom) return undefined;
  if (!parent) throw new CorruptObjectError('the server sent an incremental backup instead of all');
  if (!incrementalFrom) throw new CorruptObjectError('the server sent no incremental backup');
  const { systemId, start } = parent;
  const child = { id, parent: parent.id, incrementalFrom, systemId, start };
  const why = linkProblem(child, parent);
  if (why !== undefined) throw new CorruptObjectError(`the server sent another backup: ${why}`);
  return incrementalFrom;
}

/** What helps where the server refuses, by the words of basebackup_incremental.c and basebackup.c. */
const REFUSALS: readonly [RegExp, string][] = [
  [/WAL summarization is enabled/, SUMMARIZE],
  [
    /WAL summaries are required/,
    'Since that backup summarize_wal was off for a while, or the summaries were removed: let wal_summary_keep_time be longer than the time from one backup to the next.',
  ],
  [
    /manifest requires WAL from final timeline/,
    'A standby begins with its last restart point, which lies before the end of that backup: run CHECKPOINT on the primary and wait for the next restart point, or take the backup from the primary.',
  ],
  [
    /WAL summarization is not progressing/,
    'The log of the server tells why its WAL summarizer does not come on.',
  ],
];

/** A refusal of the server, before anything of a backup came. */
export function serverRefusal(cause: ServerError): NoIncrementalError {
  const { message, severity, detail } = cause;
  const said = message
    .slice(message.indexOf(`${severity}: `))
    .replace(`${severity}: `, '')
    .trim();
  const hint = REFUSALS.find(([words]) => words.test(message))?.[1] ?? cause.hint;
  return new NoIncrementalError(`the server refuses: ${said}`, {
    cause,
    ...(hint === undefined ? {} : { hint }),
    ...(detail === undefined ? {} : { detail }),
  });
}
