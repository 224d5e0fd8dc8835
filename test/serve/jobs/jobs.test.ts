import { afterEach, describe, expect, it } from 'vitest';
import type { ServerConfig, WorkConfig } from '../../../src/serve/config/config.js';
import { Jobs } from '../../../src/serve/jobs/jobs.js';
import type { JobProcess, JobStart, LaunchJob } from '../../../src/serve/jobs/launch.js';
import type { JobMemory } from '../../../src/serve/jobs/memory.js';
import type { FromJob, RunEnd } from '../../../src/serve/jobs/messages.js';
import type { JobName, JobOutcome, LogEntry } from '../../../src/serve/status.js';

const MINUTE = 60_000;
const START = Date.parse('2026-05-01T12:00:30Z');

const serverOf = (name: string): ServerConfig => ({
  ...{ name, connection: 'host=db user=me', directory: `/wal/${name}`, ensureSlot: false },
  ...{ synchronous: true, compression: { method: 'none' } },
});

const workOf = (name: string, more: Partial<WorkConfig> = {}): WorkConfig => ({
  ...{ server: serverOf(name), rpo: 30_000, stores: [], verify: {}, hooks: {} },
  ...more,
});

/** A process that a test plays. */
interface Played extends JobProcess {
  start: Extract<JobStart, { kind: 'run' }>;
  stopped: string[];
  end(outcome: JobOutcome, more?: Partial<RunEnd>): Promise<void>;
  die(how: string): Promise<void>;
}

const open: Jobs[] = [];
afterEach(async () => {
  for (const jobs of open.splice(0)) await jobs.end();
});

/** What comes of promises that are settled by now. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

function stage({ known = true } = {}) {
  const clock = { now: START };
  const log: LogEntry[] = [];
  const runs: Played[] = [];
  const recalls: { servers: string[]; answer(memory?: JobMemory[], server?: string): void }[] = [];
  const paused = new Set<string>();
  const launch: LaunchJob = (start, hear) => {
    let settle: (ended: { how: string; end?: RunEnd }) => void = () => {};
    const ended = new Promise<{ how: string; end?: RunEnd }>((resolve) => {
      settle = resolve;
    });
    const process = { pid: 1, ended, forget: () => settle({ how: 'SIGKILL' }) };
    if (start.kind === 'recall') {
      const servers = start.servers.map(({ server }) => server);
      const answer = (memory?: JobMemory[], server = servers[0] as string): void => {
        hear({ kind: 'recalled', server, memory } as FromJob);
      };
      recalls.push({ servers, answer });
      if (known) for (const server of servers) queueMicrotask(() => answer(undefined, server));
      return { ...process, stop: () => {} };
    }
    const played: Played = {
      ...{ ...process, start, stopped: [] },
      stop(why) {
        played.stopped.push(why);
        void played.end('ended');
      },
      end(outcome, more = {}) {
        const endedAt = new Date(clock.now).toISOString();
        settle({ how: 'exit code 0', end: { outcome, endedAt, ...more } });
        return settled();
      },
      die(how) {
        settle({ how });
        return settled();
      },
    };
    runs.push(played);
    return played;
  };
  const jobs = new Jobs({
    ...{ tell: (entry) => void log.push(entry), isPaused: (name) => paused.has(name), launch },
    clock: { wall: () => clock.now, steady: () => clock.now - START },
  });
  open.push(jobs);
  const begun = () => runs.map(({ start: { spec, by } }) => `${spec.server} ${spec.job} ${by}`);
  const pass = (minutes: number): void => {
    for (let i = 0; i < minutes; i += 1) {
      clock.now += MINUTE;
      jobs.look();
    }
  };
  const events = (event: string) => log.filter((entry) => entry.event === event);
  const apply = async (...work: WorkConfig[]) => {
    await jobs.apply(work);
    await settled();
  };
  const jobOf = (server: string, job: JobName) =>
    jobs.status(server).jobs?.find((one) => one.job === job);
  return { clock, log, runs, recalls, paused, jobs, begun, pass, events, apply, jobOf };
}

describe('jobs', () => {
  it('begin at their times, once each, and are told of', async () => {
    const { apply, pass, begun, runs, jobOf, events } = stage();
    await apply(workOf('a', { verify: { quick: '*/5 * * * *' } }));
    pass(4);
    expect(begun()).toEqual([]);
    expect(jobOf('a', 'verify_quick')).toMatchObject({
      ...{ state: 'waiting', schedule: '*/5 * * * *', next: '2026-05-01T12:05:00.000Z' },
    });
    pass(1);
    expect(begun()).toEqual(['a verify_quick schedule']);
    expect(jobOf('a', 'verify_quick')).toMatchObject({ state: 'running', pid: 1 });
    await runs[0]?.end('bad', { code: 1, findings: 2 });
    expect(jobOf('a', 'verify_quick')).toMatchObject({
      ...{ state: 'waiting', next: '2026-05-01T12:10:00.000Z' },
      last: { outcome: 'bad', by: 'schedule', findings: 2 },
    });
    expect(jobOf('a', 'verify_quick')?.lastSuccess).toBeUndefined();
    expect(events('job-end')).toMatchObject([
      { level: 'error', server: 'a', job: 'verify_quick', message: 'bad (directory), 2 findings' },
    ]);
    pass(5);
    await runs[1]?.end('good');
    expect(jobOf('a', 'verify_quick')?.lastSuccess).toBe('2026-05-01T12:10:30.000Z');
  });

  it('are not doubled by a run that lasts, or waits', async () => {
    const { apply, pass, begun, events, runs } = stage();
    await apply(workOf('a', { verify: { quick: '* * * * *', full: '2 12 * * *' } }));
    pass(3);
    expect(begun()).toEqual(['a verify_quick schedule']);
    expect(events('job-overlap')).toHaveLength(2);
    expect(events('job-overlap')[0]?.message).toMatch(/still running; it is not doubled/);
    await runs[0]?.end('good');
    expect(begun().slice(1)).toEqual(['a verify_full schedule']);
  });

  it('run one at a time for a server, and two over all', async () => {
    const { apply, pass, begun, runs } = stage();
    const each = { verify: { quick: '1 12 * * *', full: '1 12 * * *' } };
    await apply(...['a', 'b', 'c'].map((name) => workOf(name, each)));
    pass(1);
    expect(begun()).toEqual(['a verify_quick schedule', 'b verify_quick schedule']);
    await runs[1]?.end('good');
    expect(begun().slice(2)).toEqual(['b verify_full schedule']);
    await runs[0]?.end('good');
    await runs[2]?.end('good');
    expect(begun().slice(3)).toEqual(['a verify_full schedule', 'c verify_quick schedule']);
  });

  it('never expire where another works at the same place', async () => {
    const { apply, pass, begun, runs } = stage();
    const retention = { redundancy: 1, at: '1 12 * * *' };
    const stores = [{ name: 's', place: 's3://wal/shared', recipients: [] }];
    const [first, second] = [
      workOf('a', { stores: stores.map((store) => ({ ...store, retention })) }),
      workOf('b', { stores, backup: { full: '1 12 * * *', to: 's', verifyPages: false } }),
    ];
    await apply(first, second);
    pass(1);
    expect(begun()).toEqual(['a expire schedule']);
    await runs[0]?.end('good');
    expect(begun()).toEqual(['a expire schedule', 'b backup_full schedule']);
  });

  it('try a backup that failed again, later each time, until its next one comes', async () => {
    const { apply, pass, begun, runs, jobOf, events } = stage();
    await apply(
      workOf('a', { backup: { full: '1 * * * *', to: 'directory', verifyPages: false } }),
    );
    pass(1);
    await runs[0]?.die('SIGKILL');
    expect(jobOf('a', 'backup_full')).toMatchObject({
      next: '2026-05-01T12:11:30.000Z',
      last: { outcome: 'failed', error: { code: 'WK_PROCESS' } },
    });
    expect(events('job-end').at(-1)?.message).toContain('tried again in 10 min');
    pass(10);
    await runs[1]?.end('failed', { error: { code: 'WK_SERVER', message: 'no' } });
    expect(events('job-end').at(-1)?.message).toBe(
      'failed (directory): no; it is tried again in 20 min',
    );
    pass(20);
    await runs[2]?.end('failed');
    // In 40 minutes: its own time is before that.
    pass(30);
    expect(begun()).toEqual([
      'a backup_full schedule',
      ...['retry', 'retry', 'schedule'].map((by) => `a backup_full ${by}`),
    ]);
  });

  it('try no backup again that somebody has taken meanwhile', async () => {
    const { apply, pass, begun, runs, jobs, jobOf } = stage();
    await apply(
      workOf('a', { backup: { full: '1 12 * * *', to: 'directory', verifyPages: false } }),
    );
    pass(1);
    await runs[0]?.end('failed');
    jobs.request('a', { job: 'backup', type: 'full' });
    await runs[1]?.end('good');
    expect(jobOf('a', 'backup_full')?.next).toBe('2026-05-02T12:01:00.000Z');
    pass(30);
    expect(begun()).toEqual(['a backup_full schedule', 'a backup_full request']);
  });

  it('put a backup off while its server is paused, and nothing else', async () => {
    const { apply, pass, begun, paused, events, jobs } = stage();
    const backup = { full: '1 12 * * *', to: 'directory', verifyPages: false };
    await apply(workOf('a', { backup, verify: { quick: '2 12 * * *' } }));
    paused.add('a');
    pass(90);
    expect(begun()).toEqual(['a verify_quick schedule']);
    expect(events('job-put-off')).toHaveLength(1);
    expect(() => jobs.request('a', { job: 'backup', type: 'full' })).toThrow(/is paused/);
    paused.clear();
    pass(1);
    expect(events('job-missed')).toHaveLength(1);
    expect(jobs.status('a').jobs?.map(({ job, state }) => [job, state])).toContainEqual([
      ...['backup_full', 'queued'],
    ]);
  });

  it('keep a backup waiting whose server was paused before its turn', async () => {
    const { apply, pass, begun, paused, runs, jobs } = stage();
    const backup = { full: '1 12 * * *', to: 'directory', verifyPages: false };
    await apply(workOf('a', { backup }));
    jobs.request('a', { job: 'verify', full: false });
    pass(1);
    paused.add('a');
    await runs[0]?.end('good');
    expect(begun()).toEqual(['a verify_quick request']);
    paused.clear();
    pass(1);
    expect(begun().slice(1)).toEqual(['a backup_full schedule']);
  });

  it('catch up what passed while the machine slept, once', async () => {
    const { apply, clock, jobs, begun } = stage();
    await apply(workOf('a', { verify: { quick: '*/5 * * * *' } }));
    clock.now += 302 * MINUTE;
    jobs.look();
    clock.now -= 200 * MINUTE;
    jobs.look();
    expect(begun()).toEqual(['a verify_quick missed']);
  });

  const memoryOf = (more: Partial<JobMemory>): JobMemory => ({
    ...{ job: 'verify_quick', place: 'directory', seen: '2026-05-01T12:00:00.000Z', dealt: [] },
    ...more,
  });

  it('begin nothing before it is known what was done, each server for itself', async () => {
    const { apply, pass, begun, recalls, jobOf } = stage({ known: false });
    const verify = { quick: '*/5 * * * *' };
    await apply(workOf('a', { verify }), workOf('b', { verify }));
    expect(recalls[0]?.servers).toEqual(['a', 'b']);
    pass(6);
    expect(begun()).toEqual([]);
    const last = {
      ...{ startedAt: '2026-05-01T11:55:00.000Z', endedAt: '2026-05-01T11:56:00.000Z' },
      ...{ outcome: 'good' as const, by: 'schedule' as const },
    };
    recalls[0]?.answer([memoryOf({ seen: last.startedAt, last, lastSuccess: last.endedAt })], 'b');
    expect(begun()).toEqual(['b verify_quick missed']);
    expect(jobOf('b', 'verify_quick')).toMatchObject({ last, lastSuccess: last.endedAt });
  });

  it('begin although nobody can be asked what was done', async () => {
    const launch: LaunchJob = () => {
      throw new Error('no memory');
    };
    const log: LogEntry[] = [];
    const clock = { now: START };
    const jobs = new Jobs({
      ...{ tell: (entry) => void log.push(entry), isPaused: () => false, launch },
      clock: { wall: () => clock.now, steady: () => clock.now },
    });
    open.push(jobs);
    await jobs.apply([workOf('a', { verify: { quick: '1 12 * * *' } })]);
    clock.now += MINUTE;
    jobs.look();
    expect(log.map(({ event, message }) => `${event} ${message}`)).toEqual([
      'jobs no memory',
      'job-end failed (directory): no memory',
    ]);
  });

  it('begin a run that was broken off once more, and that one not again', async () => {
    for (const [by, expected] of [
      ['schedule', ['a verify_quick missed']],
      ['missed', []],
      ['request', []],
    ] as const) {
      const { apply, begun, recalls } = stage({ known: false });
      await apply(workOf('a', { verify: { quick: '0 3 * * *' } }));
      recalls[0]?.answer([memoryOf({ running: { startedAt: '2026-05-01T03:00:00.000Z', by } })]);
      expect(begun()).toEqual(expected);
    }
  });

  it('begin after another start what waited for its turn as the program ended', async () => {
    const verify = { quick: '1 12 * * *', full: '1 12 * * *' };
    const retention = { redundancy: 1, at: '0 3 * * *' };
    const { apply, pass, runs, jobs } = stage();
    await apply(workOf('a', { verify, retention }));
    jobs.request('a', { job: 'expire' });
    pass(1);
    // What somebody asked for is not begun again.
    jobs.request('a', { job: 'rehearse' });
    await runs[0]?.end('good');
    expect(runs[1]?.start.spec.job).toBe('verify_quick');
    // As it is noted while the first one runs, with its own run noted by its process.
    const noted = runs[1]?.start.memory.filter(({ job }) => job !== 'verify_quick');
    const again = stage({ known: false });
    await again.apply(workOf('a', { verify, retention }));
    again.recalls[0]?.answer(noted);
    expect(again.begun()).toEqual(['a verify_full missed']);
  });

  it('go on over a reload that changes nothing of them, else end and begin anew', async () => {
    const { apply, pass, begun, runs } = stage();
    const verify = { quick: '1 12 * * *' };
    const backup = { full: '1 12 * * *', to: 'directory', verifyPages: false };
    await apply(workOf('a', { verify }), workOf('b', { backup }));
    pass(1);
    await apply(workOf('a', { verify, rpo: 1 }), workOf('b', { backup }));
    expect(runs.flatMap(({ stopped }) => stopped)).toEqual([]);
    await apply(workOf('a', { verify }), workOf('b', { backup: { ...backup, verifyPages: true } }));
    expect(runs.map(({ stopped }) => stopped)).toEqual([[], ['end'], []]);
    expect(begun().at(-1)).toBe('b backup_full missed');
    expect(runs.at(-1)?.start.spec.args).toContain('--verify-pages');
    await apply(workOf('a', { verify }));
    expect(runs.at(-1)?.stopped).toEqual(['end']);
    pass(1);
    expect(begun()).toHaveLength(3);
  });

  it('begin when somebody asks, and say what became of them', async () => {
    const { apply, jobs, begun, runs } = stage();
    await apply(workOf('a'));
    const [run] = jobs.request('a', { job: 'verify', full: false });
    expect(run).toMatchObject({ job: 'verify_quick', place: 'directory', state: 'running' });
    const [again] = jobs.request('a', { job: 'verify', full: false });
    expect(again?.id).toBe(run?.id);
    expect(begun()).toEqual(['a verify_quick request']);
    await runs[0]?.end('bad', { code: 1 });
    expect(jobs.runs([run?.id as number])).toMatchObject([
      { state: 'ended', outcome: 'bad', code: 1 },
    ]);
    expect(() => jobs.runs([99])).toThrow(/not known/);
    expect(() => jobs.request('b', { job: 'rehearse' })).toThrow(/no server "b"/);
    expect(() => jobs.request('a', { job: 'expire' })).toThrow(/no "retention"/);
  });

  it('are cancelled, what waits and what runs, and do not come again', async () => {
    const { apply, jobs, pass, runs, begun, jobOf } = stage();
    await apply(workOf('a', { verify: { quick: '1 12 * * *', full: '1 12 * * *' } }));
    pass(1);
    expect(jobs.cancel('a')).toHaveLength(2);
    await settled();
    expect(runs.map(({ stopped }) => stopped)).toEqual([['cancel']]);
    pass(2);
    expect(begun()).toHaveLength(1);
    expect(jobOf('a', 'verify_quick')?.last?.outcome).toBe('ended');
  });

  it('keep what was found until one comes to another answer, also over another start', async () => {
    const { apply, jobs, runs, jobOf } = stage();
    await apply(workOf('a'));
    const ask = () => jobs.request('a', { job: 'verify', full: true });
    ask();
    await runs[0]?.end('bad', { findings: 2 });
    expect(jobOf('a', 'verify_full')).not.toHaveProperty('verdict');
    ask();
    jobs.cancel('a');
    await settled();
    const bad = { outcome: 'bad', findings: 2 };
    expect(jobOf('a', 'verify_full')).toMatchObject({ last: { outcome: 'ended' }, verdict: bad });
    ask();
    await runs[2]?.die('SIGKILL');
    expect(jobOf('a', 'verify_full')).toMatchObject({ last: { outcome: 'failed' }, verdict: bad });
    ask();
    const memory = runs[3]?.start.memory as JobMemory[];
    await runs[3]?.end('good');
    expect(jobOf('a', 'verify_full')).not.toHaveProperty('verdict');

    const again = stage({ known: false });
    await again.apply(workOf('a'));
    again.recalls[0]?.answer(memory);
    expect(again.jobOf('a', 'verify_full')).toMatchObject({
      ...{ last: { outcome: 'failed' }, verdict: bad },
    });
  });

  it('are noted with those of the server, for the next time', async () => {
    const { apply, pass, runs } = stage();
    await apply(workOf('a', { verify: { quick: '1 12 * * *' } }));
    pass(1);
    const found = runs[0]?.start.memory.find(({ job }) => job === 'verify_quick');
    expect(found).toMatchObject({
      ...{ place: 'directory', seen: '2026-05-01T12:01:30.000Z' },
      dealt: ['2026-05-01T12:01:00.000Z'],
    });
  });
});
