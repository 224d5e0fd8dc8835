import { UsageError } from '../../errors.js';
import type { KeyCheck, ObjectKeys } from '../../key/check-keys.js';
import { ARCHIVE_OPTIONS, countOption } from '../archive-options.js';
import { type Command, PLACE_OPTION } from '../command.js';
import { jsonLine } from '../json.js';
import type { OptionSpec } from '../option-spec.js';
import type { Output } from '../output.js';
import { KEY_OPTIONS, keysOf } from '../place-options.js';
import { stopOnSignals } from '../signals.js';

const OPTIONS: readonly OptionSpec[] = [
  PLACE_OPTION,
  ...KEY_OPTIONS,
  {
    long: 'sample',
    argument: 'N',
    group: 'Options:',
    help: 'look at N objects beside the ends of timelines (default: 16)',
  },
  { long: 'all', group: 'Options:', help: 'look at every object' },
  ...ARCHIVE_OPTIONS,
];

const MOST_OBJECTS = 1_000_000_000;

/** `walkeep key` */
export const command: Command = {
  usage: 'key check [OPTION]... PLACE',
  description:
    'Says which of the identities given open what an archive holds. It reads the beginnings of ' +
    'objects: of the oldest and newest segment of each timeline, of what is unfinished, and of some ' +
    'between. Ends with 1 if one of them is opened by no identity.',
  options: () => OPTIONS,
  async run(values, operands, { output, tryHelp }) {
    const place = placeOf(operands, values.directory, tryHelp);
    const sample = countOption(values, 'sample', MOST_OBJECTS);
    const all = values.all === true;
    if (all && sample !== undefined) {
      throw new UsageError('--all and --sample exclude each other', { hint: tryHelp });
    }
    const { checkKeys, isOpen } = await import('../../key/check-keys.js');
    const { signal, release } = stopOnSignals(output);
    try {
      const found = await checkKeys(place, { ...keysOf(values), all, sample, signal });
      if (values.json === true) printJson(output, place, found);
      else printText(output, place, found);
      return (found.objects ?? []).every(isOpen) ? 0 : 1;
    } catch (error) {
      if (!signal.aborted) throw error;
      output.error('interrupted');
      return 2;
    } finally {
      release();
    }
  },
};

function placeOf(operands: readonly string[], directory: unknown, hint: string): string {
  const [word, ...named] = operands;
  const [place, extra] = typeof directory === 'string' ? [directory, ...named] : named;
  const misuse = (message: string): UsageError => new UsageError(message, { hint });
  if (word === undefined) throw misuse('no action specified: check');
  if (word !== 'check') throw misuse(`unrecognized action "${word}": it is check`);
  if (place === undefined) throw misuse('no archive specified');
  if (extra !== undefined) throw misuse(`too many command-line arguments (first is "${extra}")`);
  return place;
}

/** An object of the store a line. */
function printJson(output: Output, place: string, { objects }: KeyCheck): void {
  const lines = objects ?? [{ place, encrypted: false }];
  output.print(lines.map(jsonLine).join('\n'));
}

function printText(output: Output, place: string, { objects, total, identities }: KeyCheck): void {
  if (!objects) {
    output.print(`nothing is encrypted in "${place}": it is a flat directory`);
    return;
  }
  const lines = grouped(objects).flatMap(groupLines);
  lines.push(`looked at ${objects.length} of ${count(total, 'object')}`);
  const used = new Set(objects.flatMap(({ openedBy }) => openedBy));
  for (const identity of identities) {
    if (!used.has(identity)) lines.push(`opens nothing: ${shortened(identity)}`);
  }
  output.print(lines.join('\n'));
}

/** Neighbours of which the same is to be said. */
function grouped(objects: readonly ObjectKeys[]): ObjectKeys[][] {
  const groups: ObjectKeys[][] = [];
  let before: string | undefined;
  for (const object of objects) {
    const { key: _key, name, ...facts } = object;
    const answer = JSON.stringify([name.slice(0, 8), facts]);
    if (answer === before) groups.at(-1)?.push(object);
    else groups.push([object]);
    before = answer;
  }
  return groups;
}

function groupLines(group: readonly ObjectKeys[]): string[] {
  const [first] = group as [ObjectKeys];
  const last = group.at(-1) as ObjectKeys;
  const lines = [first === last ? first.name : `${first.name} - ${last.name}`];
  const objects = count(group.length, 'object');
  const { problem, encrypted, recipients, openedBy } = first;
  if (problem !== undefined) return [...lines, `  ${objects}: ${problem}`];
  if (!encrypted) return [...lines, `  ${objects}, not encrypted`];
  lines.push(`  ${objects}, encrypted for ${count(recipients, 'recipient')}`);
  if (openedBy.length === 0) return [...lines, '  opened by none of these identities'];
  return [...lines, ...openedBy.map((identity) => `  opened by ${shortened(identity)}`)];
}

const count = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`;

/** Those of post-quantum identities have 2000 characters. */
function shortened(recipient: string): string {
  return recipient.length <= 62 ? recipient : `${recipient.slice(0, 49)}…${recipient.slice(-12)}`;
}
