import type { RehearseReport } from '../../rehearse/options.js';
import { tameJson } from '../../text.js';
import type { Command, CommandContext } from '../command.js';
import {
  REHEARSE_OPTIONS,
  type RehearseArguments,
  rehearseArguments,
} from '../rehearse/options.js';
import { duration, RehearseMeter, reportJson, reportText } from '../rehearse/output.js';
import { stopOnSignals } from '../signals.js';

/** Exit codes, as those of `verify`. */
export const EXIT = {
  good: 0,
  bad: 1,
  /** It could not be tried, or was not over in time: that says nothing about the archive. */
  unknown: 2,
} as const;

/** How often the live line is redrawn, and how often a line is logged where there is none. */
const REDRAW = 200;
const LOG_EVERY = 30_000;

/** `walkeep rehearse`. */
export const command: Command = {
  takesPlace: true,
  usage: 'rehearse [OPTION]... PLACE...',
  description:
    'Proves that an archive can be restored, by doing it: restores a backup into a directory of ' +
    'its own, starts a server there on a socket that nobody else can reach, has it recover, looks ' +
    'at the data, says how long each step took, and removes everything. A PLACE is a directory or ' +
    'the URL of a store. Exit code 0: it is good; 1: it is bad; 2: that could not be told.',
  light: true,
  options: () => REHEARSE_OPTIONS,
  async run(values, operands, context) {
    const { output } = context;
    const { signal, release } = stopOnSignals(output);
    try {
      const args = rehearseArguments(values, operands, context.tryHelp);
      args.rehearse.signal = signal;
      return await run(args, context);
    } catch (error) {
      if (signal.aborted) output.error('interrupted: everything was stopped and removed');
      else output.report(error);
      return EXIT.unknown;
    } finally {
      release();
    }
  },
};

async function run(
  { rehearse: options, json, textfile, zoneTaken }: RehearseArguments,
  { output, env }: CommandContext,
): Promise<number> {
  const { rehearse } = await import('../../rehearse/rehearse.js');
  if (zoneTaken) {
    const here = env.TZ ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
    output.warning(`the time has no zone: that of this machine was taken, ${here}`);
  }
  const meter = new RehearseMeter();
  const timer = setInterval(
    () => {
      const { line } = meter;
      if (line === undefined) return;
      if (output.live) output.status(line);
      else output.info(line);
    },
    output.live ? REDRAW : LOG_EVERY,
  );
  timer.unref();
  let report: RehearseReport;
  try {
    report = await rehearse({
      ...options,
      onWarning: (message) => output.warning(message),
      onProgress: (progress) => {
        meter.note(progress);
        if (progress.kind !== 'end' || output.live) return;
        output.info(`${progress.step} took ${duration(progress.duration)}`);
      },
    });
  } finally {
    clearInterval(timer);
    output.clearStatus();
  }
  for (const path of report.swept) {
    output.info(`removed what a rehearsal that was killed had left: ${path}`);
  }
  const plain = !/utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || '');
  output.print(json ? tameJson(reportJson(report)) : reportText(report, plain));
  if (report.problem?.detail !== undefined) output.info(report.problem.detail);
  if (report.problem?.hint !== undefined) output.hint(report.problem.hint);
  if (textfile !== undefined) {
    const { writeMetrics } = await import('../../rehearse/textfile.js');
    await writeMetrics(textfile, report);
  }
  return EXIT[report.outcome];
}
