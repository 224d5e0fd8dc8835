import type {
  BackupProgress,
  TakeBackupOptions,
  TakenBackup,
  TakenCompression,
} from '../../backup/options.js';
import type { ReplicationMode } from '../../connection/startup.js';
import { AuthenticationError, UsageError } from '../../errors.js';
import type { ServerNotice } from '../../protocol/backend-message.js';
import { formatBytes, formatSeconds } from '../../units.js';
import { type Command, type CommandContext, HELP_OPTION, VERSION_OPTION } from '../command.js';
import {
  CONNECTION_OPTIONS,
  connectionArguments,
  connectionSettings,
  resolveConnection,
} from '../connection-options.js';
import { jsonLine } from '../json.js';
import { parseIntOption } from '../numbers.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import type { Output } from '../output.js';
import { absolutePlace, KEY_OPTIONS, keysOf, SYSTEM_ID } from '../place-options.js';
import { canPrompt, promptPassword } from '../prompt.js';
import {
  listOption,
  parseShipCompression,
  recipientsFrom,
  storedOptionsUnder,
} from '../ship-options.js';
import { stopOnSignals } from '../signals.js';

const GROUP = 'Options:';
const STORED = 'What is stored:';

/** As pg_basebackup takes it: kB a second, or with a unit. @throws UsageError */
export function parseMaxRate(text: string): number {
  const [, digits, unit = 'k'] = /^(\d+)([kM]?)$/.exec(text) ?? [];
  const rate = Number(digits) * (unit === 'M' ? 1024 : 1);
  if (rate >= 32 && rate <= 1_048_576) return rate;
  throw new UsageError(`invalid value "${text}" for option --max-rate`, {
    hint: 'Give kilobytes a second from 32 to 1048576, or megabytes, as in 100M.',
  });
}

const parseCheckpoint = (text: string) => wordOf('--checkpoint', text, ['fast', 'spread'] as const);
const parseWal = (text: string) => wordOf('--wal', text, ['archive', 'include'] as const);
const parseChecksums = (text: string) =>
  wordOf('--manifest-checksums', text.toUpperCase(), ['CRC32C', 'SHA256'] as const);
const parseTimeout = (text: string): number => parseIntOption(text, '--wal-timeout', 0, 1_000_000);

function wordOf<T extends string>(option: string, text: string, words: readonly T[]): T {
  const found = words.find((word) => word === text);
  if (found !== undefined) return found;
  throw new UsageError(`invalid value "${text}" for option ${option}`, {
    hint: `It is ${words.slice(0, -1).join(', ')} or ${words.at(-1)}.`,
  });
}

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'incremental',
    argument: 'last|full|ID',
    implied: 'last',
    group: GROUP,
    help: 'only what changed since the last backup, the last full one, or that with the ID (PostgreSQL 17)',
  },
  {
    long: 'no-fallback',
    group: GROUP,
    help: 'fail where no incremental backup can be taken, and take no full one instead',
  },
  {
    long: 'checkpoint',
    short: 'c',
    argument: 'fast|spread',
    group: GROUP,
    help: 'begin at once, or without a burst of writes',
    default: 'fast',
    check: parseCheckpoint,
  },
  {
    long: 'max-rate',
    short: 'r',
    argument: 'RATE',
    group: GROUP,
    help: 'at most so many kilobytes a second, or with M megabytes',
    check: parseMaxRate,
  },
  { long: 'label', short: 'l', argument: 'LABEL', group: GROUP, help: 'what the server calls it' },
  { long: 'keep', group: GROUP, help: 'never expire it: "walkeep keep" takes that back' },
  {
    long: 'wal',
    argument: 'archive|include',
    group: GROUP,
    help: 'wait until the archive has the WAL that it needs, or put that into the backup',
    default: 'archive',
    check: parseWal,
  },
  {
    long: 'wal-timeout',
    argument: 'SECS',
    group: GROUP,
    help: 'how long to wait for that',
    default: '300',
    check: parseTimeout,
  },
  {
    long: 'manifest-checksums',
    argument: 'CRC32C|SHA256',
    group: GROUP,
    help: 'what the server takes of each file, which is checked as it comes',
    default: 'CRC32C',
    check: parseChecksums,
  },
  {
    long: 'no-verify-checksums',
    group: GROUP,
    help: 'let the server send pages whose checksums are wrong',
  },
  {
    long: 'verify-pages',
    group: GROUP,
    help: 'compare the checksums of all pages here, too, and name those that are wrong',
  },
  {
    long: 'compress',
    short: 'Z',
    argument: 'METHOD[:LEVEL]',
    group: STORED,
    help: 'zstd, gzip, lz4 or none (default: zstd, with Node.js before 22.15 gzip:1)',
    check: parseShipCompression,
  },
  ...storedOptionsUnder(STORED),
  ...KEY_OPTIONS.filter(({ long }) => long !== SYSTEM_ID.long),
  {
    long: 'progress',
    short: 'P',
    group: GROUP,
    help: 'tell how far it is, also without a terminal',
  },
  { long: 'json', group: GROUP, help: 'print one JSON object a line' },
  VERSION_OPTION,
  HELP_OPTION,
  ...CONNECTION_OPTIONS,
];

/** Where SQL is asked when the connection string names no database. */
const DATABASE = 'postgres';
/** Milliseconds between two lines where there is no live one. */
const TELL_EVERY = 10_000;

/** `walkeep backup`. Exit code 0: it exists. */
export const command: Command = {
  takesPlace: true,
  usage: 'backup [OPTION]... ARCHIVE',
  description:
    'Takes a base backup of a server into the archive that its WAL is received into: a directory ' +
    'or a store. Every file is compared with what the server says of it. The backup exists once ' +
    'all of it, and the WAL that it needs, is durable; one that fails leaves nothing behind.',
  light: true,
  options: () => OPTIONS,
  async run(values, operands, context) {
    const { output, tryHelp } = context;
    const options = takeOptions(values, operands, tryHelp);
    const recipients = [
      ...listOption(values, 'recipient'),
      ...(await recipientsFrom(listOption(values, 'recipients-file'))),
    ];
    const connect = await connecting(values, context);
    const { takeBackup } = await import('../../backup/backup.js');
    const json = values.json === true;
    const meter = new BackupMeter(output, json, values.progress === true);
    const { signal, release } = stopOnSignals(output);
    try {
      const taken = await takeBackup({
        ...options,
        ...{ connect, recipients, signal },
        onProgress: (progress) => meter.show(progress),
        onWarning: (warning) => {
          if (json) output.print(jsonLine({ type: 'warning', ...warning }));
          else output.warning(warning.message, warning.hint);
        },
      });
      output.clearStatus();
      output.print(json ? jsonLine({ type: 'backup', ...result(taken) }) : summary(taken));
      return 0;
    } catch (e) {
      output.clearStatus();
      if (!signal.aborted || e !== signal.reason) throw e;
      output.error('stopped: there is no backup, and nothing was left behind');
      return 1;
    } finally {
      release();
    }
  },
};

/** @throws UsageError */
function takeOptions(
  values: OptionValues,
  operands: readonly string[],
  tryHelp: string,
): Omit<TakeBackupOptions, 'connect'> {
  const text = (name: string): string | undefined => {
    const value = values[name];
    return typeof value === 'string' ? value : undefined;
  };
  const [place, extra] = operands;
  if (place === undefined) throw new UsageError('no archive specified', { hint: tryHelp });
  if (extra !== undefined) {
    throw new UsageError(`too many command-line arguments (first is "${extra}")`, {
      hint: tryHelp,
    });
  }
  const given = <T>(name: string, parse: (text: string) => T): T | undefined => {
    const value = text(name);
    return value === undefined ? undefined : parse(value);
  };
  const compression: TakenCompression | undefined = given('compress', parseShipCompression);
  return {
    place: absolutePlace(place),
    checkpoint: parseCheckpoint(text('checkpoint') ?? 'fast'),
    wal: parseWal(text('wal') ?? 'archive'),
    walTimeout: parseTimeout(text('wal-timeout') ?? '300') * 1000,
    manifestChecksums: parseChecksums(text('manifest-checksums') ?? 'CRC32C'),
    keep: values.keep === true,
    verifyChecksums: values['no-verify-checksums'] !== true,
    verifyPages: values['verify-pages'] === true,
    fallback: values['no-fallback'] !== true,
    keys: keysOf(values) ?? {},
    unfenced: values.unfenced === true,
    newSystem: values['new-system'] === true,
    ...defined({
      incremental: text('incremental'),
      label: text('label'),
      maxRate: given('max-rate', parseMaxRate),
      compression,
    }),
  };
}

/** Without what is undefined. */
function defined<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  ) as never;
}

/** A password is asked for once, for both connections. */
async function connecting(values: OptionValues, context: CommandContext) {
  const args = connectionArguments(values);
  const physical = await connectionSettings(args, context);
  let { password } = physical;
  return async (replication: ReplicationMode, onNotice: (notice: ServerNotice) => void) => {
    const settings =
      replication === 'off'
        ? await resolveConnection(args, context, { database: DATABASE })
        : physical;
    const { connect } = await import('../../connection/connect.js');
    const known = () => (password === undefined ? settings : { ...settings, password });
    try {
      return await connect(known(), { replication, onNotice });
    } catch (error) {
      const asked = error instanceof AuthenticationError && error.needsPassword;
      if (!asked || args.password === 'never' || !canPrompt()) throw error;
      password = await promptPassword();
      return connect(known(), { replication, onNotice });
    }
  };
}

function result({ id, record, stored, files, duration, cleaned, fallback }: TakenBackup) {
  const { parent, incrementalFrom } = record;
  const { start, end, from, label, size, codec, encrypted, wal, warnings } = record;
  return {
    ...{ id, ...(parent === undefined ? {} : { parent, incrementalFrom }) },
    ...(fallback ? { fallback } : {}),
    ...{ from, label, start, end, size, stored, files, codec, encrypted, wal },
    ...{ seconds: duration.whole / 1000, copySeconds: duration.copy / 1000, warnings, cleaned },
  };
}

function summary({ id, record, stored, files, duration, cleaned }: TakenBackup): string {
  const rate = record.size / (duration.copy / 1000);
  const lines = [
    `${id}: ${files} files, ${formatBytes(record.size)}, stored as ${formatBytes(stored)}, in ${formatSeconds(duration.whole / 1000)} (${formatBytes(rate)}/s)`,
  ];
  if (record.parent !== undefined) {
    lines.push(`it has what changed since ${record.parent}, without which it is of no use`);
  }
  if (cleaned.length > 0) lines.push(`removed what was left of ${cleaned.join(', ')}`);
  return lines.join('\n');
}

/** Tells how far a backup is: on a terminal in one line, elsewhere now and then. */
export class BackupMeter {
  readonly #output: Output;
  readonly #json: boolean;
  readonly #always: boolean;
  #told = Number.NEGATIVE_INFINITY;
  #phase: BackupProgress['phase'] | undefined;
  /** When the copy began, and when the first bytes of it had come. */
  #copying: { at: number; bytes: number } | undefined;

  constructor(output: Output, json: boolean, always: boolean) {
    this.#output = output;
    this.#json = json;
    this.#always = always;
  }

  show(progress: BackupProgress, now = performance.now()): void {
    if (progress.phase === 'copy') this.#copying ??= { at: now, bytes: progress.bytes };
    const isNew = progress.phase !== this.#phase;
    this.#phase = progress.phase;
    if (!this.#json && this.#output.live) {
      this.#output.status(this.line(progress, now));
      return;
    }
    if (!this.#always || (!isNew && now - this.#told < TELL_EVERY)) return;
    this.#told = now;
    if (this.#json) this.#output.print(jsonLine({ type: 'progress', ...progress }));
    else this.#output.info(this.line(progress, now));
  }

  /** At most 79 characters. */
  line(progress: BackupProgress, now: number): string {
    const { phase, bytes, total, waitingFor } = progress;
    switch (phase) {
      case 'checkpoint':
        return 'waiting for the checkpoint of the server';
      case 'store':
        return `${formatBytes(bytes)} came, storing the rest`;
      case 'wal':
        return `waiting for ${waitingFor ?? 'the WAL'} in the archive`;
      case 'commit':
        return 'writing the record of the backup';
      case 'copy':
        return this.#copy(bytes, total, now);
    }
  }

  #copy(bytes: number, total: number | undefined, now: number): string {
    const { at, bytes: before } = this.#copying ?? { at: now, bytes };
    const rate = now > at ? (bytes - before) / ((now - at) / 1000) : 0;
    const speed = `${formatBytes(rate)}/s`;
    if (total === undefined) return `${formatBytes(bytes)}, ${speed}`;
    // The server estimates before it begins: files may have grown since.
    const whole = Math.max(total, bytes);
    const percent = whole === 0 ? 100 : Math.floor((100 * bytes) / whole);
    const left = rate > 0 ? `, ${formatSeconds((whole - bytes) / rate)} left` : '';
    const width = 16;
    const done = Math.floor((width * percent) / 100);
    const bar = `[${'#'.repeat(done)}${'.'.repeat(width - done)}]`;
    return `${bar} ${percent} %  ${formatBytes(bytes)} of ${formatBytes(whole)}, ${speed}${left}`;
  }
}
