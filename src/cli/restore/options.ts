import { resolve } from 'node:path';
import { UsageError } from '../../errors.js';
import type { RestoreOptions } from '../../restore/options.js';
import { HELP_OPTION, VERSION_OPTION } from '../command.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import { absolutePlace, KEY_OPTIONS } from '../place-options.js';
import {
  JOBS_OPTION,
  pathOption,
  TARGET_OPTIONS,
  targetArguments,
  textOption,
} from './target-options.js';

const PLACES = 'Where it goes:';
const SERVER = 'What the server is to do:';
const GROUP = 'Options:';

export const RESTORE_OPTIONS: readonly OptionSpec[] = [
  ...TARGET_OPTIONS,
  {
    ...{ long: 'delta', group: PLACES },
    help: 'into the directory of the server that was lost: read and write only what differs there',
  },
  {
    ...{ long: 'tablespace-mapping', short: 'T', argument: 'OLD=NEW', group: PLACES, many: true },
    help: 'put the tablespace that was in OLD into NEW; may be given several times',
  },
  {
    ...{ long: 'waldir', argument: 'DIR', group: PLACES },
    help: 'put pg_wal there, and a link to it into PGDATA',
  },
  {
    ...{ long: 'config-dir', argument: 'DIR', group: PLACES },
    help: 'put configuration there that the server had outside PGDATA (default: PGDATA)',
  },
  {
    ...{ long: 'polar-data', argument: 'DIR', group: PLACES },
    help: "of PolarDB: where the backup's second directory goes",
  },
  {
    ...{ long: 'owner', argument: 'USER[:GROUP]', group: PLACES },
    help: 'as root: whose the files are to be (default: the owner of PGDATA, or around it)',
  },
  {
    ...{ long: 'action', argument: 'ACTION', group: SERVER },
    help: 'at the target: pause, promote or shutdown (default: pause; latest always promotes)',
  },
  { long: 'standby', group: SERVER, help: 'go on as a standby instead of being promoted' },
  {
    ...{ long: 'primary-conninfo', argument: 'CONNINFO', group: SERVER },
    help: 'of the server that the standby streams from',
  },
  {
    ...{ long: 'keep-archiving', group: SERVER },
    help: 'leave archive_mode as it was: the server archives where the lost one did',
  },
  {
    ...{ long: 'keep-sync', group: SERVER },
    help: 'leave synchronous_standby_names: commits wait for those standbys',
  },
  {
    ...{ long: 'restore-command', argument: 'COMMAND', group: SERVER },
    help: 'in the place of the one that runs walkeep fetch on the same places; it is not tried',
  },
  {
    ...{ long: 'no-try-fetch', group: SERVER },
    help: "do not fetch WAL as the server's user first, by the command that it will run",
  },
  {
    ...{ long: 'dry-run', short: 'n', group: GROUP },
    help: 'look everything over and print the plan; write nothing',
  },
  JOBS_OPTION,
  {
    ...{ long: 'finish', group: GROUP },
    help: 'take the settings of a restore out of PGDATA again, after promotion',
  },
  ...KEY_OPTIONS,
  { long: 'json', group: GROUP, help: 'print the plan as one JSON object' },
  VERSION_OPTION,
  HELP_OPTION,
];

/** The options of a run, read and checked together. */
export interface RestoreArguments {
  restore: RestoreOptions;
  dryRun: boolean;
  json: boolean;
  /** The target is a time without a zone. */
  zoneTaken: boolean;
}

/** @throws UsageError, ParseError */
export function restoreArguments(
  values: OptionValues,
  operands: readonly string[],
  hint: string,
): RestoreArguments {
  const places = operands.slice(0, -1).map(absolutePlace);
  const dataDir = operands.at(-1);
  if (dataDir === undefined) throw new UsageError('no archive specified', { hint });
  if (places.length === 0) throw new UsageError('no data directory specified', { hint });
  const text = (name: string) => textOption(values, name);
  const path = (name: string) => pathOption(values, name);
  const { zoneTaken, ...target } = targetArguments(values);
  const conninfo = text('primary-conninfo');
  if (conninfo !== undefined && values.standby !== true) {
    throw new UsageError('--primary-conninfo needs --standby to be specified', { hint });
  }
  const restore: RestoreOptions = {
    ...{ places, dataDir: resolve(dataDir), ...target },
    tablespaces: mappings(text('tablespace-mapping')),
    ...{ walDir: path('waldir'), configDir: path('config-dir'), polarData: path('polar-data') },
    standby: values.standby === true ? { conninfo } : undefined,
    action: action(text('action'), hint),
    ...{ keepArchiving: values['keep-archiving'] === true, keepSync: values['keep-sync'] === true },
    delta: values.delta === true,
    ...{ owner: text('owner'), restoreCommand: text('restore-command') },
    tryFetch: values['no-try-fetch'] !== true,
  };
  return { restore, zoneTaken, dryRun: values['dry-run'] === true, json: values.json === true };
}

function action(text: string | undefined, hint: string): RestoreOptions['action'] {
  if (text === undefined || text === 'pause' || text === 'promote' || text === 'shutdown') {
    return text;
  }
  throw new UsageError(`invalid value "${text}" for option --action`, { hint });
}

/** As pg_basebackup's: a "=" that is part of a path has a backslash before it. */
function mappings(text: string | undefined): Record<string, string> {
  const found: Record<string, string> = {};
  for (const one of text === undefined ? [] : text.split('\n')) {
    const [old, to, more] = one.split(/(?<!\\)=/).map((part) => part.replaceAll('\\=', '='));
    if (!old || !to || more !== undefined) {
      throw new UsageError(`invalid tablespace mapping "${one}", must be "OLD=NEW"`);
    }
    found[old.replace(/(?<=.)\/+$/, '')] = resolve(to);
  }
  return found;
}
