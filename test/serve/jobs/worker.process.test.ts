import { spawn } from 'node:child_process';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import type { JobProcess, JobStart, LaunchJob } from '../../../src/serve/jobs/launch.js';
import { type JobMemory, readMemory } from '../../../src/serve/jobs/memory.js';
import type { FromJob } from '../../../src/serve/jobs/messages.js';
import type { JobSpec } from '../../../src/serve/jobs/plan.js';
import { childrenOf, isRunning, signal } from '../../support/processes.js';
import { killAtEnd, packageRoot, scratchDir } from '../../support/scratch.js';
import { waitFor } from '../../support/wait.js';

const SECRET = 'correct horse battery';
const built = pathToFileURL(join(packageRoot, 'dist/serve/jobs/launch.js')).href;

const builtRun = pathToFileURL(join(packageRoot, 'dist/serve/jobs/run.js')).href;

const started: JobProcess[] = [];
afterEach(() => {
  for (const process of started.splice(0)) process.forget();
});

/** Begins a process of the built package. */
async function begin(start: JobStart) {
  const { launchJob } = (await import(built)) as { launchJob: LaunchJob };
  const heard: FromJob[] = [];
  const process = launchJob(start, (message) => void heard.push(message));
  started.push(process);
  const lines = () => heard.flatMap((one) => (one.kind === 'log' ? [one.entry.message] : []));
  return { process, heard, lines };
}

function setting() {
  const dir = scratchDir('job');
  const password = join(dir, 'password');
  writeFileSync(password, `${SECRET}\n`, { mode: 0o600 });
  const told = join(dir, 'told');
  const spec: JobSpec = {
    ...{ server: 'shop', job: 'verify_full', place: 'directory', directory: dir },
    args: ['verify', '--json', '--', join(dir, 'nothing')],
    secrets: { PGPASSWORD: password },
    after: ['/bin/sh', '-c', 'env > "$0"', told],
  };
  const at = { startedAt: '2026-01-01T00:00:00.000Z', endedAt: '2026-01-01T00:00:00.000Z' };
  const memory: JobMemory[] = [
    {
      ...{ job: 'verify_full', place: 'directory', seen: '2026-01-01T00:00:00.000Z', dealt: [] },
      last: { ...at, outcome: 'ended', by: 'request' },
      verdict: { ...at, outcome: 'bad', by: 'schedule', findings: 2 },
    },
  ];
  const startedAt = '2026-01-02T00:00:00.000Z';
  const startOf = (more: Partial<JobSpec> = {}): JobStart => ({
    ...{ kind: 'run', by: 'schedule', startedAt, memory, spec: { ...spec, ...more } },
  });
  return { dir, told: () => readFileSync(told, 'utf8').split('\n'), startOf, password };
}

describe('a run', () => {
  it('says why the command failed, tells its hook, and notes it', async () => {
    const { dir, told, startOf } = setting();
    const { process, lines } = await begin(startOf());
    const { end } = await process.ended;
    expect(end).toMatchObject({ outcome: 'failed', code: 2, error: { code: 'WK_ARCHIVE_ACCESS' } });
    expect(lines().join('\n')).toContain('No such file or directory');
    expect(told()).toEqual(
      expect.arrayContaining([
        'WALKEEP_OUTCOME=failed',
        'WALKEEP_CODE=2',
        'WALKEEP_JOB=verify_full',
      ]),
    );
    const [noted] = (await readMemory(dir)) ?? [];
    // It could not look: what was found before stands.
    expect(noted).toMatchObject({
      ...{ last: { outcome: 'failed', by: 'schedule' }, verdict: { outcome: 'bad', findings: 2 } },
    });
    expect(noted).not.toHaveProperty('running');
  });

  it('shows no secret, whoever prints it', async () => {
    const { startOf, password, told } = setting();
    const before = ['/bin/cat', password];
    const { process, heard } = await begin(startOf({ before }));
    await process.ended;
    expect(JSON.stringify(heard)).not.toContain(SECRET);
    expect(JSON.stringify(heard)).toContain('/bin/cat: ***');
    expect(told().join('\n')).not.toContain(SECRET);
  });

  it('is none where its password cannot be read, or what comes before fails', async () => {
    for (const { message, ...more } of [
      { secrets: { PGPASSWORD: '/nowhere' }, message: expect.stringContaining('"/nowhere"') },
      { before: ['/bin/sh', '-c', 'exit 3'], message: '"/bin/sh" ended with exit code 3' },
      {
        before: ['/nowhere/at/all'],
        message: '"/nowhere/at/all" could not be run: No such file or directory',
      },
    ]) {
      const { startOf, told } = setting();
      const { process } = await begin(startOf(more));
      const { end } = await process.ended;
      expect(end).toMatchObject({ outcome: 'failed', error: { message } });
      expect(end).not.toHaveProperty('code');
      expect(told()).toEqual(expect.arrayContaining(['WALKEEP_OUTCOME=failed', 'WALKEEP_CODE=']));
    }
  });

  /** It has begun something itself, and waits for ever. */
  const waits = ['/bin/sh', '-c', 'sleep 1000 & wait'];

  it('ends with all that it began when it is told to, and notes whether it is to come again', async () => {
    for (const why of ['end', 'cancel'] as const) {
      const { dir, startOf, told } = setting();
      const { process } = await begin(startOf({ before: waits }));
      const pid = process.pid as number;
      const hook = await waitFor(() => childrenOf(pid).find((one) => childrenOf(one).length > 0));
      const all = [hook, ...childrenOf(hook)];
      process.stop(why);
      const { end } = await process.ended;
      expect(end?.outcome).toBe('ended');
      await waitFor(() => !all.some(isRunning));
      expect(told()).toEqual(expect.arrayContaining(['WALKEEP_OUTCOME=ended']));
      const [noted] = (await readMemory(dir)) ?? [];
      expect(noted?.running?.by).toBe(why === 'end' ? 'schedule' : undefined);
    }
  });

  it('ends a command that it runs, which is asked to by its channel', async () => {
    const { dir, startOf } = setting();
    const clients: Socket[] = [];
    // A server that never answers.
    const server = createServer((client) => void clients.push(client.on('error', () => {})));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const connection = `host=127.0.0.1 port=${port} user=me sslmode=disable`;
    const { process } = await begin(startOf({ args: ['receive', '-D', dir, '-d', connection] }));
    await waitFor(() => clients.length > 0);
    const [command] = childrenOf(process.pid as number);
    process.stop('cancel');
    const { end } = await process.ended;
    expect(end).toMatchObject({ outcome: 'ended' });
    expect(isRunning(command as number)).toBe(false);
    for (const client of clients) client.destroy();
    server.close();
  });

  it('leaves no command behind when who watches is killed', async () => {
    const { dir, startOf } = setting();
    const clients: Socket[] = [];
    const server = createServer((client) => void clients.push(client.on('error', () => {})));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const connection = `host=127.0.0.1 port=${port} user=me sslmode=disable`;
    const start = startOf({ args: ['receive', '-D', dir, '-d', connection] });
    const code = `import(${JSON.stringify(built)}).then((m) => m.launchJob(${JSON.stringify(start)}, () => {}))`;
    const watcher = spawn(process.execPath, ['-e', code], { stdio: 'ignore' });
    killAtEnd(watcher);
    await waitFor(() => clients.length > 0);
    const runs = childrenOf(watcher.pid as number);
    const all = [...runs, ...runs.flatMap(childrenOf)];
    expect(all).toHaveLength(2);
    watcher.kill('SIGKILL');
    await waitFor(() => !all.some(isRunning));
    for (const client of clients) client.destroy();
    server.close();
  });

  it('leaves no hook behind when its process is killed', async () => {
    const { startOf } = setting();
    const { process, heard } = await begin(startOf({ before: waits }));
    const pid = process.pid as number;
    const hook = await waitFor(() => childrenOf(pid).find((one) => childrenOf(one).length > 0));
    await waitFor(() => heard.some(({ kind }) => kind === 'group'));
    const all = [pid, hook, ...childrenOf(hook)];
    signal(pid, 'SIGKILL');
    expect(await process.ended).toEqual({ how: 'SIGKILL' });
    await waitFor(() => !all.some(isRunning));
  });

  it('keeps what a check found although it is ended in that moment', async () => {
    const { dir, startOf } = setting();
    const segment = join(dir, '000000010000000000000001');
    writeFileSync(segment, '');
    truncateSync(segment, 16 * 1024 * 1024);
    const start = startOf({ args: ['verify', '--json', '--quick', '--', dir] });
    const { kind: _, ...context } = start as Extract<JobStart, { kind: 'run' }>;
    const stop = new AbortController();
    const { JobRun } = (await import(builtRun)) as typeof import('../../../src/serve/jobs/run.js');
    const run = new JobRun({
      ...{ ...context, signal: stop.signal, why: () => 'cancel' },
      // It prints what it found once it has looked at all.
      send: (message) => {
        if (message.kind === 'log' && message.entry.level === 'error') stop.abort();
      },
    });
    const end = await run.run();
    expect(stop.signal.aborted).toBe(true);
    expect(end).toMatchObject({ outcome: 'bad', findings: expect.any(Number) });
    expect(await readMemory(dir)).toMatchObject([{ last: { outcome: 'bad' } }]);
  });

  it('cuts lines that are too long', async () => {
    const { startOf } = setting();
    const before = ['/bin/sh', '-c', 'head -c 900000 /dev/zero | tr "\\000" x; echo; echo last'];
    const { process, lines } = await begin(startOf({ before }));
    await process.ended;
    expect(lines()).toContain('/bin/sh: last');
    expect(Math.max(...lines().map((line) => line.length))).toBe(4096);
  });

  it('reads endless output in bounds', async () => {
    const { startOf } = setting();
    const before = ['/bin/sh', '-c', 'yes line | head -n 300000; head -c 30000000 /dev/zero'];
    const { process, lines } = await begin(startOf({ before }));
    await process.ended;
    expect(lines().length).toBeLessThanOrEqual(201);
    expect(lines().at(-1)).toContain('it printed more than is told here');
  });
});

it('what was noted is asked of each server, and what is new is noted', async () => {
  const [known, fresh, broken] = [1, 2, 3].map(() => scratchDir('recall')) as [
    string,
    string,
    string,
  ];
  const one = {
    job: 'expire' as const,
    place: 'directory',
    seen: '2026-01-01T00:00:00.000Z',
    dealt: [],
  };
  writeFileSync(join(known, '.walkeep-jobs'), JSON.stringify({ version: 1, jobs: [one] }));
  writeFileSync(join(broken, '.walkeep-jobs'), '{');
  const servers = Object.entries({ known, fresh, broken, gone: '/nowhere' }).map(
    ([server, directory]) => ({
      server,
      directory,
      fresh: [{ ...one, seen: '2026-02-02T00:00:00.000Z' }],
    }),
  );
  const { process, heard } = await begin({ kind: 'recall', servers });
  await process.ended;
  const of = (name: string) =>
    heard.find((message) => message.kind === 'recalled' && message.server === name);
  expect(of('known')).toMatchObject({ memory: [one] });
  expect(of('fresh')).not.toHaveProperty('error');
  expect(of('broken')).toMatchObject({ error: { code: 'WK_STORAGE' } });
  expect(of('gone')).toMatchObject({ error: { code: 'WK_STORAGE' } });
  for (const directory of [fresh, broken]) {
    expect(await readMemory(directory)).toMatchObject([{ seen: '2026-02-02T00:00:00.000Z' }]);
  }
  expect(await readMemory(known)).toEqual([one]);
});
