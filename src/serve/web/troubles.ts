import { type ArchiveStatus, type ServerStatus, whyAway } from '../status.js';

export type Level = 'good' | 'warn' | 'bad';

export interface Shown {
  level: 'warn' | 'bad';
  text: string;
  /** ISO 8601. */
  since?: string;
  /** What to do about it. */
  hint?: string;
}

/** All that somebody should look at, the worst first: what is told everywhere, and why. */
export function troublesOf(server: ServerStatus): Shown[] {
  const told = (server.troubles ?? []).map(
    ({ severity, text, since }): Shown => ({
      level: severity === 'critical' ? 'bad' : 'warn',
      ...{ text: `${text.charAt(0).toUpperCase()}${text.slice(1)}`, since },
    }),
  );
  const all = [...told, ...ofReceiver(server), ...ofBackups(server)];
  return [...all.filter(({ level }) => level === 'bad'), ...all.filter((t) => t.level === 'warn')];
}

export function levelOf(troubles: readonly Shown[]): Level {
  return troubles[0]?.level ?? 'good';
}

/** Why a server is not well: undefined only while WAL streams and no more than allowed could be lost. */
export function unhealthy(server: ServerStatus): string | undefined {
  const { state, rpoSeconds, rpoLimitSeconds } = server;
  const why = whyAway(server);
  if (state !== 'streaming') return `${state}${why ? `: ${why.code}: ${why.message}` : ''}`;
  if (rpoSeconds > rpoLimitSeconds) {
    return `WAL of ${rpoSeconds.toFixed(1)} s is not durable here; the limit is ${rpoLimitSeconds} s`;
  }
  return undefined;
}

/** States in which nothing comes, and what they mean. */
const AWAY: Readonly<Partial<Record<ServerStatus['state'], string>>> = {
  disconnected: 'Not connected',
  restarting: 'The receiver ended, another begins',
  held: 'Held until somebody has looked',
  paused: 'Paused: nothing is received',
};

function ofReceiver(server: ServerStatus): Shown[] {
  const { state, rpoSeconds, rpoLimitSeconds } = server;
  const what = AWAY[state];
  if (what === undefined) return [];
  const why = whyAway(server);
  const level = state === 'held' || rpoSeconds > rpoLimitSeconds ? 'bad' : 'warn';
  const text = why ? `${what}: ${why.message}` : what;
  return [{ level, text, ...(why?.hint === undefined ? {} : { hint: why.hint }) }];
}

function ofBackups({ archive }: ServerStatus): Shown[] {
  if (!archive) return [];
  const unread = archive.places.flatMap(({ place, error }): Shown[] =>
    error ? [{ level: 'warn', text: `Backups in ${place} cannot be read: ${error.message}` }] : [],
  );
  return [...restorable(archive), ...unread];
}

function restorable({ readAt, windows, backups }: ArchiveStatus): Shown[] {
  if (readAt === undefined || windows.length > 0) return [];
  const why = backups.at(-1)?.why;
  if (backups.length > 0) {
    const text = `No backup can be restored${why === undefined ? '' : `: ${why}`}`;
    return [{ level: 'bad', text }];
  }
  return [{ level: 'warn', text: 'There is no backup: WAL alone restores nothing' }];
}
