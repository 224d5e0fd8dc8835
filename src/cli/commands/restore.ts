import { resolve } from 'node:path';
import { UsageError } from '../../errors.js';
import type { RestorePlan, RestoreProgress } from '../../restore/options.js';
import { tameJson } from '../../text.js';
import { formatBytes, formatSeconds } from '../../units.js';
import type { Command, CommandContext } from '../command.js';
import type { OptionValues } from '../option-spec.js';
import { RESTORE_OPTIONS, type RestoreArguments, restoreArguments } from '../restore/options.js';
import { comparedRows, nextSteps, planJson, planText, RestoreMeter } from '../restore/output.js';
import { stopOnSignals } from '../signals.js';

/** Exit codes. After 2 and 3 nothing was written. */
export const EXIT = {
  /** In place, or the plan is printed. */
  restored: 0,
  failed: 1,
  /** No way leads to the target. */
  unreachable: 2,
  /** The directories cannot take it. */
  target: 3,
} as const;

const BY_CODE: Readonly<Record<string, number>> = {
  WK_UNREACHABLE: EXIT.unreachable,
  WK_TARGET: EXIT.target,
  WK_LOCKED: EXIT.target,
};

/** How often the live line is redrawn, and how often a line is logged where there is none. */
const REDRAW = 500;
const LOG_EVERY = 30_000;

/** `walkeep restore`. */
export const command: Command = {
  usage: 'restore [OPTION]... [PLACE]... PGDATA',
  description:
    'Restores a server from a base backup and its WAL: chooses the backup, puts its files into ' +
    'PGDATA, and writes the settings with which the server, once it is started, recovers to the ' +
    'target. A PLACE is a directory or the URL of a store; WAL is taken from all of them, the ' +
    'backup from the first that has it. With --delta PGDATA is that of the lost server, of which ' +
    'only what differs is read. What cannot be reached is refused before anything is ' +
    'written. TIME is YYYY-MM-DD HH:MM:SS.ffffff+ZZ, without +ZZ local. Exit code 0: restored; ' +
    '1: failed, run it again; 2: no way leads to the target; 3: PGDATA or another directory ' +
    'cannot take it.',
  light: true,
  takesPlace: true,
  options: () => RESTORE_OPTIONS,
  async run(values, operands, context) {
    const { output } = context;
    const { signal, release } = stopOnSignals(output);
    try {
      if (values.finish === true) return await finish(values, operands, context);
      const args = restoreArguments(values, operands, context.tryHelp);
      args.restore.signal = signal;
      return await restore(args, context);
    } catch (error) {
      if (signal.aborted) {
        output.error(
          'interrupted: if it had begun to write, nothing can be started there; run it again to restore',
        );
        return EXIT.failed;
      }
      output.report(error);
      return BY_CODE[(error as { code?: string }).code ?? ''] ?? EXIT.failed;
    } finally {
      release();
    }
  },
};

async function restore(args: RestoreArguments, { output }: CommandContext): Promise<number> {
  const show = (plan: RestorePlan): void => {
    if (args.json) output.print(tameJson(planJson(plan)));
    else output.print(planText(plan));
    if (args.zoneTaken) {
      const here = process.env.TZ ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
      output.warning(`the time has no zone: that of this machine was taken, ${here}`);
    }
    for (const warning of plan.warnings) output.warning(warning);
    if (plan.state === 'half') output.info('a restore was cut short there; it is begun again');
  };
  if (args.dryRun) {
    const { planRestore } = await import('../../restore/restore.js');
    show(await planRestore(args.restore));
    return EXIT.restored;
  }
  const { restoreBackup } = await import('../../restore/restore.js');
  const meter = new RestoreMeter();
  let latest: RestoreProgress | undefined;
  const timer = setInterval(
    () => {
      if (!latest) return;
      if (output.live) output.status(meter.line(latest));
      else output.info(meter.line(latest));
    },
    output.live ? REDRAW : LOG_EVERY,
  );
  timer.unref();
  try {
    const result = await restoreBackup({
      ...args.restore,
      onPlan: show,
      onWarning: (message) => output.warning(message),
      onCompared: (compared) => {
        output.clearStatus();
        for (const [name, value] of comparedRows(compared)) output.info(`${name}: ${value}`);
      },
      onProgress: (progress) => {
        latest = progress;
      },
    });
    output.clearStatus();
    const seconds = result.duration / 1000;
    const what = `${result.files} files, ${formatBytes(result.bytes)} in ${formatSeconds(seconds)}`;
    output.info(
      result.plan.state === 'complete' ? 'it had been restored before' : `restored ${what}`,
    );
    for (const step of nextSteps(result, args.restore.places)) output.info(step);
    return EXIT.restored;
  } finally {
    clearInterval(timer);
    output.clearStatus();
  }
}

async function finish(
  values: OptionValues,
  operands: readonly string[],
  { output, tryHelp }: CommandContext,
): Promise<number> {
  const [dataDir, second] = operands;
  if (dataDir === undefined) throw new UsageError('no data directory specified', { hint: tryHelp });
  const other = Object.keys(values).find((name) => name !== 'finish' && values[name] !== undefined);
  if (other !== undefined || second !== undefined) {
    throw new UsageError('--finish takes the data directory and nothing else', { hint: tryHelp });
  }
  const { finishRestore } = await import('../../restore/finish.js');
  const { removed, next } = await finishRestore(resolve(dataDir));
  for (const line of removed) output.print(line);
  output.info('these settings of the restore were removed');
  output.info(
    next === 'restart'
      ? 'restart the server: archive_mode is as before only then'
      : 'reload the server: SELECT pg_reload_conf()',
  );
  return EXIT.restored;
}
