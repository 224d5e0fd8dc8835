import type { WindowStatus } from '../status.js';

/** What of one backup can be restored to on the way to one timeline. */
export interface BackupReach {
  backup: string;
  place: string;
  /** Of the end of the backup, milliseconds since 1970. */
  from: number;
  /** Of the last commit that can be reached. */
  to: number;
  timeline: number;
  /** Not a moment of it is on the way to a timeline that `latest` follows. */
  beside: boolean;
}

/**
 * The times that can be restored to: what backups reach on one way, put together where it touches.
 * @param reaches of one timeline's way, in any order
 */
export function mergeWindows(reaches: readonly BackupReach[]): WindowStatus[] {
  const sorted = reaches
    .map((reach) => ({ ...reach, to: Math.max(reach.from, reach.to) }))
    .sort((a, b) => a.from - b.from || b.to - a.to || (a.backup < b.backup ? -1 : 1));
  const merged: (typeof sorted)[number][] = [];
  for (const reach of sorted) {
    const last = merged.at(-1);
    if (last && reach.from <= last.to) last.to = Math.max(last.to, reach.to);
    else merged.push(reach);
  }
  return merged.map(({ from, to, backup, place, timeline }) => ({
    ...{ from: iso(from), to: iso(to), backup, place, timeline },
  }));
}

/** Those on the way to the timeline that recovery follows, and those of each other one. */
export function windowsOf(
  reaches: readonly BackupReach[],
  latest: number | undefined,
): { windows: WindowStatus[]; besideWindows: WindowStatus[] } {
  const others = reaches.filter((r) => r.timeline !== latest && r.beside);
  const timelines = [...new Set(others.map((r) => r.timeline))].sort((a, b) => a - b);
  return {
    windows: mergeWindows(reaches.filter((r) => r.timeline === latest)),
    besideWindows: timelines.flatMap((timeline) =>
      mergeWindows(others.filter((r) => r.timeline === timeline)),
    ),
  };
}

const iso = (time: number): string => new Date(time).toISOString();
