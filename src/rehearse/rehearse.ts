import type { RecoveryTarget } from '../archive/targets/target.js';
import { UsageError, WalkeepError } from '../errors.js';
import type { RestoreOptions, RestorePlan } from '../restore/options.js';
import { planRestore, restoreBackup } from '../restore/restore.js';
import { requireNoLateTablespace } from './late-tablespaces.js';
import type { RehearseOptions, RehearseProblem, RehearseReport, RehearseStep } from './options.js';
import { findServer } from './programs.js';
import { lookAround, runQueries } from './queries.js';
import { awaitTarget } from './recovery.js';
import { runnerOf } from './runner.js';
import { makeScratch, removeScratch, type Scratch, sweep } from './scratch.js';
import { inherited, RehearsalServer } from './server.js';
import { type LogStory, storyOf } from './server-log.js';
import { Sessions } from './session.js';

/** Milliseconds. */
const DAY = 86_400_000;
const TABLES = 10;

/** What an archive is to blame for; of all else that is thrown it cannot be told. */
const BAD: ReadonlySet<string> = new Set([
  ...['WK_UNREACHABLE', 'WK_CORRUPT_OBJECT', 'WK_CORRUPT_WAL', 'WK_GAP', 'WK_PARSE'],
  ...['WK_SYSTEM_IDENTIFIER', 'WK_TIMELINE_CONFLICT'],
]);

/**
 * Restores a backup into a directory of its own, starts a server there that nobody else can reach,
 * has it recover to the target, looks at the data, and removes everything. What a killed rehearsal
 * left is removed first.
 *
 * What is wrong with the archive, and why it could not be tried, is in the report.
 * @throws UsageError; the signal's reason, once everything is removed
 */
export async function rehearse(options: RehearseOptions): Promise<RehearseReport> {
  const { signal, timeout = DAY, scratch: base } = options;
  signal?.throwIfAborted();
  const report: RehearseReport = {
    ...{ outcome: 'unknown', problem: undefined, places: options.places, began: new Date() },
    ...{ plan: undefined, server: undefined, steps: {}, recovery: undefined, total: 0, files: 0 },
    ...{ reached: undefined, lastCommit: undefined, databases: [], reading: undefined },
    ...{ findings: [], queries: [], warnings: [], log: [], swept: [] },
  };
  const timer = AbortSignal.timeout(timeout);
  const both = AbortSignal.any(signal ? [signal, timer] : [timer]);
  const run = new Rehearsal(options, both, report);
  try {
    const runner = await runnerOf(options.runAs);
    report.swept = await sweep(base, (message) => run.warn(message));
    const scratch = await makeScratch(base, runner);
    try {
      await run.carryOut(scratch, runner);
    } finally {
      await run.stop();
      options.onProgress?.({ kind: 'removing' });
      await removeScratch(scratch.path);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof UsageError) throw error;
    if (timer.aborted) {
      report.problem = {
        code: 'WK_TIMEOUT',
        message: `the rehearsal was not over after ${Math.round(timeout / 1000)} seconds`,
        hint: 'Give it longer with --timeout.',
      };
    } else {
      report.problem = problemOf(error);
      if (BAD.has(report.problem.code)) report.outcome = 'bad';
    }
  }
  report.total = Object.values(report.steps).reduce((sum, one) => sum + one, 0);
  return report;
}

class Rehearsal {
  readonly #options: RehearseOptions;
  readonly #signal: AbortSignal;
  readonly #report: RehearseReport;
  #server: RehearsalServer | undefined;

  constructor(options: RehearseOptions, signal: AbortSignal, report: RehearseReport) {
    this.#options = options;
    this.#signal = signal;
    this.#report = report;
  }

  warn(message: string): void {
    this.#report.warnings.push(message);
    this.#options.onWarning?.(message);
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
  }

  async carryOut(scratch: Scratch, runner: Runner): Promise<void> {
    const { promote = false, keepPreload = false, settings = {}, user, pgBin } = this.#options;
    const report = this.#report;
    const { restore, plan } = await this.#planned(scratch, runner);
    report.plan = plan;
    const { serverVersion } = plan.backup;
    const major = Math.floor(serverVersion / 10_000);
    const found = await findServer(major, { given: pgBin, owner: runner });
    report.server = found;
    this.#options.onProgress?.({ kind: 'plan', plan, server: found });
    const { places, keys } = this.#options;
    await requireNoLateTablespace(places, keys, plan, this.#signal);
    await this.#step('restore', async () => {
      const { files } = await restoreBackup(restore);
      report.files = files;
    });
    const server = await this.#step('start', async () => {
      const options = { bin: found.bin, scratch, owner: runner, major };
      this.#server = await RehearsalServer.spawn({ ...options, promote, keepPreload, settings });
      await this.#server.begun(this.#signal);
      return this.#server;
    });
    const sessions = new Sessions(scratch, user, keepPreload);
    const recovery = await this.#step('recovery', async () => {
      const came = await awaitTarget({
        ...{ server, sessions, scratch, promote, signal: this.#signal },
        segments: plan.wal.segments,
        onProgress: (progress) => this.#options.onProgress?.(progress),
      });
      if (!('reached' in came)) this.#failed(came);
      return came;
    });
    if (!('reached' in recovery)) return;
    const { lastCommit, ...reached } = recovery.reached;
    report.reached = reached;
    report.lastCommit = lastCommit;
    const { restore: one = 0, start: two = 0, recovery: three = 0 } = report.steps;
    report.recovery = one + two + three;
    try {
      await this.#step('queries', () => this.#look(sessions));
    } catch (error) {
      if (server.running) throw error;
      this.#failed({ failed: await storyOf(scratch.log) });
      return;
    }
    this.#judge();
  }

  /**
   * The end of the archive becomes a position, at which recovery pauses or the server is promoted:
   * without one it would be promoted wherever it finds no more WAL. Only that backup and this
   * position are restored then, whatever is stored, or lost, meanwhile.
   */
  async #planned(
    scratch: Scratch,
    runner: Runner,
  ): Promise<{ restore: RestoreOptions; plan: RestorePlan }> {
    const { places, target, timeline, backup, keys, jobs, promote } = this.#options;
    const wanted = target ?? { kind: 'latest' };
    const restore: RestoreOptions = {
      ...{ places, target: wanted, timeline, backup, keys, jobs, signal: this.#signal },
      ...{ dataDir: scratch.dataDir, tablespaceDir: scratch.tablespaces },
      ...(runner ? { owner: `${runner.uid}:${runner.gid}` } : {}),
      environment: inherited(),
      onWarning: (message) => this.warn(message),
      onProgress: (progress) => this.#options.onProgress?.({ kind: 'restore', progress }),
    };
    const action = promote ? 'promote' : 'pause';
    if (wanted.kind !== 'latest') {
      restore.action = action;
      const plan = await planRestore(restore);
      return { plan, restore: { ...restore, backup: plan.backup.id, tryFetch: false } };
    }
    const plan = await planRestore(restore);
    // By the plan it has been tried.
    Object.assign(restore, { backup: plan.backup.id, tryFetch: false });
    const { lsn } = plan.located;
    const atEnd: RecoveryTarget =
      lsn > plan.backup.end.lsn ? { kind: 'lsn', lsn, inclusive: false } : { kind: 'immediate' };
    return { plan, restore: { ...restore, target: atEnd, action } };
  }

  async #step<T>(step: RehearseStep, work: () => Promise<T>): Promise<T> {
    const { onProgress } = this.#options;
    this.#signal.throwIfAborted();
    onProgress?.({ kind: 'begin', step });
    const began = performance.now();
    const result = await work();
    const duration = performance.now() - began;
    this.#report.steps[step] = duration;
    onProgress?.({ kind: 'end', step, duration });
    return result;
  }

  async #look(sessions: Sessions): Promise<void> {
    const { sql = [], database, onProgress = () => {} } = this.#options;
    const tables = this.#options.tables ?? (sql.length > 0 ? 0 : TABLES);
    const options = { sessions, signal: this.#signal, onProgress };
    const { databases, reading, findings } = await lookAround({ ...options, tables });
    this.#report.databases = databases;
    this.#report.findings = findings;
    if (tables !== 0) this.#report.reading = reading;
    this.#report.queries = await runQueries(sql, database, options);
  }

  #judge(): void {
    const report = this.#report;
    const [finding] = report.findings;
    const query = report.queries.find(({ problem }) => problem !== undefined);
    report.outcome = finding || query ? 'bad' : 'good';
    if (finding) {
      const { database, relation, message } = finding;
      const where = relation === undefined ? '' : `, ${relation}`;
      report.problem = { code: 'WK_REHEARSE', message: `${database}${where}: ${message}` };
    } else if (query) {
      const message = `query "${query.sql}": ${query.problem}`;
      report.problem = { code: 'WK_REHEARSE', message };
    }
  }

  #failed(came: { failed: LogStory } | { paused: LogStory }): void {
    const report = this.#report;
    const story = 'failed' in came ? came.failed : came.paused;
    report.log = story.tail;
    // A setting that was given for the rehearsal is not the archive's.
    const given = Object.keys(this.#options.settings ?? {});
    const isOurs = story.machine || given.some((name) => story.failure?.includes(`"${name}"`));
    report.outcome = 'paused' in came || isOurs ? 'unknown' : 'bad';
    if ('paused' in came) {
      report.problem = {
        code: 'WK_REHEARSE',
        message: 'recovery paused before its target',
        hint: 'The log says which setting is too low here; give it with --set.',
      };
      return;
    }
    report.problem = {
      code: 'WK_REHEARSE',
      message: `the server ended: ${story.failure ?? 'its log does not say why'}`,
      detail: story.fetch,
      hint: isOurs
        ? 'That is this machine, not the archive: see --set, --run-as and --scratch.'
        : undefined,
    };
  }
}

type Runner = Awaited<ReturnType<typeof runnerOf>>;

function problemOf(error: unknown): RehearseProblem {
  if (error instanceof WalkeepError) {
    const { code, message, detail, hint } = error;
    return { code, message, detail, hint };
  }
  return { code: 'WK_INTERNAL', message: error instanceof Error ? error.message : String(error) };
}
