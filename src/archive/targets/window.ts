import type { BackupRecord } from '../../base/backup-record.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import type { TimestampTz } from '../../wal/records/timestamp.js';
import type { Catalog } from '../catalog.js';
import { type WayBegin, wayFrom } from './way.js';
import { WayMarks } from './way-marks.js';

/** What a backup can be recovered to on the way to one timeline. */
export interface BackupWindow {
  timeline: number;
  /** The end of the backup: nothing earlier. */
  from: Lsn;
  /** Nothing later; absent where not even the end of the backup can be reached. */
  to?: {
    lsn: Lsn;
    /** Of the last end of a transaction, where one is found in few segments. */
    time?: TimestampTz;
  };
  /**
   * Why it ends there: at the end of the WAL that is here, before WAL that is missing, or at WAL that
   * cannot be read. Only the last segments are read: `verify` looks at all.
   */
  ends: 'archive' | 'gap' | 'damaged';
  /** The same in words. */
  why: string;
}

/**
 * The windows of a backup, one for each timeline that goes on from it, the newest timeline first. Few
 * segments are read.
 * @throws what an archive throws
 */
export async function windowOf(
  catalog: Catalog,
  record: Pick<BackupRecord, 'start' | 'end'>,
  signal?: AbortSignal,
): Promise<BackupWindow[]> {
  const begin = beginOf(record);
  const windows: BackupWindow[] = [];
  for (const { timeline, segments, history } of [...catalog.timelines].reverse()) {
    if (segments.length === 0 && history === undefined) continue;
    const window = await windowOn(catalog, begin, timeline, signal);
    if (window) windows.push(window);
  }
  return windows;
}

async function windowOn(
  catalog: Catalog,
  begin: WayBegin,
  timeline: number,
  signal: AbortSignal | undefined,
): Promise<BackupWindow | undefined> {
  const from = begin.lsn;
  const way = wayFrom(catalog, begin, timeline);
  if ('unreachable' in way) {
    const { reason, message } = way.unreachable;
    return reason === 'in-gap' ? { timeline, from, ends: 'gap', why: message } : undefined;
  }
  const { stretch } = way;
  const marks = new WayMarks(stretch.plan, stretch, undefined, signal);
  const { end, damage } = await marks.at(stretch.behind - 1);
  const last = await marks.lastEnd();
  const time = last && last.lsn >= stretch.from ? { time: last.time } : {};
  const to = end < from ? {} : { to: { lsn: end, ...time } };
  if (damage) {
    const why = `the WAL cannot be read at ${formatLsn(damage.lsn)}: ${damage.message}`;
    return { timeline, from, ...to, ends: 'damaged', why };
  }
  if (stretch.gap) {
    const range = `${formatLsn(stretch.gap.from)} to ${formatLsn(stretch.gap.to)}`;
    return { timeline, from, ...to, ends: 'gap', why: `WAL is missing: ${range}` };
  }
  const why =
    end < from
      ? `the backup needs WAL up to ${formatLsn(from)}, and it ends at ${formatLsn(end)}`
      : `the WAL that is here ends at ${formatLsn(end)}`;
  return { timeline, from, ...to, ends: end < from ? 'gap' : 'archive', why };
}

/** What of a record its way begins with. */
export function beginOf({ start, end }: Pick<BackupRecord, 'start' | 'end'>): WayBegin {
  return { redo: start.lsn, lsn: end.lsn, timeline: end.timeline };
}
