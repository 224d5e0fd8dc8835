import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CommitClients } from '../support/commit-clients.js';
import { PASSWORD, PostgresServer } from '../support/postgres.js';
import { isRunning, signal } from '../support/processes.js';
import { archiveDirectory, waitEqual, writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { freePort } from '../support/server-config.js';
import { type ServerEntry, Serving } from '../support/serving.js';
import { waitFor } from '../support/wait.js';

/** Kills of a receiver. */
const ROUNDS = Number(process.env.WALKEEP_SERVE_ROUNDS ?? 2);
/** Kills of the program itself. */
const KILLS = Number(process.env.WALKEEP_SERVE_ROUNDS ?? 1);
const byNumber = (a: number, b: number) => a - b;
/** Commits wait for the receiver. */
const SYNC = { synchronous_standby_names: 'walkeep', synchronous_commit: 'on' };

/** Its walsender may not know yet that nobody is there. */
const dropSlot = (server: PostgresServer, slot: string) =>
  waitFor(() => server.sql('SELECT pg_drop_replication_slot($1)', [slot]));

describe('serve', () => {
  let one: PostgresServer;
  let two: PostgresServer;
  let serving: Serving;
  let port: number;
  let servers: Record<'one' | 'two', ServerEntry>;

  const passwordFile = join(scratchDir('secret'), 'password');
  const entry = (server: PostgresServer): ServerEntry => ({
    connection: `host=127.0.0.1 port=${server.port} user=postgres`,
    password_file: passwordFile,
    directory: archiveDirectory(),
    slot: 'walkeep',
    ensure_slot: true,
    synchronous: true,
  });

  beforeAll(async () => {
    writeFileSync(passwordFile, `${PASSWORD}\n`, { mode: 0o600 });
    [one, two] = await Promise.all([
      PostgresServer.create({ major: 18, auth: 'scram-sha-256' }),
      PostgresServer.create({ major: 18, auth: 'scram-sha-256', fresh: true }),
    ]);
    for (const server of [one, two]) await server.sql('CREATE TABLE t (id int, filler text)');
    servers = { one: entry(one), two: entry(two) };
    port = await freePort();
    serving = await Serving.start(servers, { metrics: { listen: `127.0.0.1:${port}` } });
    await serving.waitState('one', 'streaming');
    await serving.waitState('two', 'streaming');
    for (const server of [one, two]) await server.configure(SYNC);
  });

  afterAll(async () => {
    await serving.run.stop('SIGKILL');
    await Promise.all([one.destroy(), two.destroy()]);
  });

  const directory = (name: 'one' | 'two') => servers[name].directory as string;

  it('receives from each server, in a process of its own', async () => {
    const pids = [await serving.pidOf('one'), await serving.pidOf('two')];
    expect(new Set([...pids, serving.run.pid]).size).toBe(3);
    await writeWal(one);
    await writeWal(two);
    await waitEqual(directory('one'), one);
    await waitEqual(directory('two'), two);
    // What is synced is told, too, when nothing more comes.
    await waitFor(async () => {
      const { position } = (await serving.status('one')).receiver ?? {};
      return position && position.flushed === position.serverEnd;
    });
    expect(statSync(serving.socket).mode & 0o777).toBe(0o600);
  });

  it('says that nothing would be lost, and for how long that is not so', async () => {
    const metric = async (name: string, server: string): Promise<number> => {
      const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
      const line = text
        .split('\n')
        .find((l) => l.startsWith(`walkeep_${name}{server="${server}"}`));
      return Number(line?.split(' ')[1]);
    };
    await waitFor(async () => (await metric('rpo_seconds', 'one')) === 0);
    expect(await metric('up', 'one')).toBe(1);
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200);
    // A server that says nothing any more: its walsender is stopped, the connection stays.
    const [walsender] = await two.walSenderPids();
    signal(walsender as number, 'SIGSTOP');
    await waitFor(async () => (await metric('rpo_seconds', 'two')) > 8);
    await waitFor(async () => (await metric('rpo_seconds', 'one')) === 0);
    signal(walsender as number, 'SIGCONT');
    await waitFor(async () => (await metric('rpo_seconds', 'two')) === 0);
  });

  it(
    'begins a receiver that was killed again, and commits flow',
    async () => {
      const commits = new CommitClients(() => one, { sessions: 2 });
      const other = await serving.pidOf('two');
      const gaps: number[] = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        const pid = await serving.pidOf('one');
        const before = commits.confirmed.length;
        const killed = performance.now();
        signal(pid, 'SIGKILL');
        await waitFor(() => !isRunning(pid));
        const stopped = commits.confirmed.length;
        await waitFor(() => commits.confirmed.length > stopped + 2);
        gaps.push(Math.round(performance.now() - killed));
        await waitFor(async () => (await serving.pidOf('one')) !== pid);
        await serving.waitState('one', 'streaming');
        await waitFor(() => commits.confirmed.length > before + 5);
      }
      await commits.stop();
      await waitEqual(directory('one'), one);
      const { restarts } = await serving.status('one');
      expect(restarts).toBeGreaterThanOrEqual(ROUNDS);
      expect(serving.events('restart').map(({ message }) => message)[0]).toContain('SIGKILL');
      expect(await serving.pidOf('two')).toBe(other);
      if (process.env.WALKEEP_SERVE_ROUNDS) console.log('ms without commits:', gaps.sort(byNumber));
    },
    180_000 + ROUNDS * 20_000,
  );

  it('changes nothing for a configuration that is not valid', async () => {
    const pids = [await serving.pidOf('one'), await serving.pidOf('two')];
    serving.write({ ...servers, two: { ...servers.two, slto: 'x' } });
    const { code, stdout } = await serving.ctl('reload');
    expect(code).toBe(1);
    expect(stdout).toMatch(/^.*walkeep\.yaml:\d+:\d+: servers\.two: unknown key "slto"; did you/);
    serving.run.child.kill('SIGHUP');
    await waitFor(() => serving.events('reload-failed').length >= 2);
    expect([await serving.pidOf('one'), await serving.pidOf('two')]).toEqual(pids);
    serving.write(servers);
  });

  it('restarts only the server that changed; begins and ends those that came and went', async () => {
    const before = [await serving.pidOf('one'), await serving.pidOf('two')];
    servers = { ...servers, two: { ...servers.two, compress: 'gzip' } };
    const third = { ...entry(one), slot: 'third', synchronous: false };
    serving.write({ ...servers, third });
    serving.run.child.kill('SIGHUP');
    await waitFor(() => serving.events('reload').length > 0);
    await serving.waitState('third', 'streaming');
    await serving.waitState('two', 'streaming');
    const after = [await serving.pidOf('one'), await serving.pidOf('two')];
    expect(after[0]).toBe(before[0]);
    expect(after[1]).not.toBe(before[1]);
    const pid = await serving.pidOf('third');
    serving.write(servers);
    const { code, stdout } = await serving.ctl('reload');
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'stopped: third\nunchanged: one, two\n' });
    expect(isRunning(pid)).toBe(false);
    expect([await serving.pidOf('one'), await serving.pidOf('two')]).toEqual(after);
    await dropSlot(one, 'third');
  });

  it('takes a new password without a restart', async () => {
    const pid = await serving.pidOf('one');
    await one.sql(`ALTER USER postgres PASSWORD 'another'`);
    writeFileSync(passwordFile, 'another\n', { mode: 0o600 });
    const { connections = 0 } = (await serving.status('one')).receiver ?? {};
    for (const walsender of await one.walSenderPids()) {
      await one.sql('SELECT pg_terminate_backend($1)', [walsender]);
    }
    await waitFor(async () => {
      const { pid: now, receiver } = await serving.status('one');
      return now === pid && (receiver?.connections ?? 0) > connections;
    });
    await serving.waitState('one', 'streaming');
    await two.sql(`ALTER USER postgres PASSWORD 'another'`);
    expect(serving.run.stderr).not.toMatch(new RegExp(`${PASSWORD}|another'`));
  });

  it('pauses and resumes', async () => {
    const pid = await serving.pidOf('two');
    expect((await serving.ctl('pause', 'two')).code).toBe(0);
    expect(isRunning(pid)).toBe(false);
    await serving.waitState('two', 'paused');
    // Also over a reload.
    expect((await serving.ctl('reload')).code).toBe(0);
    expect((await serving.status('two')).state).toBe('paused');
    expect((await serving.ctl('resume', 'two')).code).toBe(0);
    await serving.waitState('two', 'streaming');
    const wrong = await serving.ctl('pause', 'too');
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toContain('Did you mean "two"?');
  });

  it('holds a server whose WAL is gone, until somebody accepts the gap', async () => {
    await serving.ctl('pause', 'two');
    await two.configure({ synchronous_standby_names: '', wal_keep_size: '0' });
    await dropSlot(two, 'walkeep');
    for (let i = 0; i < 3; i += 1) await two.switchWal();
    await two.sql('CHECKPOINT');
    await two.sql('CHECKPOINT');
    await serving.ctl('resume', 'two');
    const { ended } = await serving.waitState('two', 'held');
    expect(['WK_GAP', 'WK_WAL_REMOVED']).toContain(ended?.code);
    const [held] = serving.events('held');
    expect(held).toMatchObject({ server: 'two', code: ended?.code });
    expect(held?.hint).toContain('walkeep ctl resume -c FILE two');
    expect((await serving.ctl('resume', 'two', '--accept-gap')).code).toBe(0);
    await serving.waitState('two', 'streaming');
  });

  it('delays no commit while it is stopped, and restarts nobody after that', async () => {
    const pid = await serving.pidOf('one');
    const commits = new CommitClients(() => one, { sessions: 2 });
    await waitFor(() => commits.confirmed.length > 5);
    signal(serving.run.pid, 'SIGSTOP');
    const before = commits.confirmed.length;
    await waitFor(() => commits.confirmed.length > before + 200);
    signal(serving.run.pid, 'SIGCONT');
    await commits.stop();
    const { receiver } = await serving.waitState('one', 'streaming');
    expect(receiver?.connections).toBeGreaterThan(0);
    expect(await serving.pidOf('one')).toBe(pid);
  });

  it(
    'leaves no receiver behind when it is killed, and goes on after a start',
    async () => {
      const commits = new CommitClients(() => one, { sessions: 2 });
      for (let round = 0; round < KILLS; round += 1) {
        const pids = [await serving.pidOf('one'), await serving.pidOf('two')];
        const before = commits.confirmed.length;
        await waitFor(() => commits.confirmed.length > before + 5);
        await serving.run.stop('SIGKILL');
        await waitFor(() => !pids.some(isRunning));
        await serving.restart();
        await serving.waitState('one', 'streaming');
        await serving.waitState('two', 'streaming');
      }
      const before = commits.confirmed.length;
      await waitFor(() => commits.confirmed.length > before + 5);
      await commits.stop();
      await waitEqual(directory('one'), one);
      const rows = await one.sql<{ n: number }>('SELECT count(DISTINCT id)::int AS n FROM t');
      expect(rows[0]?.n).toBeGreaterThanOrEqual(commits.confirmed.length);
    },
    180_000 + KILLS * 20_000,
  );

  it('ends all receivers in good order', async () => {
    const pids = [await serving.pidOf('one'), await serving.pidOf('two')];
    const { code } = await serving.run.stop('SIGTERM');
    expect({ code, running: pids.some(isRunning) }).toEqual({ code: 0, running: false });
    expect(serving.events('stop')).toHaveLength(1);
    expect(readdirSync(serving.dir)).not.toContain('control');
    expect(serving.events('held')).toEqual([]);
  });
});
