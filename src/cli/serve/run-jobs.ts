import { abortableDelay } from '../../delay.js';
import { UsageError } from '../../errors.js';
import { BACKUP_TYPES, type JobRequest, type RunReport } from '../../serve/jobs/request.js';
import { inWords } from '../../text.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import type { Output } from '../output.js';

/** Milliseconds between questions whether a run has ended. */
const ASK = 500;

/** Of `walkeep ctl` with a job. */
export const JOB_OPTIONS: readonly OptionSpec[] = [
  {
    ...{ long: 'full', group: 'Options:' },
    help: 'with verify: read each record and each file of a backup, of all places',
  },
  {
    ...{ long: 'type', argument: 'TYPE', group: 'Options:' },
    help: 'with backup: full, differential (since the last full one) or incremental; else full',
  },
  {
    ...{ long: 'wait', group: 'Options:' },
    help: 'with verify, backup, expire, rehearse: wait until it has ended, and end with its exit code',
  },
];

const JOBS = ['verify', 'backup', 'expire', 'rehearse'] as const;
type Kind = (typeof JOBS)[number];

/** Undefined: the command is no job. @throws UsageError */
export function jobRequest(
  command: string | undefined,
  values: OptionValues,
  hint: string,
): JobRequest | undefined {
  const job = JOBS.find((one) => one === command);
  const { type = 'full' } = values;
  const only = (option: string, ...kinds: Kind[]): void => {
    if (values[option] === undefined || (job && kinds.includes(job))) return;
    throw new UsageError(`--${option} is for ${inWords(kinds, 'and')} only`, { hint });
  };
  only('full', 'verify');
  only('type', 'backup');
  only('wait', ...JOBS);
  if (job === 'verify') return { job, full: values.full === true };
  if (job !== 'backup') return job && { job };
  const known = BACKUP_TYPES.find((one) => one === type);
  if (known) return { job, type: known };
  throw new UsageError(`invalid value "${type}" for option --type`, {
    hint: `It is ${inWords(BACKUP_TYPES, 'or')}.`,
  });
}

/** Of a run that has no exit code of its own: it was not begun, or was ended. */
const WITHOUT_CODE: Readonly<Record<Kind, number>> = {
  verify: 2,
  rehearse: 2,
  backup: 1,
  expire: 1,
};

/**
 * Waits for runs.
 * @param ask tells of runs by their number
 * @returns the highest of their exit codes
 */
export async function awaitRuns(
  begun: readonly RunReport[],
  ask: (ids: number[]) => Promise<readonly RunReport[]>,
  { output, kind }: { output: Output; kind: Kind },
): Promise<number> {
  const ids = begun.map(({ id }) => id);
  let runs: readonly RunReport[] = begun;
  while (runs.some(({ state }) => state !== 'ended')) {
    await abortableDelay(ASK, new AbortController().signal);
    runs = await ask(ids);
  }
  for (const { job, place, outcome, message } of runs) {
    output.print(`${job} (${place}): ${outcome}`);
    if (message !== undefined) output.error(message);
  }
  const codes = runs.map(({ outcome, code }) =>
    outcome === 'good' || outcome === 'bad' ? (code ?? 0) : code || WITHOUT_CODE[kind],
  );
  return Math.max(...codes);
}
