import { readFile } from 'node:fs/promises';
import { CODECS, isLevelOf } from '../codec/codecs.js';
import { UsageError } from '../errors.js';
import { storageError } from '../files/durable.js';
import type { KeepLocal, ShipCompression, ShipOptions } from '../ship/options.js';
import { parsePlace } from '../store/place.js';
import { COMPRESSIONS } from '../wal/file-name.js';
import { HELP_OPTION, VERSION_OPTION } from './command.js';
import { bytesOf, durationOf, parseIntOption } from './numbers.js';
import type { OptionSpec, OptionValues } from './option-spec.js';

/** `--keep-local`: `2d` or `100GB`. @throws UsageError */
export function parseKeepLocal(text: string): KeepLocal {
  const age = durationOf(text);
  if (age !== undefined) return { age };
  const size = bytesOf(text);
  if (size !== undefined) return { size };
  throw new UsageError(`invalid value "${text}" for option --keep-local`, {
    hint: 'Give a time (s, m, h, d, w) or a size (kB, MB, GB, TB), such as 2d or 100GB.',
  });
}

/** `--compress`: a method, and where it has one a level. @throws UsageError */
export function parseShipCompression(text: string): ShipCompression {
  const [, name = '', digits] = /^([a-z0-9]+)(?::(-?\d+))?$/.exec(text) ?? [];
  const method = COMPRESSIONS.find((m) => m === name);
  const level = digits === undefined ? undefined : Number(digits);
  if (method && level === undefined) return { method };
  if (method && level !== undefined && isLevelOf(method, level)) return { method, level };
  const { zstd, gzip } = CODECS;
  throw new UsageError(`invalid value "${text}" for option --compress`, {
    hint: `Give zstd, gzip, lz4 or none; zstd takes a level up to ${zstd.levels.max}, gzip from ${gzip.levels.min} to ${gzip.levels.max}, as in zstd:9.`,
  });
}

const parseJobs = (text: string): number => parseIntOption(text, '-j/--jobs', 1, 64);
const parseWait = (text: string): number => parseIntOption(text, '--wait', 0, 1_000_000);

const OPTIONS = 'Options:';
const STORED = 'What is stored elsewhere:';

/** How something is stored, below a heading of its own. */
export const storedOptionsUnder = (group: string): readonly OptionSpec[] => [
  {
    long: 'recipient',
    argument: 'age1…',
    many: true,
    group,
    help: 'encrypt to this age recipient; may be given several times',
  },
  {
    long: 'recipients-file',
    argument: 'FILE',
    many: true,
    group,
    help: 'encrypt to the age recipients in this file, one a line',
  },
  {
    long: 'unfenced',
    group,
    help: 'use a store without conditional writes; nobody else must write there',
  },
  {
    long: 'new-system',
    group,
    help: 'take this cluster in beside the one that is there, as after pg_upgrade',
  },
];

const STORED_OPTIONS = storedOptionsUnder(STORED);

/** And what is kept of it: also of `receive --store`. */
const SENT_OPTIONS: readonly OptionSpec[] = [
  ...STORED_OPTIONS,
  {
    long: 'keep-local',
    argument: 'AGE|SIZE',
    group: STORED,
    help: 'remove local segments that all places have and that are older, or more, than this',
    check: parseKeepLocal,
  },
];

const COMPRESS_OPTION: OptionSpec = {
  long: 'compress',
  short: 'Z',
  argument: 'METHOD[:LEVEL]',
  group: STORED,
  help: 'zstd, gzip, lz4 or none (default: zstd, with Node.js before 22.15 gzip:1)',
  check: parseShipCompression,
};

/** What `push` takes of it. */
export const PUSHED_OPTIONS: readonly OptionSpec[] = [COMPRESS_OPTION, ...STORED_OPTIONS];

export const SHIP_OPTIONS: readonly OptionSpec[] = [
  { long: 'once', group: OPTIONS, help: 'end when all that is there is shipped' },
  {
    long: 'wait',
    argument: 'SECS',
    group: OPTIONS,
    help: 'with --once: how long to try a place that does not answer',
    default: '60',
    check: parseWait,
  },
  {
    long: 'jobs',
    short: 'j',
    argument: 'N',
    group: OPTIONS,
    help: 'segments on their way at the same time, for each place',
    default: '2',
    check: parseJobs,
  },
  {
    long: 'state',
    argument: 'DIR',
    group: OPTIONS,
    help: 'keep progress here rather than in SOURCE',
  },
  COMPRESS_OPTION,
  ...SENT_OPTIONS,
  { long: 'json', group: OPTIONS, help: 'print one JSON object for each event, a line each' },
  { long: 'verbose', short: 'v', group: OPTIONS, help: 'tell of everything that is stored' },
  VERSION_OPTION,
  HELP_OPTION,
];

/** What `receive` takes of it. */
export const STORE_OPTIONS: readonly OptionSpec[] = [
  {
    long: 'store',
    argument: 'PLACE',
    many: true,
    group: STORED,
    help: 'ship all that is received there, by a process beside; may be given several times',
    check: parsePlace,
  },
  {
    long: 'store-compress',
    argument: 'METHOD[:LEVEL]',
    group: STORED,
    help: 'how it is stored there, as --compress of "walkeep ship"',
    check: parseShipCompression,
  },
  ...SENT_OPTIONS,
];

/** The command line of the `ship` that runs beside; undefined if nothing is to be shipped. */
export function shipArguments(values: OptionValues, directory: string): string[] | undefined {
  const places = listOption(values, 'store');
  const more = SENT_OPTIONS.flatMap(({ long, many }) => {
    const value = values[long];
    if (value === undefined) return [];
    if (value === true) return [`--${long}`];
    return (many ? listOption(values, long) : [value]).map((one) => `--${long}=${one}`);
  });
  const compress = values['store-compress'];
  const how = compress === undefined ? [] : [`--compress=${compress}`];
  if (places.length > 0) return [...how, ...more, '--', directory, ...places];
  const [lone] = compress === undefined ? more : ['--store-compress'];
  if (lone === undefined) return undefined;
  throw new UsageError(`${lone.split('=')[0]} needs a place to be specified using --store`);
}

/** The values of an option that may be given several times. */
export function listOption(values: OptionValues, name: string): string[] {
  const value = values[name];
  return typeof value === 'string' ? value.split('\n') : [];
}

/** How a command line asks what is stored to be made. @throws UsageError */
export function storedOptions(values: OptionValues) {
  const { compress } = values;
  return {
    ...(typeof compress === 'string' ? { compression: parseShipCompression(compress) } : {}),
    recipients: listOption(values, 'recipient'),
    recipientFiles: listOption(values, 'recipients-file'),
    unfenced: values.unfenced === true,
    newSystem: values['new-system'] === true,
  };
}

/** What a command line asks for. @throws UsageError */
export function shipOptions(
  values: OptionValues,
  operands: readonly string[],
  tryHelp: string,
): ShipOptions & { recipientFiles: string[] } {
  const text = (name: string): string | undefined => {
    const value = values[name];
    return typeof value === 'string' ? value : undefined;
  };
  const [source, ...places] = operands;
  if (source === undefined) throw new UsageError('no source specified', { hint: tryHelp });
  if (places.length === 0) throw new UsageError('no place specified', { hint: tryHelp });
  const keepLocal = text('keep-local');
  const state = text('state');
  return {
    source,
    places,
    once: values.once === true,
    giveUpAfter: parseWait(text('wait') ?? '60') * 1000,
    jobs: parseJobs(text('jobs') ?? '2'),
    ...storedOptions(values),
    ...(keepLocal === undefined ? {} : { keepLocal: parseKeepLocal(keepLocal) }),
    ...(state === undefined ? {} : { state }),
  };
}

/** The age recipients in files, one a line; `#` begins a comment. @throws StorageError */
export async function recipientsFrom(paths: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const path of paths) {
    const text = await readFile(path, 'utf8').catch((e) => {
      throw storageError('read file', path, e);
    });
    const lines = text.split('\n').map((line) => line.trim());
    found.push(...lines.filter((line) => line !== '' && !line.startsWith('#')));
  }
  return found;
}
