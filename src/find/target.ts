import { UsageError } from '../errors.js';
import { formatLsn } from '../lsn.js';
import { OBEYED } from '../text.js';
import { formatTimestamp } from '../wal/records/timestamp.js';
import { quoteWord } from '../words.js';
import { eventTime, type WalEvent } from './event.js';

/** Settings of a recovery, by name, not quoted. */
export interface RecoveryTarget {
  /** What the place is, in words. */
  description: string;
  /** To be set. PostgreSQL takes one recovery_target_* and no more. */
  settings: Record<string, string>;
  /** Other settings for the same place, each in the stead of recovery_target_lsn or _name. */
  alternatives: Record<string, string>;
}

/**
 * The settings with which PostgreSQL recovers to an event: `after`, with it, or `before`, without.
 * The place is given as the LSN at which its record begins: PostgreSQL stops at the first record
 * that begins there or later, and takes it with it if the target is inclusive. Times may occur
 * twice. For a restore point its name is enough.
 * @throws UsageError for a place that could not be read
 */
export function recoveryTarget(event: WalEvent, stop: 'before' | 'after'): RecoveryTarget {
  if (event.kind === 'damage') throw new UsageError('recovery cannot stop at unreadable WAL');
  const settings: Record<string, string> = {};
  const alternatives: Record<string, string> = {};
  const inclusive = stop === 'after' && event.kind !== 'branch';
  const timeline = event.kind === 'branch' ? event.parent : event.onTimeline;
  const description = `${inclusive ? 'with' : 'before'} ${describe(event)}`;
  settings.recovery_target_timeline = String(timeline);
  // A name that no line of postgresql.conf can hold is left to the LSN.
  if (event.kind === 'restore-point' && inclusive && printable(event.name) === event.name) {
    settings.recovery_target_name = event.name;
    alternatives.recovery_target_lsn = formatLsn(event.lsn);
    return { description, settings, alternatives };
  }
  const ended = event.kind === 'commit' || event.kind === 'abort';
  const lsn = ended && !inclusive ? event.undoLsn : event.lsn;
  settings.recovery_target_lsn = formatLsn(lsn);
  settings.recovery_target_inclusive = String(inclusive);
  // Of a dropped database more than the commit has to be left out.
  if (ended && lsn === event.lsn) alternatives.recovery_target_xid = String(event.xid);
  return { description, settings, alternatives };
}

function describe(event: Exclude<WalEvent, { kind: 'damage' }>): string {
  const time = eventTime(event);
  const at = time === undefined ? '' : ` at ${formatTimestamp(time)}`;
  switch (event.kind) {
    case 'commit':
    case 'abort':
      return `the ${event.kind} of transaction ${event.xid}${at}`;
    case 'prepare':
      return `the preparation of transaction ${event.xid}${at}`;
    case 'restore-point':
      return `restore point "${printable(event.name)}"${at}`;
    case 'branch':
      return `timeline ${event.child}, which leaves timeline ${event.parent}`;
    case 'checkpoint':
      return `the checkpoint with redo at ${formatLsn(event.redo)}`;
    case 'end-of-recovery':
      return `the end of recovery${at}`;
  }
}

/** Lines of postgresql.conf; settings that would be another way to say it as comments. */
export function targetLines(target: RecoveryTarget, places: readonly string[]): string[] {
  const line = ([name, value]: [string, string]) => `${name} = ${quoted(value)}`;
  const others = Object.entries(target.alternatives);
  const restore = `# From a backup of walkeep: ${restoreLine(target, places)}`;
  return [
    `# Recovers to just ${target.description.replace(/^with /, 'behind ')}.`,
    // A name may hold what no comment can.
    ...(printable(restore) === restore ? [restore] : []),
    line(['restore_command', restoreCommand(places)]),
    ...Object.entries(target.settings).map(line),
    ...others.map((entry) => `#${line(entry)}  # instead`),
  ];
}

/** The command that restores a backup of walkeep to the same place. */
export function restoreLine({ settings }: RecoveryTarget, places: readonly string[]): string {
  const { recovery_target_name: name, recovery_target_lsn: lsn = '' } = settings;
  const before = settings.recovery_target_inclusive === 'false' ? ' --before' : '';
  const to = name === undefined ? `${lsn}${before}` : shellWord(`name:${name}`);
  const timeline = settings.recovery_target_timeline;
  const from = places.map(shellWord).join(' ');
  return `walkeep restore --to ${to} --timeline ${timeline} ${from} PGDATA`;
}

/** Without control characters: names in WAL are anybody's, and the lines are for a terminal. */
export function printable(text: string): string {
  return text.replace(OBEYED, '?');
}

/** A value of postgresql.conf. */
function quoted(value: string): string {
  if (/^(true|false)$/.test(value)) return value;
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
}

/** The shell command that PostgreSQL runs for each file; % has a meaning in it. */
export function restoreCommand(places: readonly string[]): string {
  const words = places.map((place) => shellWord(place).replaceAll('%', '%%'));
  return `walkeep fetch ${words.join(' ')} %f %p`;
}

const shellWord = (text: string): string => (/^[\w@+=:,./-]+$/.test(text) ? text : quoteWord(text));
