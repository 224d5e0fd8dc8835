import type { ServerStatus } from '../status.js';
import { span } from './times.js';

export type Level = 'good' | 'warn' | 'bad';

export interface Trouble {
  level: 'warn' | 'bad';
  text: string;
  /** More of it. */
  hint?: string;
}

/** All that somebody should look at, the worst first. */
export function troublesOf(server: ServerStatus): Trouble[] {
  const all = [
    ...receiving(server),
    ...ofArchive(server),
    ...(server.stores ?? []).flatMap(ofStore(server)),
    ...(server.jobs ?? []).flatMap(ofJob),
    ...Object.entries(server.receiver?.members ?? {}).flatMap(ofMember),
  ];
  return [...all.filter(({ level }) => level === 'bad'), ...all.filter((t) => t.level === 'warn')];
}

export function levelOf(troubles: readonly Trouble[]): Level {
  return troubles[0]?.level ?? 'good';
}

/** Why a server is not well: undefined only while WAL streams and no more than allowed could be lost. */
export function unhealthy({
  state,
  ended,
  receiver,
  rpoSeconds,
  rpoLimitSeconds,
}: ServerStatus): string | undefined {
  const why = ended ?? receiver?.error;
  if (state !== 'streaming') return `${state}${why ? `: ${why.code}: ${why.message}` : ''}`;
  if (rpoSeconds > rpoLimitSeconds) {
    return `WAL of ${rpoSeconds.toFixed(1)} s is not durable here; the limit is ${rpoLimitSeconds} s`;
  }
  return undefined;
}

const bad = (text: string, hint?: string): Trouble[] => [
  { level: 'bad', text, ...(hint === undefined ? {} : { hint }) },
];
const warn = (text: string, hint?: string): Trouble[] => [
  { level: 'warn', text, ...(hint === undefined ? {} : { hint }) },
];

function receiving(server: ServerStatus): Trouble[] {
  const { state, ended, receiver, rpoSeconds, rpoLimitSeconds, silentSeconds } = server;
  const late = rpoSeconds > rpoLimitSeconds;
  const why = ended ?? receiver?.error;
  const told = why ? `: ${why.message}` : '';
  return [
    ...(state === 'held' ? bad(`Held: nothing is received${told}`, why?.hint) : []),
    ...(state === 'paused' ? (late ? bad : warn)('Paused: nothing is received') : []),
    ...(state === 'disconnected' || state === 'restarting'
      ? (late ? bad : warn)(
          `${state === 'disconnected' ? 'Not connected' : 'The receiver ended'}${told}`,
          why?.hint,
        )
      : []),
    ...(silentSeconds === undefined
      ? []
      : bad(`Nothing was heard of the receiver for ${span(silentSeconds * 1000)}`)),
    ...(late
      ? bad(
          `${span(rpoSeconds * 1000)} of commits could be lost; the limit is ${span(rpoLimitSeconds * 1000)}`,
        )
      : []),
  ];
}

/** Less than this of a slot's room is soon gone. */
const LITTLE_SLOT = 1 << 30;
const LITTLE_DISK = 1 << 30;

function ofArchive({ archive }: ServerStatus): Trouble[] {
  if (!archive) return [];
  const open = archive.gaps.filter(({ accepted }) => !accepted);
  const segments = open.reduce((sum, gap) => sum + gap.segments, 0);
  const { slot, freeBytes, backups, windows, error } = archive;
  return [
    ...(open.length > 0
      ? bad(
          `WAL is missing: ${open.length === 1 ? 'a gap' : `${open.length} gaps`} of ${segments} ${segments === 1 ? 'segment' : 'segments'}`,
          'A new full backup makes all that comes after it restorable.',
        )
      : []),
    ...(error ? bad(`The archive cannot be read: ${error.message}`, error.hint) : []),
    ...(backups.length > 0 && windows.length === 0
      ? bad('No backup can be restored', backups.at(-1)?.why)
      : []),
    ...(backups.length === 0 ? warn('There is no backup: WAL alone restores nothing') : []),
    ...(freeBytes !== undefined && freeBytes < LITTLE_DISK ? bad('The disk is nearly full') : []),
    ...(slot && !slot.exists && !slot.error ? bad(`The slot ${slot.name} is missing`) : []),
    ...(slot?.walStatus === 'lost' ? bad(`The slot ${slot.name} has lost WAL`) : []),
    ...(slot?.walStatus === 'unreserved'
      ? bad(`The slot ${slot.name} is about to lose WAL`)
      : slot?.safeBytes !== undefined && slot.safeBytes < LITTLE_SLOT
        ? warn(`The slot ${slot.name} has little room left`)
        : []),
  ];
}

const ofStore =
  ({ rpoLimitSeconds }: ServerStatus) =>
  ({ name, state, error, rpoSeconds }: NonNullable<ServerStatus['stores']>[number]): Trouble[] => {
    const told = error ? `: ${error.message}` : '';
    if (state === 'held') return bad(`Store ${name} is held${told}`, error?.hint);
    if (state === 'away') return warn(`Store ${name} does not answer${told}`, error?.hint);
    if (state === 'restarting') return warn(`Shipping to ${name} ended${told}`, error?.hint);
    // A store gets completed segments only: it is behind by nature, so this is no more than a hint.
    const late = rpoSeconds > Math.max(rpoLimitSeconds, 60);
    return late ? warn(`Store ${name} is behind by ${span(rpoSeconds * 1000)}`) : [];
  };

function ofJob({ job, place, last }: NonNullable<ServerStatus['jobs']>[number]): Trouble[] {
  if (!last || last.outcome === 'good' || last.outcome === 'ended') return [];
  const what = job.replace('_', ' ');
  const where = place === 'directory' ? '' : ` (${place})`;
  if (last.outcome === 'bad') {
    const found = last.findings === undefined ? '' : `: ${last.findings} findings`;
    return bad(`${what}${where} found something wrong${found}`, last.error?.hint);
  }
  const why = last.error ? `: ${last.error.message}` : '';
  return bad(`${what}${where} failed${why}`, last.error?.hint);
}

function ofMember([member, { covers, message }]: [
  string,
  { covers: boolean | null; message: string },
]): Trouble[] {
  return covers === true ? [] : warn(`A failover to ${member} may leave a gap: ${message}`);
}
