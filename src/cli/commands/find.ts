import type { WalEvent } from '../../find/event.js';
import type { FindResult, MomentResult } from '../../find/find.js';
import { tameJson } from '../../text.js';
import { formatTimestamp } from '../../wal/records/timestamp.js';
import type { Command, CommandContext } from '../command.js';
import { FIND_OPTIONS, type FindArguments, findArguments } from '../find-options.js';
import { damageText, jsonEvent, namesHint, tableHeader, tableLines } from '../find-output.js';
import { progressBar } from '../progress.js';
import { stopOnSignals } from '../signals.js';

/** Like grep's: found, not found, could not tell. */
const FOUND = 0;
const NOTHING = 1;
const TROUBLE = 2;

/** Matches shown where --target finds more than one. */
const SHOWN = 10;

/** `walkeep find` */
export const command: Command = {
  takesPlace: true,
  usage: 'find [OPTION]... PLACE...',
  description:
    'Finds points to recover to in the WAL of an archive: commits, restore points, checkpoints, ' +
    'timelines, and transactions that dropped or truncated relations. A PLACE is a directory or ' +
    'the URL of a store; several of one cluster are read as one. ' +
    'TIME is YYYY-MM-DD HH:MM:SS.ffffff+ZZ, without +ZZ local. ' +
    'Exits with 0 if something was found, 1 if not, and 2 if that cannot be told.',
  options: () => FIND_OPTIONS,
  async run(values, operands, context) {
    const { output } = context;
    const { signal, release } = stopOnSignals(output);
    try {
      const args = findArguments(values, operands, context.tryHelp);
      args.find.signal = signal;
      if (output.live) args.find.onProgress = progressBar(output);
      return args.at === undefined ? await list(args, context) : await moment(args, context);
    } catch (error) {
      if (!signal.aborted) throw error;
      output.error('interrupted');
      return TROUBLE;
    } finally {
      output.clearStatus();
      release();
    }
  },
};

async function list(args: FindArguments, context: CommandContext): Promise<number> {
  const { findEvents } = await import('../../find/find.js');
  const { output } = context;
  const print = printer(args, context);
  const matches: WalEvent[] = [];
  let found = 0;
  let names: string | undefined;
  const result = await findEvents(args.places, args.find, (event) => {
    if (event.kind === 'damage') {
      print(event);
      return false;
    }
    found++;
    if (args.find.drops && !args.json && !args.target) names = namesHint(event) ?? names;
    if (!args.target) print(event);
    else if (matches.length <= SHOWN) matches.push(event);
    return found >= args.limit;
  });
  warnOf(result, args, context);
  output.clearStatus();
  if (found === 0) output.info('nothing found');
  if (names !== undefined) output.hint(names);
  if (!result.complete) return doubt(args, context);
  if (found === 0) return NOTHING;
  return args.target ? target(matches, args, context) : FOUND;
}

/** What was not read may hold events that were asked for: another drop, an earlier commit. */
function doubt({ target }: FindArguments, { output }: CommandContext): number {
  output.error(`not all WAL in the range could be read${target ? ', so no target is clear' : ''}`);
  output.hint(
    'Choose a range that is whole with --since and --until; "walkeep verify" tells more.',
  );
  return TROUBLE;
}

async function moment(args: FindArguments, context: CommandContext): Promise<number> {
  const { findMoment } = await import('../../find/find.js');
  const result = await findMoment(args.places, args.at!, args.find);
  const print = printer(args, context);
  warnOf(result, args, context);
  for (const damage of result.damages) print(damage);
  if (!args.target) {
    for (const event of [result.last, result.next]) if (event) print(event);
  }
  if (!args.target || !result.last) explain(result, args, context);
  if (!result.complete) return doubt(args, context);
  if (!result.last) return NOTHING;
  return args.target ? target([result.last], args, context) : FOUND;
}

/** What was not looked at. */
function warnOf(result: FindResult, { find }: FindArguments, { output }: CommandContext): void {
  const { timeline, orphan, unfollowed, passedOver } = result;
  for (const { path, problem, instead } of passedOver) {
    output.warning(
      `"${path}" is damaged, "${instead}" was read for it: ${problem}`,
      'Put a good copy in its place: "walkeep fetch" takes one from the other place.',
    );
  }
  if (orphan) {
    output.warning(
      `the history of timeline ${timeline} is not in the archive: its ancestors were not read`,
    );
  }
  if (unfollowed.length === 0 || find.timeline !== undefined) return;
  output.warning(
    `looked along timeline ${timeline}, which is received; timeline ${unfollowed.join(', ')} never was`,
    `--timeline ${unfollowed.at(-1)} looks along that; recovery to the latest timeline would follow it.`,
  );
}

/** What is missing of the two commits around a time. */
function explain(result: MomentResult, args: FindArguments, { output }: CommandContext): void {
  const at = formatTimestamp(args.at!);
  if (!result.last) output.info(`the archive has no commit up to ${at}`);
  if (!result.next) output.info(`the archive has no commit after ${at}`);
}

/** Prints the settings for one event; which one is meant must be clear. */
async function target(
  matches: readonly WalEvent[],
  args: FindArguments,
  { output }: CommandContext,
): Promise<number> {
  const { recoveryTarget, restoreCommand, restoreLine, targetLines } = await import(
    '../../find/target.js'
  );
  // A prepared transaction counts when it ends.
  const ends = matches.filter((event) => event.kind !== 'prepare');
  const choice = ends.length > 0 ? ends : matches;
  const [event, second] = choice;
  if (!event || second) {
    const many = choice.length > SHOWN ? `more than ${SHOWN}` : choice.length;
    output.error(`--target needs one event, and ${many} were found`);
    for (const one of choice.slice(0, SHOWN)) output.info(tableLines(one)[0]!);
    output.hint('Choose one with --xid, or with --since and --until.');
    return TROUBLE;
  }
  const found = recoveryTarget(event, args.stop);
  if (args.json) {
    const settings = { restore_command: restoreCommand(args.places), ...found.settings };
    const { alternatives } = found;
    const restore = restoreLine(found, args.places);
    const line = { kind: 'target', settings, alternatives, restore, event: jsonEvent(event) };
    output.print(tameJson(JSON.stringify(line)));
  } else output.print(targetLines(found, args.places).join('\n'));
  return FOUND;
}

/** Prints events as they come; unreadable places to stderr where a person reads. */
function printer(args: FindArguments, { output }: CommandContext): (event: WalEvent) => void {
  let header = false;
  return (event) => {
    if (args.json) {
      output.print(tameJson(JSON.stringify(jsonEvent(event))));
      return;
    }
    if (event.kind === 'damage') {
      output.warning(damageText(event));
      return;
    }
    if (!header) output.print(tableHeader());
    header = true;
    output.print(tableLines(event).join('\n'));
  };
}
