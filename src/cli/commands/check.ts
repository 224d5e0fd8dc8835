import type { CheckReport } from '../../check/check.js';
import type { LagDemands, LagLimit } from '../../check/check-position.js';
import { type CheckResult, type CheckStatus, worst } from '../../check/result.js';
import type { ReplicationMode } from '../../connection/startup.js';
import { AuthenticationError, UsageError } from '../../errors.js';
import { tameJson } from '../../text.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import {
  CONNECTION_OPTIONS,
  connectAsking,
  connectionArguments,
  connectionSettings,
  MEMBER_OPTIONS,
  memberArguments,
  memberSettings,
  resolveConnection,
  SQL_DATABASE,
} from '../connection-options.js';
import { fold } from '../help.js';
import { bytesOf, durationOf, parseDuration } from '../numbers.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import { canPrompt, promptPassword } from '../prompt.js';

const GROUP = 'Options:';

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'directory',
    short: 'D',
    argument: 'DIR',
    group: GROUP,
    help: 'the directory that WAL is received into',
  },
  { long: 'slot', short: 'S', argument: 'SLOTNAME', group: GROUP, help: "the receiver's slot" },
  {
    long: 'backup-age',
    argument: 'TIME',
    group: GROUP,
    help: 'warn if the last base backup is older, as in 26h',
    check: (text) => void parseDuration(text, '--backup-age'),
  },
  {
    long: 'window',
    argument: 'TIME',
    group: GROUP,
    help: 'warn unless every moment since then can be restored to, as in 7d',
    check: (text) => void parseDuration(text, '--window'),
  },
  {
    long: 'warning',
    argument: 'LAG',
    group: GROUP,
    help: 'warn if the archive is further behind the server: a size, a time, or both, as in 64MB,30s (default: two segments)',
    check: (text) => void parseLag(text, '--warning'),
  },
  {
    long: 'critical',
    argument: 'LAG',
    group: GROUP,
    help: 'fail if it is further behind, as in 1GB,300s (default: 64 segments)',
    check: (text) => void parseLag(text, '--critical'),
  },
  { long: 'json', group: GROUP, help: 'print one JSON object a line' },
  { long: 'nagios', group: GROUP, help: 'print one line with performance data' },
  {
    long: 'textfile',
    argument: 'FILE',
    group: GROUP,
    help: "write metrics for Prometheus's node_exporter to FILE, too",
  },
  VERSION_OPTION,
  HELP_OPTION,
  ...CONNECTION_OPTIONS,
  ...MEMBER_OPTIONS,
];

const EXIT = { ok: 0, warn: 1, fail: 2 } as const;
const NAGIOS = { ok: 'OK', warn: 'WARNING', fail: 'CRITICAL' } as const;
/** Milliseconds for one host where the connection string sets no connect_timeout. */
const CONNECT_TIMEOUT = 10_000;

/** `walkeep check`. Exit code 0: safe, 1: a warning, 2: not safe, or it could not be checked. */
export const command: Command = {
  usage: 'check [OPTION]... -D DIR',
  description:
    'Says whether an archive and its server are safe together: connection, settings, slot, ' +
    'continuity, how far the archive is behind, disk, base backups. Give the connection options and the slot ' +
    'of the receiver. Exit code 0: all is well, 1: a warning, 2: a failure.',
  options: () => OPTIONS,
  async run(values, operands, context) {
    const { output, tryHelp } = context;
    const misuse = (message: string): UsageError => new UsageError(message, { hint: tryHelp });
    const { directory, slot } = values;
    if (operands.length > 0) {
      throw misuse(`too many command-line arguments (first is "${operands[0]}")`);
    }
    if (typeof directory !== 'string') throw misuse('no directory specified');
    if (values.json === true && values.nagios === true) {
      throw misuse('cannot use --json together with --nagios');
    }
    const lag = lagDemands(values, tryHelp);
    const args = connectionArguments(values);
    const memberArgs = memberArguments(values, tryHelp);
    const physical = await connectionSettings(args, context);
    const { applicationName } = physical;
    let { password } = physical;
    const connect = async (mode: ReplicationMode) => {
      const settings =
        mode === 'off'
          ? await resolveConnection(args, context, { database: SQL_DATABASE })
          : physical;
      const timed = { ...settings, connectTimeout: settings.connectTimeout || CONNECT_TIMEOUT };
      const known = password === undefined ? timed : { ...timed, password };
      try {
        return await connectAsking(known, false, mode);
      } catch (error) {
        const asked = error instanceof AuthenticationError && error.needsPassword;
        if (!asked || args.password === 'never' || !canPrompt()) throw error;
        // Asked once, for both connections.
        password = await promptPassword();
        return connectAsking({ ...known, password }, false, mode);
      }
    };
    const duration = (option: string): number | undefined => {
      const text = values[option];
      return typeof text === 'string' ? parseDuration(text, `--${option}`) : undefined;
    };
    const members = memberArgs && {
      settings: await memberSettings(args, memberArgs, context, password),
      slots: memberArgs.slots,
    };
    const { runCheck } = await import('../../check/check.js');
    const report = await runCheck({
      directory,
      slot: typeof slot === 'string' ? slot : undefined,
      backupAge: duration('backup-age'),
      window: duration('window'),
      ...{ ...lag, applicationName, members, connect },
    });
    if (values.json === true) output.print(jsonLines(report));
    else if (values.nagios === true) output.print(nagiosLine(report, lag));
    else output.print(table(report));
    if (typeof values.textfile === 'string') {
      const { metricsOf } = await import('../../check/textfile.js');
      const { writeTextfile } = await import('../../files/textfile.js');
      await writeTextfile(values.textfile, metricsOf(directory, report));
    }
    return EXIT[worst(report.results)];
  },
};

/** `64MB`, `30s`, or both with a comma between. @throws UsageError */
function parseLag(text: string, option: string): LagLimit {
  const limit: LagLimit = {};
  for (const part of text.split(',')) {
    const [bytes, age] = [bytesOf(part), durationOf(part)];
    const again = bytes === undefined ? limit.age !== undefined : limit.bytes !== undefined;
    if ((bytes === undefined && age === undefined) || again) {
      throw new UsageError(`invalid value "${text}" for option ${option}`, {
        hint: 'Give a size (kB, MB, GB, TB), a time (s, m, h, d, w), or both, such as 64MB,30s.',
      });
    }
    if (bytes === undefined) limit.age = age;
    else limit.bytes = bytes;
  }
  return limit;
}

/** @throws UsageError also for a warning that could never come before the failure */
function lagDemands({ warning, critical }: OptionValues, hint: string): LagDemands {
  const demands: LagDemands = {
    ...(typeof warning === 'string' ? { warning: parseLag(warning, '--warning') } : {}),
    ...(typeof critical === 'string' ? { critical: parseLag(critical, '--critical') } : {}),
  };
  for (const of of ['bytes', 'age'] as const) {
    const [warn, fail] = [demands.warning?.[of], demands.critical?.[of]];
    if (warn === undefined || fail === undefined || warn <= fail) continue;
    throw new UsageError(`--warning ${warning} is beyond --critical ${critical}`, { hint });
  }
  return demands;
}

const LABEL: Record<CheckStatus, string> = {
  ok: 'OK',
  warn: 'WARN',
  fail: 'FAIL',
  unknown: 'unknown',
};
const WIDTH = 80;
/** Of the longest name of a check, `max_replication_slots`. */
const NAME_WIDTH = 21;
const INDENT = 8 + NAME_WIDTH + 1;

function table({ results }: CheckReport): string {
  const lines = results.flatMap(({ check, status, message, hint }) => {
    const text = fold(message, WIDTH - INDENT);
    if (hint !== undefined && status !== 'ok') text.push(...fold(hint, WIDTH - INDENT));
    const [first = '', ...rest] = text;
    const opening = `${LABEL[status].padEnd(7)} ${check.padEnd(NAME_WIDTH)} ${first}`;
    return [opening, ...rest.map((line) => ' '.repeat(INDENT) + line)];
  });
  return [...lines, '', `${LABEL[worst(results)]}: ${counts(results)}`].join('\n');
}

function counts(results: readonly CheckResult[]): string {
  const words: [CheckStatus, string][] = [
    ['fail', 'failed'],
    ['warn', results.filter((r) => r.status === 'warn').length === 1 ? 'warning' : 'warnings'],
    ['unknown', 'unknown'],
    ['ok', 'ok'],
  ];
  return words
    .map(([status, word]) => [results.filter((r) => r.status === status).length, word] as const)
    .filter(([n, word]) => n > 0 || word === 'ok')
    .map(([n, word]) => `${n} ${word}`)
    .join(', ');
}

function jsonLines({ results, recoveryPoint, free }: CheckReport): string {
  const summary = {
    type: 'summary',
    status: worst(results),
    exitCode: EXIT[worst(results)],
    behindBytes: recoveryPoint === undefined ? null : Number(recoveryPoint.bytes),
    behindSeconds: recoveryPoint?.seconds ?? null,
    freeBytes: free ?? null,
  };
  const lines = results.map((result) => ({ type: 'check', ...result }));
  return [...lines, summary].map((line) => tameJson(JSON.stringify(line))).join('\n');
}

/** One line by the plugin guidelines: state, what is wrong, performance data with its limits. */
function nagiosLine(
  { results, recoveryPoint, free }: CheckReport,
  { warning, critical }: LagDemands,
): string {
  const state = worst(results);
  const told = results.filter((r) => state !== 'ok' && r.status === state);
  const what = told.map(({ check, message }) => `${check}: ${message}`).join('; ');
  const limits = (of: keyof LagLimit, unit: number): string => {
    const text = [warning?.[of], critical?.[of]].map((n) => (n === undefined ? '' : n / unit));
    return `;${text.join(';')}`.replace(/;+$/, '');
  };
  const { bytes, seconds } = recoveryPoint ?? {};
  const data = [
    ...(bytes === undefined ? [] : [`behind=${bytes}B${limits('bytes', 1)}`]),
    ...(seconds === undefined ? [] : [`age=${seconds.toFixed(1)}s${limits('age', 1000)}`]),
    ...(free === undefined ? [] : [`free=${free}B`]),
  ];
  // A bar begins the performance data.
  const text = `WALKEEP ${NAGIOS[state]} - ${what || counts(results)}`.replaceAll('|', '/');
  return data.length > 0 ? `${text} | ${data.join(' ')}` : text;
}
