import { UsageError } from '../errors.js';
import type { FindOptions } from '../find/find.js';
import { parseTimestamp, type TimestampTz } from '../wal/records/timestamp.js';
import { ARCHIVE_OPTIONS, countOption, lsnOption } from './archive-options.js';
import type { OptionSpec, OptionValues } from './option-spec.js';
import { absolutePlace, KEY_OPTIONS, keysOf } from './place-options.js';

const U32_MAX = 0xffff_ffff;

const WHICH = 'Which events:';
const HOW = 'What to do with them:';

export const FIND_OPTIONS: readonly OptionSpec[] = [
  {
    ...{ long: 'at', argument: 'TIME', group: WHICH },
    help: 'the last commit that recovery to TIME has, and the next one',
  },
  { long: 'after', argument: 'TIME', group: WHICH, help: 'not earlier' },
  { long: 'before', argument: 'TIME', group: WHICH, help: 'not later' },
  { long: 'since', argument: 'LSN', group: WHICH, help: 'from there on' },
  { long: 'until', argument: 'LSN', group: WHICH, help: 'up to there' },
  {
    ...{ long: 'xid', argument: 'N', group: WHICH },
    help: 'of transaction N, or the one it is a subtransaction of',
  },
  { long: 'restore-point', argument: 'NAME', group: WHICH, help: 'restore points of that name' },
  {
    ...{ long: 'drops', group: WHICH },
    help: 'commits that dropped, truncated or rewrote relations, or dropped databases',
  },
  {
    ...{ long: 'timeline', argument: 'N', group: WHICH },
    help: 'follow the way to timeline N (default: the newest)',
  },
  {
    ...{ long: 'beyond-fork', group: WHICH },
    help: 'with --timeline: transactions that the timeline which followed did not take over',
  },
  {
    ...{ long: 'full', group: WHICH },
    help: 'read all WAL, also where by its times nothing can be: for clocks that went back by more than an hour',
  },
  {
    ...{ long: 'limit', argument: 'N', group: HOW },
    help: 'stop after N events',
  },
  {
    ...{ long: 'target', group: HOW },
    help: 'print settings for a recovery to the one event that is found',
  },
  {
    ...{ long: 'stop', argument: 'WHERE', group: HOW },
    help: 'with --target: "before" or "after" the event (default: after; with --drops before)',
  },
  {
    ...{ long: 'jobs', short: 'j', argument: 'N', group: 'Options:' },
    help: 'read with N threads (default: one for each core)',
  },
  ...KEY_OPTIONS,
  ...ARCHIVE_OPTIONS,
];

/** The options of a run, read and checked together. */
export interface FindArguments {
  /** Absolute, or URLs. */
  places: string[];
  find: FindOptions;
  at?: TimestampTz;
  limit: number;
  json: boolean;
  target: boolean;
  stop: 'before' | 'after';
}

/** @throws UsageError for what contradicts itself */
export function findArguments(
  values: OptionValues,
  operands: readonly string[],
  hint: string,
): FindArguments {
  if (operands.length === 0) throw new UsageError('no directory specified', { hint });
  const places = operands.map(absolutePlace);
  const text = (name: string) => {
    const value = values[name];
    return typeof value === 'string' ? value : undefined;
  };
  const time = (name: string) => {
    const value = text(name);
    return value === undefined ? undefined : parseTimestamp(value);
  };
  const at = time('at');
  const others = ['after', 'before', 'xid', 'restore-point', 'drops', 'beyond-fork', 'limit'];
  const other = others.find((name) => values[name] !== undefined);
  if (at !== undefined && other !== undefined) {
    throw new UsageError(`--at cannot be used together with --${other}`, { hint });
  }
  if (values['beyond-fork'] === true && values.timeline === undefined) {
    throw new UsageError('--beyond-fork needs --timeline to be specified', { hint });
  }
  const target = values.target === true;
  const stop = text('stop');
  if (stop !== undefined && stop !== 'before' && stop !== 'after') {
    throw new UsageError(`invalid value "${stop}" for option --stop`, { hint });
  }
  if (stop !== undefined && !target) {
    throw new UsageError('--stop needs --target to be specified', { hint });
  }
  const find: FindOptions = defined({
    timeline: countOption(values, 'timeline', U32_MAX),
    since: lsnOption(values, 'since'),
    until: lsnOption(values, 'until'),
    after: time('after'),
    before: time('before'),
    xid: countOption(values, 'xid', U32_MAX),
    restorePoint: text('restore-point'),
    drops: values.drops,
    beyondFork: values['beyond-fork'],
    full: values.full,
    jobs: countOption(values, 'jobs', 1024),
    keys: keysOf(values),
  });
  return {
    ...{ places, find, target },
    ...(at === undefined ? {} : { at }),
    limit: countOption(values, 'limit', U32_MAX) ?? Number.POSITIVE_INFINITY,
    json: values.json === true,
    stop: stop ?? (values.drops === true ? 'before' : 'after'),
  };
}

/** Without the members that are undefined. */
function defined(members: Record<string, unknown>): FindOptions {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
