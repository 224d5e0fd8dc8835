import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodeFileSystem } from '../../src/files/file-system.js';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { WalReceiver } from '../../src/receive/receiver.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
type Level = 'remote_write' | 'on' | 'remote_apply';

/** A commit that waits for the standby as `level` says. */
class Commit {
  done = false;
  notices: string[] = [];
  readonly #server: PostgresServer;
  readonly #pid: number;

  private constructor(server: PostgresServer, pid: number) {
    this.#server = server;
    this.#pid = pid;
  }

  static async start(server: PostgresServer, level: Level): Promise<Commit> {
    const client = await server.client();
    await client.query(`SET synchronous_commit = ${level}`);
    const { rows } = await client.query('SELECT pg_backend_pid() AS pid');
    const commit = new Commit(server, rows[0].pid);
    client.on('notice', (notice) => commit.notices.push(notice.message ?? ''));
    const query = client.query("SELECT pg_logical_emit_message(true, 'test', 'commit')");
    query.then(
      () => {
        commit.done = true;
        return client.end();
      },
      () => {},
    );
    return commit;
  }

  returns(): Promise<unknown> {
    return waitFor(() => this.done, { what: 'the commit', timeoutMs: 5000, intervalMs: 1 });
  }

  /** True while the server's process waits for a standby. */
  async waits(): Promise<boolean> {
    const [row] = await this.#server.sql(
      `SELECT wait_event AS event FROM pg_stat_activity WHERE pid = ${this.#pid}`,
    );
    return !this.done && row?.event === 'SyncRep';
  }

  /** Lets it return; that WARNING means "not replicated". */
  async cancel(): Promise<void> {
    await this.#server.sql(`SELECT pg_cancel_backend(${this.#pid})`);
    await this.returns();
    expect(this.notices.join()).toMatch(/canceling wait for synchronous replication/);
  }
}

interface Standby {
  state: string;
  write: Lsn | undefined;
  flush: Lsn | undefined;
  replay: Lsn | undefined;
}

async function standby(server: PostgresServer): Promise<Standby> {
  const [row] = await server.sql(
    `SELECT sync_state AS state, write_lsn::text AS w, flush_lsn::text AS f, replay_lsn::text AS r
     FROM pg_stat_replication WHERE application_name = 'walkeep'`,
  );
  if (!row) throw new Error('walkeep is not connected');
  const lsn = (text: string | null) => (text === null ? undefined : parseLsn(text));
  return { state: row.state, write: lsn(row.w), flush: lsn(row.f), replay: lsn(row.r) };
}

const SYNCHRONOUS = ['--synchronous', '-S', 's'];

describe.skipIf(MAJORS.length === 0)('walkeep receive as the synchronous standby', () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await PostgresServer.create({ major: MAJORS.at(-1)! });
    await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
    await server.configure({ synchronous_standby_names: 'walkeep' });
  });
  afterAll(() => server?.destroy());

  /** What returns, and what the server knows of the standby meanwhile. */
  test.each<[string, string[], string, Partial<Record<Level, boolean>>]>([
    ['plain', [], 'async', { remote_write: false, on: false, remote_apply: false }],
    ['-S', ['-S', 's'], 'sync', { remote_write: true, on: false, remote_apply: false }],
    [
      '--synchronous without a slot',
      ['--synchronous'],
      'sync',
      { remote_write: true, on: true, remote_apply: false },
    ],
    ['--synchronous', SYNCHRONOUS, 'sync', { remote_write: true, on: true, remote_apply: false }],
    [
      '--apply=flush',
      [...SYNCHRONOUS, '--apply=flush'],
      'sync',
      { remote_write: true, on: true, remote_apply: true },
    ],
    [
      '--write-report=sync',
      [...SYNCHRONOUS, '--write-report=sync'],
      'sync',
      { remote_write: true, on: true, remote_apply: false },
    ],
  ])('%s', async (_name, args, state, returns) => {
    const run = keep(receive(archiveDirectory(), server.conninfo(), ['-s', '1', ...args]));
    await run.waitForOutput(/starting log streaming/);
    await waitFor(async () => (await standby(server)).write !== undefined);
    expect((await standby(server)).state).toBe(state);
    for (const [level, expected] of Object.entries(returns) as [Level, boolean][]) {
      const commit = await Commit.start(server, level);
      if (expected) {
        await commit.returns();
        continue;
      }
      // It was written here, and that was told: nothing more can come to let it return.
      const end = await server.currentLsn();
      await waitFor(async () => ((await standby(server)).write ?? 0n) >= end);
      expect(await commit.waits(), level).toBe(true);
      const { flush, replay } = await standby(server);
      if (state === 'async') expect(flush).toBeUndefined();
      expect(replay).toBeUndefined();
      await commit.cancel();
    }
    const applied = (await standby(server)).replay !== undefined;
    expect(applied).toBe(args.includes('--apply=flush'));
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    expect(/commits that wait for this receiver will hang/.test(run.stderr)).toBe(
      !args.includes('--synchronous'),
    );
    expect(run.stderr).toMatch(/leaves no other standby to wait for/);
  });

  test('commits wait milliseconds', async () => {
    const run = keep(receive(archiveDirectory(), server.conninfo(), SYNCHRONOUS));
    await run.waitForOutput(/starting log streaming/);
    await (await Commit.start(server, 'on')).returns();
    const client = await server.client();
    const times: number[] = [];
    for (let i = 0; i < 200; i++) {
      const began = performance.now();
      await client.query("SELECT pg_logical_emit_message(true, 'test', 'commit')");
      times.push(performance.now() - began);
    }
    const median = times.sort((a, b) => a - b)[100];
    // Not with a tick of the receiver (250 ms) or a status interval; a slow disk may take its time.
    expect(median).toBeLessThan(200);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  });

  test('a graceful stop confirms the commits that still wait', async () => {
    // Only with -S: flushed at the end of a segment, when the server asks, and at the stop.
    const run = keep(receive(archiveDirectory(), server.conninfo(), ['-S', 's', '-s', '1']));
    await run.waitForOutput(/starting log streaming/);
    const commit = await Commit.start(server, 'on');
    const end = await server.currentLsn();
    await waitFor(async () => ((await standby(server)).write ?? 0n) >= end);
    expect(await commit.waits()).toBe(true);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    await commit.returns();
    expect(commit.notices).toEqual([]);
    const [slot] = await server.sql(
      "SELECT restart_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = 's'",
    );
    expect(parseLsn(slot?.lsn)).toBeGreaterThanOrEqual(end);
  });

  test('remote_write does not wait for a sync that hangs', async () => {
    await server.configure({ synchronous_commit: 'remote_write' });
    const real = nodeFileSystem.fdatasync;
    let open = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    let hanging = 0;
    const stop = new AbortController();
    const directory = archiveDirectory();
    const connection = server.conninfo({ application_name: 'walkeep' });
    const receiver = new WalReceiver({ connection, directory, slot: 's', synchronous: true });
    const result = receiver.run(stop.signal);
    result.catch(() => {});
    try {
      await waitFor(async () => (await standby(server)).state === 'sync');
      await (await Commit.start(server, 'on')).returns();
      nodeFileSystem.fdatasync = async (fd) => {
        hanging += 1;
        await gate;
        return real(fd);
      };
      const durable = await Commit.start(server, 'on');
      await waitFor(() => hanging > 0);
      for (let i = 0; i < 20; i++) await (await Commit.start(server, 'remote_write')).returns();
      expect(await durable.waits()).toBe(true);
      const { write, flush } = await standby(server);
      expect(flush).toBeLessThan(write as bigint);
      expect(hanging).toBe(1);
      open();
      await durable.returns();
    } finally {
      open();
      nodeFileSystem.fdatasync = real;
      stop.abort();
      await server.configure({ synchronous_commit: undefined });
    }
    await result;
  });
});
