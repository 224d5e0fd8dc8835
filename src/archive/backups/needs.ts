import { formatLsn, type Lsn, parseLsn } from '../../lsn.js';

/** What a running backup or restore cannot do without. */
export interface Needs {
  /** With their parents. */
  backups: readonly string[];
  /**
   * All from the segment with the LSN on: on the timeline, on the way to it, and on what leaves it
   * later.
   */
  wal: readonly { timeline: number; lsn: Lsn }[];
}

/** What an expire removes. */
export interface Removal {
  backups: readonly string[];
  /** Whole segments: from the first byte of the first to behind the last. */
  wal: readonly { timeline: number; from: Lsn; to: Lsn }[];
}

type Json = Record<string, unknown>;

/** The fields of a lease. */
export function needsOf({ backups, wal }: Needs): Json {
  return { backups, wal: wal.map((w) => ({ timeline: w.timeline, lsn: formatLsn(w.lsn) })) };
}

/** Undefined for what is no lease that we know. */
needsOf.parse = (content: Json | undefined): Needs | undefined =>
  parsed(content, ['timeline', 'lsn']) as Needs | undefined;

/** The settled removal of an intent; undefined: it may remove anything. */
export function removalOf(content: Json | undefined): Removal | undefined {
  return parsed(content, ['timeline', 'from', 'to']) as Removal | undefined;
}

removalOf.plain = ({ backups, wal }: Removal): Json => ({
  backups,
  wal: wal.map(({ timeline, from, to }) => ({
    ...{ timeline, from: formatLsn(from), to: formatLsn(to) },
  })),
});

function parsed(content: Json | undefined, fields: readonly string[]): unknown {
  const { backups, wal } = content ?? {};
  if (!Array.isArray(backups) || !Array.isArray(wal)) return undefined;
  try {
    return {
      backups: backups.map(String),
      wal: wal.map((one: Json) =>
        Object.fromEntries(
          fields.map((field) => {
            const value = one[field];
            return [field, field === 'timeline' ? Number(value) : parseLsn(String(value))];
          }),
        ),
      ),
    };
  } catch {
    return undefined;
  }
}

/**
 * True if a removal may take something that is needed. Timelines are not compared: who asks has read
 * no histories yet, and waits for an expire that ends soon.
 */
export function conflicts(removal: Removal | undefined, needs: Needs): boolean {
  if (!removal) return needs.backups.length > 0 || needs.wal.length > 0;
  if (removal.backups.some((id) => needs.backups.includes(id))) return true;
  return removal.wal.some(({ to }) => needs.wal.some(({ lsn }) => to > lsn));
}
