import { besideEnvironment } from '../../beside.js';
import { InternalError } from '../../errors.js';
import { modulePath } from '../../package.js';
import { withoutSecrets } from '../../text.js';
import { readSecret } from '../config/secret-file.js';
import {
  type ErrorReport,
  type JobCause,
  type LogEntry,
  reportOf,
  verdictAfter,
  verdictOf,
} from '../status.js';
import { type JobMemory, writeMemory } from './memory.js';
import type { FromJob, RunEnd } from './messages.js';
import { type JobSpec, keyOf } from './plan.js';
import { runProgram } from './program.js';
import { ResultReader } from './results.js';

/** Milliseconds for a hook, and for one that has to run while all ends. */
const HOOK_LIMIT = 600_000;
const LAST_HOOK_LIMIT = 10_000;
/** Milliseconds that a note in the directory is waited for: its disk may hang. */
const NOTE_LIMIT = 30_000;
/** Lines that are told of one run. */
const MOST_LINES = 200;
/** Characters of one text of a run: of a hook anything may come. */
const LONGEST_TEXT = 4096;
/** What is shorter would be found in any text. */
const SHORTEST_SECRET = 4;

/** What a service manager gave to the program that watches, and is for no other. */
const NOT_PASSED = ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID'];
/** Of other credentials than those that a store names. */
const OTHER_CREDENTIALS = ['AWS_SESSION_TOKEN', 'AWS_PROFILE', 'AWS_DEFAULT_PROFILE'];

export interface RunContext {
  spec: JobSpec;
  by: JobCause;
  startedAt: string;
  /** Of all jobs of the server. */
  memory: readonly JobMemory[];
  signal: AbortSignal;
  /** Why the signal was given. */
  why(): 'end' | 'cancel';
  send(message: FromJob): void;
}

/** One run of a job: notes, hooks, command. */
export class JobRun {
  readonly #context: RunContext;
  readonly #env: NodeJS.ProcessEnv;
  readonly #secrets: string[] = [];
  #lines = 0;

  constructor(context: RunContext) {
    this.#context = context;
    this.#env = { ...process.env };
    for (const name of NOT_PASSED) delete this.#env[name];
  }

  /** Never rejects. */
  async run(): Promise<RunEnd> {
    const { spec, signal, startedAt, by } = this.#context;
    await this.#note({ running: { startedAt, by } });
    let end = await this.#work().catch((e): Omit<RunEnd, 'endedAt'> => {
      return { outcome: 'failed', error: reportOf(e) };
    });
    // An answer is one although it came late.
    if (signal.aborted && end.outcome === 'failed') end = { outcome: 'ended' };
    if (spec.after) {
      const limit = signal.aborted ? LAST_HOOK_LIMIT : HOOK_LIMIT;
      const told = { WALKEEP_OUTCOME: end.outcome, WALKEEP_CODE: `${end.code ?? ''}` };
      await this.#hook(spec.after, told, AbortSignal.timeout(limit)).catch((e) =>
        this.#tell('warning', `the command after it failed: ${reportOf(e).message}`),
      );
    }
    if (this.#lines > MOST_LINES) {
      this.#lines = 0;
      this.#tell('warning', 'it printed more than is told here');
    }
    const ended = { ...end, endedAt: new Date().toISOString() };
    await this.#note(this.#memoryOf(ended));
    return ended;
  }

  #memoryOf({ outcome, endedAt, findings, error }: RunEnd): Partial<JobMemory> {
    const { startedAt, by, why, spec, memory } = this.#context;
    const last = {
      ...{ startedAt, endedAt, outcome, by },
      ...(findings === undefined ? {} : { findings }),
      ...(error ? { error } : {}),
    };
    const before = memory.find((one) => keyOf(one) === keyOf(spec));
    const verdict = verdictAfter(before && verdictOf(before), last);
    return {
      last,
      ...(verdict && verdict !== last ? { verdict } : {}),
      ...(outcome === 'good' ? { lastSuccess: endedAt } : {}),
      // What was ended for other reasons than itself is begun again.
      ...(outcome === 'ended' && why() === 'end' ? { running: { startedAt, by } } : {}),
    };
  }

  async #work(): Promise<Omit<RunEnd, 'endedAt'>> {
    const { spec, signal } = this.#context;
    const env = this.#withSecrets();
    if (spec.before) await this.#hook(spec.before, {}, signal);
    if (signal.aborted) return { outcome: 'ended' };
    return this.#command(env);
  }

  /** @throws StorageError */
  #withSecrets(): NodeJS.ProcessEnv {
    const { secrets } = this.#context.spec;
    const env = { ...this.#env };
    if (secrets.AWS_ACCESS_KEY_ID !== undefined) {
      for (const name of OTHER_CREDENTIALS) delete env[name];
    }
    for (const [name, file] of Object.entries(secrets)) {
      const secret = readSecret(file);
      env[name] = secret;
      if (secret.length >= SHORTEST_SECRET) this.#secrets.push(secret);
    }
    return env;
  }

  async #command(env: NodeJS.ProcessEnv): Promise<Omit<RunEnd, 'endedAt'>> {
    const { spec, signal } = this.#context;
    const entry = modulePath('../bin/walkeep');
    if (entry === undefined) throw new InternalError('the program is not there');
    const reader = new ResultReader(spec.job, (level, message, more) =>
      this.#tell(level, message, more),
    );
    let reported: ErrorReport | undefined;
    const { code, how } = await runProgram({
      ...{ program: process.execPath, args: [...process.execArgv, entry, ...spec.args] },
      ...{ env: besideEnvironment(env), how: 'beside', signal },
      line: (line, from) => {
        if (from === 'stdout') reader.take(line);
        else this.#stderr(line);
      },
      told: ({ kind: _, code: known = 'WK_INTERNAL', ...report }) => {
        reported = this.#cleaned({ code: known, ...report });
      },
    });
    const { error: found, ...outcome } = reader.outcome(code);
    const read = { ...outcome, ...(found ? { error: this.#cleaned(found) } : {}) };
    const given = code === undefined ? {} : { code };
    if (read.outcome !== 'failed') return { ...read, ...given };
    const error = reported ?? {
      ...{ code: 'WK_PROCESS', message: `"walkeep ${spec.args[0]}" ${how}` },
    };
    return { error, ...read, ...given };
  }

  /** As the command prints for people: `walkeep: error: …`. */
  #stderr(line: string): void {
    const [, label, text] = /^walkeep: (?:(error|warning|detail|hint): )?(.*)$/.exec(line) ?? [];
    const level = label === 'error' || label === 'warning' ? label : 'info';
    this.#tell(level, text ?? line);
  }

  /** @throws an error unless it ends with 0 */
  async #hook(
    [program = '', ...args]: readonly string[],
    told: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const { spec, send } = this.#context;
    const limit = AbortSignal.timeout(HOOK_LIMIT);
    const { code, how } = await runProgram({
      ...{ program, args, how: 'group', signal: AbortSignal.any([signal, limit]) },
      env: {
        ...this.#env,
        ...{ WALKEEP_SERVER: spec.server, WALKEEP_JOB: spec.job, WALKEEP_PLACE: spec.place },
        ...told,
      },
      line: (line) => this.#tell('info', `${program}: ${line}`),
      started: (pid) => send({ kind: 'group', pid }),
    });
    send({ kind: 'group', pid: undefined });
    if (code !== 0) throw new Error(`"${program}" ${how}`);
  }

  /** Notes it beside the ledger, if the disk takes it in time: no job is left undone for that. */
  async #note(changed: Partial<JobMemory>): Promise<void> {
    const { spec, memory } = this.#context;
    const jobs = memory.map((one) => {
      if (keyOf(one) !== keyOf(spec)) return one;
      const { running, verdict, ...rest } = one;
      return { ...rest, ...(verdict && !changed.last ? { verdict } : {}), ...changed };
    });
    const late = new Promise<never>((_, reject) => {
      const why = new Error(`nothing was written within ${NOTE_LIMIT / 1000} s`);
      setTimeout(reject, NOTE_LIMIT, why).unref();
    });
    await Promise.race([writeMemory(spec.directory, jobs), late]).catch((e) => {
      const { message } = reportOf(e);
      this.#tell('warning', `when it ran could not be noted: ${message}`);
    });
  }

  #tell(level: LogEntry['level'], message: string, more: Partial<LogEntry> = {}): void {
    this.#lines += 1;
    if (this.#lines > MOST_LINES) return;
    const { hint } = more;
    const entry = { level, event: 'job-output', message: this.#clean(message), ...more };
    if (hint !== undefined) entry.hint = this.#clean(hint);
    this.#context.send({ kind: 'log', entry });
  }

  #cleaned(error: ErrorReport): ErrorReport {
    const texts = Object.entries(error).map(([name, text]) => [name, this.#clean(`${text}`)]);
    return Object.fromEntries(texts) as unknown as ErrorReport;
  }

  #clean(text: string): string {
    const known = this.#secrets.reduce((left, secret) => left.replaceAll(secret, '***'), text);
    return withoutSecrets(known).slice(0, LONGEST_TEXT);
  }
}
