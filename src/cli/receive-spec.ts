import { UsageError } from '../errors.js';
import { INVALID_LSN, type Lsn, parseLsn } from '../lsn.js';
import { parsePlace } from '../store/place.js';
import { HELP_OPTION, VERSION_OPTION } from './command.js';
import { compressionHelp } from './compression.js';
import { CONNECTION_GROUP, CONNECTION_OPTIONS, MEMBER_OPTIONS } from './connection-options.js';
import { INT_MAX, parseIntOption } from './numbers.js';
import type { OptionSpec, ProgramName } from './option-spec.js';
import { KEY_OPTIONS } from './place-options.js';
import { STORE_OPTIONS } from './ship-options.js';

/** Seconds that still fit an int as milliseconds, upstream's bound for `-s`. */
const MAX_SECONDS = Math.floor(INT_MAX / 1000);

/** `-s`. @throws UsageError */
export function parseStatusInterval(text: string): number {
  return parseIntOption(text, '-s/--status-interval', 0, MAX_SECONDS);
}

/** `--receive-timeout`. @throws UsageError */
export function parseReceiveTimeout(text: string): number {
  return parseIntOption(text, '--receive-timeout', 0, MAX_SECONDS);
}

/** `-E`; undefined for 0/0, which is no position. @throws UsageError */
export function parseEndPosition(text: string): Lsn | undefined {
  try {
    const lsn = parseLsn(text.trim());
    return lsn === INVALID_LSN ? undefined : lsn;
  } catch (cause) {
    throw new UsageError(`could not parse end position "${text}"`, { cause });
  }
}

/** One of a few words, as `--verify=strict`. */
function oneOf<const T extends string>(option: string, words: readonly T[]) {
  return (text: string): T => {
    const word = words.find((w) => w === text);
    if (word !== undefined) return word;
    throw new UsageError(`invalid value "${text}" for option ${option}`, {
      hint: `Valid values are ${words.join(', ')}.`,
    });
  };
}

/** `--verify`. @throws UsageError */
export const parseVerify = oneOf('--verify', ['strict', 'warn', 'off']);
/** `--write-report`. @throws UsageError */
export const parseWriteReport = oneOf('--write-report', ['write', 'sync']);
/** `--apply`. @throws UsageError */
export const parseApply = oneOf('--apply', ['none', 'flush']);

const OPTIONS = 'Options:';
const SAFETY = 'Safety:';
const ACTIONS = 'Optional actions:';

/** In the order of the help. `walkeepOnly`: unknown under pg_receivewal's name. */
const TABLE: readonly (OptionSpec & { walkeepOnly?: true })[] = [
  {
    long: 'directory',
    short: 'D',
    argument: 'DIR',
    group: OPTIONS,
    help: 'existing directory that takes the WAL files',
  },
  {
    long: 'slot',
    short: 'S',
    argument: 'SLOTNAME',
    group: OPTIONS,
    help: 'physical replication slot to use',
  },
  {
    long: 'endpos',
    short: 'E',
    argument: 'LSN',
    group: OPTIONS,
    help: 'exit once WAL beyond this position has come in',
    check: parseEndPosition,
  },
  {
    long: 'status-interval',
    short: 's',
    argument: 'SECS',
    group: OPTIONS,
    help: 'time between status replies; 0: only when asked',
    default: '10',
    check: parseStatusInterval,
  },
  {
    long: 'compress',
    short: 'Z',
    argument: 'METHOD[:DETAIL]',
    group: OPTIONS,
    help: compressionHelp(),
  },
  {
    long: 'no-loop',
    short: 'n',
    group: OPTIONS,
    help: 'exit on a lost connection, do not reconnect',
  },
  {
    long: 'allow-group-access',
    group: OPTIONS,
    help: "files are readable for their group, whatever the server's are",
    walkeepOnly: true,
  },
  {
    long: 'progress',
    group: OPTIONS,
    help: 'show position, rate and lag while receiving',
    walkeepOnly: true,
  },
  {
    long: 'verbose',
    short: 'v',
    group: OPTIONS,
    help: 'tell about segments, timelines and stops',
  },
  VERSION_OPTION,
  HELP_OPTION,
  {
    long: 'synchronous',
    group: SAFETY,
    help: 'flush and report WAL as soon as it is written',
  },
  {
    long: 'no-sync',
    group: SAFETY,
    help: 'never wait for the disk; a crash can lose WAL',
  },
  {
    long: 'verify',
    argument: 'MODE',
    group: SAFETY,
    help: 'check WAL as it comes: strict refuses what is bad, warn stores it, off',
    default: 'strict',
    check: parseVerify,
    walkeepOnly: true,
  },
  {
    long: 'write-report',
    argument: 'MODE',
    group: SAFETY,
    help: 'write tells remote_write commits before the sync, sync only with it',
    default: 'write',
    check: parseWriteReport,
    walkeepOnly: true,
  },
  {
    long: 'apply',
    argument: 'MODE',
    group: SAFETY,
    help: 'flush reports flushed WAL as applied; nothing is replayed here',
    default: 'none',
    check: parseApply,
    walkeepOnly: true,
  },
  {
    long: 'no-direct-io',
    group: SAFETY,
    help: 'write all WAL through the page cache',
    walkeepOnly: true,
  },
  {
    long: 'accept-gap',
    group: SAFETY,
    help: 'start although WAL before it is missing; recorded',
    walkeepOnly: true,
  },
  {
    long: 'ensure-slot',
    group: SAFETY,
    help: 'create the slot if it is missing (failover) or was invalidated',
    walkeepOnly: true,
  },
  {
    long: 'backfill',
    argument: 'PLACE',
    many: true,
    group: SAFETY,
    help: 'take what the server has removed, or is missing here, from this other archive of the cluster; may be given several times',
    check: parsePlace,
    walkeepOnly: true,
  },
  ...KEY_OPTIONS.filter(({ long }) => long !== 'system-id').map((spec) => ({
    ...spec,
    group: SAFETY,
    help: `with --backfill: ${spec.help}`,
    walkeepOnly: true as const,
  })),
  ...STORE_OPTIONS.map((spec) => ({ ...spec, walkeepOnly: true as const })),
  ...CONNECTION_OPTIONS,
  ...MEMBER_OPTIONS.map((spec) => ({ ...spec, walkeepOnly: true as const })),
  {
    long: 'receive-timeout',
    argument: 'SECS',
    group: CONNECTION_GROUP,
    help: 'probe the server after this silence; 0: never',
    default: '30',
    check: parseReceiveTimeout,
    walkeepOnly: true,
  },
  {
    long: 'create-slot',
    group: ACTIONS,
    help: 'create the slot that --slot names, then exit',
  },
  {
    long: 'drop-slot',
    group: ACTIONS,
    help: 'drop the slot that --slot names, then exit',
  },
  {
    long: 'if-not-exists',
    group: ACTIONS,
    help: 'no error from --create-slot if the slot exists',
  },
];

/** The options of `receive`: what pg_receivewal takes, and under walkeep's name some more. */
export function receiveOptions(program: ProgramName): readonly OptionSpec[] {
  return program === 'walkeep' ? TABLE : TABLE.filter((spec) => !spec.walkeepOnly);
}
