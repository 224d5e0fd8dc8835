import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { JobStatus } from '../../src/serve/status.js';
import { binDir } from '../support/binaries.js';
import { runCli } from '../support/cli.js';
import { copyPackage } from '../support/package-copy.js';
import { PASSWORD, PostgresServer } from '../support/postgres.js';
import { childrenOf, isRunning } from '../support/processes.js';
import { writeWal } from '../support/receiving.js';
import { giveToServer, scratchDir, serverUser } from '../support/scratch.js';
import { type ServerEntry, Serving } from '../support/serving.js';
import { waitFor } from '../support/wait.js';

/** It is not New Year while this runs. */
const YEARLY = '0 0 1 1 *';

describe('jobs of serve', () => {
  let server: PostgresServer;
  let serving: Serving;
  let entry: ServerEntry;
  // All of it runs as a user that may restore servers, and read what they need.
  const dir = scratchDir('jobs', { forServer: true });
  const scratch = scratchDir('rehearse', { forServer: true });
  const passwordFile = join(dir, 'password');
  const hooked = join(dir, 'hooked');
  const block = join(dir, 'block');
  const directory = scratchDir('wal', { forServer: true });
  const memory = join(directory, '.walkeep-jobs');

  /** Waits as long as the file is there, in a child of its own. */
  const waits = ['/bin/sh', '-c', 'while [ -e "$0" ]; do sleep 0.05; done; true', block];

  beforeAll(async () => {
    writeFileSync(passwordFile, `${PASSWORD}\n`, { mode: 0o600 });
    giveToServer(passwordFile);
    server = await PostgresServer.create({
      ...{ major: 18, auth: 'scram-sha-256', settings: { summarize_wal: 'on' } },
    });
    entry = {
      connection: `host=127.0.0.1 port=${server.port} user=postgres`,
      ...{ password_file: passwordFile, directory, slot: 'walkeep', ensure_slot: true },
      synchronous: true,
      verify: { quick: YEARLY },
      backup: { compress: 'none' },
      retention: { redundancy: 1, at: YEARLY },
      rehearse: {
        at: YEARLY,
        sql: ['SELECT count(*) = 3 FROM t'],
        scratch,
        pg_bin: binDir(18),
      },
      hooks: {
        before_verify: waits,
        after_backup: ['/bin/sh', '-c', 'env > "$0"', hooked],
        before_rehearse: ['/bin/false'],
      },
    };
    await server.sql('CREATE TABLE t AS SELECT generate_series(1, 3) AS id');
    serving = await Serving.start({ shop: entry }, {}, { root: copyPackage(), ...serverUser });
    await serving.waitState('shop', 'streaming');
    await writeWal(server);
  });

  afterAll(async () => {
    await serving.run.stop('SIGKILL');
    await server.destroy();
  });

  const jobOf = async (name: JobStatus['job']): Promise<JobStatus | undefined> =>
    (await serving.status('shop')).jobs?.find(({ job }) => job === name);

  /** A process of a job's that has begun one itself. */
  const hookOf = (pid: number): Promise<number> =>
    waitFor(() => childrenOf(pid).find((one) => childrenOf(one).length > 0));

  it('takes backups when it is asked to, with the password of a file and hooks', async () => {
    const full = await serving.ctl('backup', 'shop', '--wait');
    expect(full).toEqual({ code: 0, stdout: 'backup_full (directory): good\n', stderr: '' });
    const environment = readFileSync(hooked, 'utf8').split('\n');
    expect(environment).toEqual(
      expect.arrayContaining([
        ...['WALKEEP_SERVER=shop', 'WALKEEP_JOB=backup_full', 'WALKEEP_PLACE=directory'],
        ...['WALKEEP_OUTCOME=good', 'WALKEEP_CODE=0'],
      ]),
    );
    expect(environment.join('\n')).not.toContain(PASSWORD);
    const { last, state } = (await jobOf('backup_full')) as JobStatus;
    expect({ last, state }).toMatchObject({
      last: { outcome: 'good', by: 'request' },
      state: 'waiting',
    });
    await writeWal(server);
    const more = await serving.ctl('backup', 'shop', '--type', 'incremental', '--wait');
    expect(more.code).toBe(0);
    const list = runCli(['backups', '--json', directory]);
    await list.exit;
    expect(list.stdout).toMatch(/"parent":"/);
    expect(serving.run.stderr).not.toContain(PASSWORD);
  });

  it('expires, verifies and rehearses; what runs before decides', async () => {
    expect(await serving.ctl('expire', 'shop', '--wait')).toMatchObject({ code: 0 });
    expect(await serving.ctl('verify', 'shop', '--wait')).toMatchObject({ code: 0 });
    const full = await serving.ctl('verify', 'shop', '--full', '--wait');
    expect(full).toMatchObject({ code: 0, stdout: 'verify_full (directory): good\n' });
    const refused = await serving.ctl('rehearse', 'shop', '--wait');
    expect(refused).toMatchObject({ code: 2, stdout: 'rehearse (directory): failed\n' });
    expect(refused.stderr).toContain('"/bin/false" ended with exit code 1');
    const { before_rehearse: _, ...hooks } = entry.hooks as Record<string, object>;
    entry = { ...entry, hooks };
    serving.write({ shop: entry });
    expect((await serving.ctl('reload')).code).toBe(0);
    const good = await serving.ctl('rehearse', 'shop', '--wait');
    expect(good).toEqual({ code: 0, stdout: 'rehearse (directory): good\n', stderr: '' });
  });

  it('does one thing at a time for a server, and ends what is cancelled', async () => {
    writeFileSync(block, '');
    expect((await serving.ctl('verify', 'shop')).stdout).toBe(
      'verify_quick (directory): running\n',
    );
    expect((await serving.ctl('backup', 'shop')).stdout).toBe('backup_full (directory): queued\n');
    expect((await jobOf('backup_full'))?.state).toBe('queued');
    const { pid } = (await jobOf('verify_quick')) as JobStatus;
    const hook = await hookOf(pid as number);
    expect(getPriority(hook)).toBe(19);
    expect((await serving.ctl('cancel', 'shop')).code).toBe(0);
    await waitFor(async () => (await jobOf('verify_quick'))?.last?.outcome === 'ended');
    expect([pid, hook].some((one) => isRunning(one as number))).toBe(false);
    rmSync(block);
  });

  it('leaves nothing behind when it is killed', async () => {
    writeFileSync(block, '');
    await serving.ctl('verify', 'shop');
    const { pid } = (await jobOf('verify_quick')) as JobStatus;
    const hook = await hookOf(pid as number);
    const all = [pid as number, hook, ...childrenOf(hook)];
    await serving.run.stop('SIGKILL');
    await waitFor(() => !all.some(isRunning));
    rmSync(block);
  });

  it('catches up what was missed while it did not run, once', async () => {
    const noted = JSON.parse(readFileSync(memory, 'utf8'));
    const job = noted.jobs.find((one: { job: string }) => one.job === 'verify_quick');
    job.seen = '2020-01-01T00:00:00.000Z';
    writeFileSync(memory, JSON.stringify(noted));
    await serving.restart();
    const { last } = (await waitFor(async () => {
      const found = await jobOf('verify_quick');
      return found?.last?.by === 'missed' && found;
    })) as JobStatus;
    expect(last?.outcome).toBe('good');
    expect(serving.events('job-missed')).toHaveLength(1);
    // What was known before the end is known again.
    expect((await jobOf('backup_full'))?.lastSuccess).toBeDefined();
    await serving.run.stop('SIGTERM');
    await serving.restart();
    await waitFor(async () => (await jobOf('verify_quick'))?.last);
    expect(serving.events('job-missed')).toEqual([]);
    expect(existsSync(`${memory}.tmp`)).toBe(false);
  });

  it('says what is wrong', async () => {
    const segments = readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));
    for (const name of segments) {
      const bytes = readFileSync(join(directory, name));
      writeFileSync(join(directory, name), bytes.fill(0xff, 100, 60_000));
    }
    const { code, stdout } = await serving.ctl('verify', 'shop', '--full', '--wait');
    expect({ code, stdout }).toEqual({ code: 1, stdout: 'verify_full (directory): bad\n' });
    const { last } = (await jobOf('verify_full')) as JobStatus;
    expect(last?.findings).toBeGreaterThan(0);
    expect(serving.events('job-output').at(-1)).toMatchObject({
      server: 'shop',
      job: 'verify_full',
    });
    const shown = runCli(['status', '--socket', serving.socket, 'shop']);
    await shown.exit;
    expect(shown.stdout).toMatch(/verify_full +directory +.*bad/);
  });
});
