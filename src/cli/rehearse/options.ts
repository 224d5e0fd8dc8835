import { UsageError } from '../../errors.js';
import type { RehearseOptions } from '../../rehearse/options.js';
import { countOption } from '../archive-options.js';
import { HELP_OPTION, VERSION_OPTION } from '../command.js';
import { parseIntOption } from '../numbers.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import { absolutePlace, KEY_OPTIONS } from '../place-options.js';
import {
  JOBS_OPTION,
  pathOption,
  TARGET_OPTIONS,
  targetArguments,
  textOption,
} from '../restore/target-options.js';

const SERVER = 'The server:';
const LOOK = 'What is looked at:';
const GROUP = 'Options:';

const MOST_TABLES = 1_000_000;
/** A month in seconds: longer a timer of Node.js does not run by far. */
const MOST_SECONDS = 2_000_000;

export const REHEARSE_OPTIONS: readonly OptionSpec[] = [
  ...TARGET_OPTIONS,
  {
    ...{ long: 'scratch', argument: 'DIR', group: SERVER },
    help: 'make the directory that holds everything in DIR (default: that of TMPDIR)',
  },
  {
    ...{ long: 'pg-bin', argument: 'DIR', group: SERVER },
    help: "where the server's programs are (default: looked for)",
  },
  {
    ...{ long: 'run-as', argument: 'USER', group: SERVER },
    help: 'as root: the user that the server runs as (default: postgres, or nobody)',
  },
  { long: 'promote', group: SERVER, help: 'end recovery: the server takes writes' },
  {
    ...{ long: 'keep-preload', group: SERVER },
    help: 'leave shared_preload_libraries as they are, with the workers that they start',
  },
  {
    ...{ long: 'set', argument: 'NAME=VALUE', group: SERVER, many: true },
    help: 'a setting of the server, such as a smaller shared_buffers; may be given several times',
  },
  {
    ...{ long: 'sql', argument: 'QUERY', group: LOOK, many: true },
    help:
      'has to succeed, and not to say false; may be given several times. Tables are then read only ' +
      'with --tables',
  },
  {
    ...{ long: 'dbname', short: 'd', argument: 'NAME', group: LOOK },
    help: 'database of --sql (default: postgres)',
  },
  {
    ...{ long: 'user', short: 'U', argument: 'ROLE', group: LOOK },
    help: 'role that looks (default: postgres, or the one named as who runs this)',
  },
  {
    ...{ long: 'tables', argument: 'N', group: LOOK },
    help:
      'read the catalogs and the N largest tables of each database, 256 MiB of each at most; ' +
      'all reads all of all, 0 none (default: 10)',
  },
  {
    ...{ long: 'timeout', argument: 'SECONDS', group: GROUP },
    help: 'give up after so long (default: 86400, a day)',
  },
  {
    ...{ long: 'textfile', argument: 'FILE', group: GROUP },
    help: 'write metrics for Prometheus there, in one step',
  },
  JOBS_OPTION,
  ...KEY_OPTIONS,
  { long: 'json', group: GROUP, help: 'print the report as one JSON object' },
  VERSION_OPTION,
  HELP_OPTION,
];

export interface RehearseArguments {
  rehearse: RehearseOptions;
  json: boolean;
  textfile: string | undefined;
  /** The target is a time without a zone. */
  zoneTaken: boolean;
}

/** @throws UsageError, ParseError */
export function rehearseArguments(
  values: OptionValues,
  operands: readonly string[],
  hint: string,
): RehearseArguments {
  if (operands.length === 0) throw new UsageError('no archive specified', { hint });
  const text = (name: string) => textOption(values, name);
  const path = (name: string) => pathOption(values, name);
  const { zoneTaken, ...target } = targetArguments(values);
  const seconds = countOption(values, 'timeout', MOST_SECONDS);
  const rehearse: RehearseOptions = {
    ...{ places: operands.map(absolutePlace), ...target },
    ...{ scratch: path('scratch'), pgBin: path('pg-bin'), runAs: text('run-as') },
    ...{ promote: values.promote === true, keepPreload: values['keep-preload'] === true },
    ...{ settings: settingsOf(text('set')), sql: text('sql')?.split('\n') },
    ...{ database: text('dbname'), user: text('user'), tables: tablesOf(text('tables')) },
    ...{ timeout: seconds === undefined ? undefined : seconds * 1000 },
  };
  return { rehearse, zoneTaken, json: values.json === true, textfile: path('textfile') };
}

function tablesOf(text: string | undefined): number | 'all' | undefined {
  if (text === undefined || text === 'all') return text;
  return parseIntOption(text, '--tables', 0, MOST_TABLES);
}

function settingsOf(text: string | undefined): Record<string, string> {
  const found: Record<string, string> = {};
  for (const one of text === undefined ? [] : text.split('\n')) {
    const [, name, value] = /^([A-Za-z_][\w.$]*)=(.*)$/s.exec(one) ?? [];
    if (name === undefined || value === undefined) {
      throw new UsageError(`invalid setting "${one}", must be "NAME=VALUE"`);
    }
    found[name] = value;
  }
  return found;
}
