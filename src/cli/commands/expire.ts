import type { WatchedLease } from '../../archive/backups/lease.js';
import type { ExpiredBackup, ExpiredWal, ExpireResult } from '../../expire/options.js';
import { formatLsn } from '../../lsn.js';
import { formatBytes } from '../../units.js';
import { ARCHIVE_OPTIONS, countOption, directoryOperand } from '../archive-options.js';
import type { Command } from '../command.js';
import { jsonLine } from '../json.js';
import { parseDuration } from '../numbers.js';
import type { OptionSpec } from '../option-spec.js';
import type { Output } from '../output.js';
import { KEY_OPTIONS, keysOf } from '../place-options.js';
import { stopOnSignals } from '../signals.js';

const GROUP = 'Options:';
const MOST_BACKUPS = 1_000_000;

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'window',
    argument: 'TIME',
    group: GROUP,
    help: 'every moment since then stays restorable, as in 7d or 12h',
    check: (text) => void parseDuration(text, '--window'),
  },
  {
    long: 'redundancy',
    argument: 'N',
    group: GROUP,
    help: 'so many full backups stay, and all that is newer than the oldest of them',
  },
  {
    long: 'dry-run',
    short: 'n',
    group: GROUP,
    help: 'show what would be removed, and why other backups stay',
  },
  {
    long: 'state',
    argument: 'DIR',
    group: GROUP,
    help: 'where "walkeep ship --state" keeps what a directory has shipped',
  },
];

/** `walkeep expire`. Exit code 3: a lock of the store holds something. */
export const command: Command = {
  takesPlace: true,
  usage: 'expire [OPTION]... PLACE',
  description:
    'Removes base backups and WAL that nothing needs any more: not the window, not a backup that ' +
    'stays, is pinned ("walkeep keep") or running, and no restore. With both --window and ' +
    '--redundancy stays what either of them asks for.',
  options: () => [...OPTIONS, ...KEY_OPTIONS, ...ARCHIVE_OPTIONS],
  async run(values, operands, { output, tryHelp }) {
    const place = directoryOperand(operands, tryHelp);
    const { expirePlace } = await import('../../expire/expire.js');
    const { signal, release } = stopOnSignals(output);
    const dryRun = values['dry-run'] === true;
    const json = values.json === true;
    const would = dryRun ? 'would remove' : 'removing';
    try {
      const result = await expirePlace(place, {
        ...keysOf(values),
        ...{ signal, dryRun, redundancy: countOption(values, 'redundancy', MOST_BACKUPS) },
        ...(typeof values.window === 'string'
          ? { window: parseDuration(values.window, '--window') }
          : {}),
        ...(typeof values.state === 'string' ? { state: values.state } : {}),
        onRemove: (removal) => {
          if (!json) output.print(`${would} ${removalText(removal)}`);
        },
        onWatch: (leases) => {
          for (const lease of leases) output.info(watchedText(lease));
        },
      });
      if (json) printJson(output, result, dryRun);
      else printResult(output, result, dryRun);
      return result.retained.length > 0 ? 3 : 0;
    } catch (error) {
      if (!signal.aborted) throw error;
      output.error('interrupted');
      return 1;
    } finally {
      release();
    }
  },
};

function removalText(removal: ExpiredBackup | ExpiredWal): string {
  if (removal.kind === 'backup') {
    const { id, stored, size, why } = removal;
    return `backup ${id}, stored ${timeText(stored)}, ${formatBytes(size)}: ${why}`;
  }
  const { timeline, from, to, segments, size } = removal;
  const count = `${segments} segment${segments === 1 ? '' : 's'}`;
  return `WAL ${formatLsn(from)} - ${formatLsn(to)} of timeline ${timeline}, ${count}, ${formatBytes(size)}`;
}

function watchedText({ id, kind, seen, until }: WatchedLease): string {
  const clock = until.toISOString().slice(11, 19);
  return `the lease of a ${kind} (${id}) gave no sign of life since ${timeText(seen)}: it is ended if it gives none until ${clock} UTC; waiting`;
}

const timeText = (time: Date): string => `${time.toISOString().slice(0, 16).replace('T', ' ')} UTC`;

function printResult(output: Output, result: ExpireResult, dryRun: boolean): void {
  const { backups, wal, kept, notes, nothing, retained } = result;
  if (dryRun) {
    for (const removal of [...backups, ...wal])
      output.print(`would remove ${removalText(removal)}`);
    for (const { id, why } of kept) output.print(`backup ${id} stays: ${why.join('; ')}`);
    for (const { timeline, from, to, why } of result.keptWal) {
      const range = `WAL ${formatLsn(from)} - ${formatLsn(to)} of timeline ${timeline}`;
      output.print(`${range} stays: ${why}`);
    }
  }
  for (const note of notes) output.info(note);
  for (const key of retained) output.warning(`a lock of the store holds "${key}"`);
  if (nothing !== undefined) output.print(`nothing is removed: ${nothing}`);
  else if (backups.length + wal.length === 0) output.print('there is nothing to remove');
}

/** One object for the place, then one for each thing. */
function printJson(output: Output, result: ExpireResult, dryRun: boolean): void {
  const { backups, wal, kept, keptWal, ...place } = result;
  const objects = [
    { type: 'expire', dryRun, ...place },
    ...[...backups, ...wal].map(({ kind, ...rest }) => ({ type: `removed-${kind}`, ...rest })),
    ...kept.map((one) => ({ type: 'kept-backup', ...one })),
    ...keptWal.map((one) => ({ type: 'kept-wal', ...one })),
  ];
  output.print(objects.map(jsonLine).join('\n'));
}
