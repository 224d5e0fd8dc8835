import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { formatLsn } from '../../src/lsn.js';
import { Random } from '../simulation/random.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli, unfolded } from '../support/cli.js';
import { CommitClients } from '../support/commit-clients.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, writeWal } from '../support/receiving.js';
import { handOver, installedCommand } from '../support/restoring.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
/** `WALKEEP_TWO_RECEIVERS=20`: rounds with each of the two majors. */
const LONG = process.env.WALKEEP_TWO_RECEIVERS;
const ROUNDS = Number(LONG ?? 2);
const SEED = Number(process.env.WALKEEP_TWO_RECEIVERS_SEED ?? Date.now() % 1_000_000);
const ENDS = MAJORS.filter((major) => major === 14 || major === 18);

type Name = 'a' | 'b';
const NAMES: readonly Name[] = ['a', 'b'];
const otherOf = (name: Name): Name => (name === 'a' ? 'b' : 'a');

/** A primary that keeps no WAL but a little for slots, and a receiver on each of two machines. */
class TwoReceivers implements AsyncDisposable {
  readonly server: PostgresServer;
  readonly directories = { a: archiveDirectory(), b: archiveDirectory() };
  readonly runs: Partial<Record<Name, CliRun>> = {};

  private constructor(server: PostgresServer) {
    this.server = server;
  }

  static async create(major: Major): Promise<TwoReceivers> {
    const settings = { wal_keep_size: '0', max_wal_size: '2MB', min_wal_size: '2MB' };
    const server = await PostgresServer.create({ major, archive: true, settings });
    const both = new TwoReceivers(server);
    try {
      await server.sql('CREATE TABLE t (n int PRIMARY KEY, note text)');
      await Promise.all(NAMES.map((name) => both.start(name)));
      return both;
    } catch (e) {
      await server.destroy();
      throw e;
    }
  }

  async start(name: Name): Promise<CliRun> {
    const { server, directories } = this;
    const run = receive(directories[name], server.conninfo({ application_name: name }), [
      ...['-S', name, '--ensure-slot', '--synchronous'],
      `--backfill=${directories[otherOf(name)]}`,
    ]);
    this.runs[name] = run;
    await run.waitForOutput(/starting log streaming/);
    return run;
  }

  pause(name: Name): void {
    this.runs[name]?.child.kill('SIGSTOP');
  }

  goOn(name: Name): void {
    this.runs[name]?.child.kill('SIGCONT');
  }

  async kill(name: Name): Promise<void> {
    await this.runs[name]?.stop('SIGKILL');
  }

  /** Until a receiver has acknowledged all that there is now. */
  async caughtUp(name: Name): Promise<void> {
    const lsn = formatLsn(await this.server.currentLsn());
    await waitFor(
      async () => {
        const [row] = await this.server.sql(
          'SELECT flush_lsn >= $1::pg_lsn AS held FROM pg_stat_replication WHERE application_name = $2',
          [lsn, name],
        );
        if (row?.held) return true;
        throw new Error(`${name}: ${this.runs[name]?.stderr.slice(-2000)}`);
      },
      { what: `${name} to have ${lsn}`, timeoutMs: 120_000 },
    );
  }

  /** Writes until the slot of one that is away has lost its WAL. */
  async loseSlot(name: Name): Promise<void> {
    const { server } = this;
    await server.configure({ max_slot_wal_keep_size: '1MB' });
    await waitFor(
      async () => {
        await writeWal(server, 1_500_000);
        await server.sql('CHECKPOINT');
        const [slot] = await server.sql(
          'SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1',
          [name],
        );
        return slot?.wal_status === 'lost';
      },
      { what: `the slot of ${name} to be lost`, timeoutMs: 120_000 },
    );
    // One that is under way may be about to remove what it has taken from the slot.
    await server.sql('CHECKPOINT');
    await server.configure({ max_slot_wal_keep_size: '-1' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of NAMES) await this.kill(name);
    await this.server.destroy();
  }
}

/** Commits that were confirmed, of a server that recovers from a base backup and these places. */
async function recoveredRows(
  server: PostgresServer,
  backup: string,
  places: readonly string[],
): Promise<Set<number>> {
  const copies = places.map((place) => {
    const copy = scratchDir('archive', { forServer: true });
    execFileSync('cp', ['-r', `${place}/.`, copy]);
    handOver(copy);
    return copy;
  });
  const command = `${process.execPath} ${installedCommand()} fetch ${copies.join(' ')} %f %p`;
  await using recovered = await server.recoverFrom({
    ...{ backup, restoreCommand: command },
    settings: { synchronous_standby_names: '', archive_mode: 'off' },
  });
  await waitFor(async () => !(await recovered.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r, {
    what: 'the end of recovery',
    timeoutMs: 120_000,
  });
  const rows = await recovered.sql<{ n: number }>('SELECT n FROM t');
  return new Set(rows.map(({ n }) => n));
}

/**
 * What is lost together with the primary. `behind`: the disk of the receiver that has less. `ahead`:
 * that of the only one that confirmed the last commits. `any`: with ANY 2, the one or the other.
 */
const FATES = ['behind', 'nothing', 'any', 'ahead'] as const;
type Fate = (typeof FATES)[number];

interface RoundResult {
  confirmed: number;
  /** Confirmed rows that must be there, and are not. */
  lost: number[];
  /** Confirmed rows that only the disk that was lost had. */
  alone: number;
}

async function round(major: Major, fate: Fate, random: Random): Promise<RoundResult> {
  await using both = await TwoReceivers.create(major);
  const { server, directories } = both;
  for (const name of NAMES) await both.caughtUp(name);
  const backup = await server.baseBackup();
  const count = fate === 'any' ? 2 : 1;
  await server.configure({ synchronous_standby_names: `ANY ${count} (a, b)` });
  const clients = new CommitClients(() => server);
  const more = (n: number) => {
    const enough = clients.confirmed.length + n;
    return waitFor(() => clients.confirmed.length >= enough, {
      ...{ what: `${n} more commits`, intervalMs: 5, timeoutMs: 120_000 },
    });
  };
  await more(20);
  // Either is away for a while, so that the other one is ahead, and makes good what it lacks.
  const away = random.pick(NAMES);
  if (count === 1) {
    await both.kill(away);
    const loses = random.chance(0.5);
    if (loses) await both.loseSlot(away);
    else await writeWal(server, 2_500_000);
    await more(20);
    const again = await both.start(away);
    // What the slot lost is on the other machine only.
    if (loses) await again.waitForOutput(/took 0\w{23} from/);
    await both.caughtUp(away);
  }
  const paused = random.pick(NAMES);
  await both.caughtUp(paused);
  const held = [...clients.confirmed];
  await both.caughtUp(paused);
  if (count === 1) both.pause(paused);
  await more(10 + random.below(40));
  const stopped = clients.stop();
  await server.kill9();
  for (const name of NAMES) await both.kill(name);
  await stopped;
  const { confirmed } = clients;

  const lost = fate === 'ahead' ? otherOf(paused) : fate === 'behind' ? paused : random.pick(NAMES);
  // A machine that is lost for good is not named any more.
  const left = fate === 'nothing' ? NAMES : NAMES.filter((name) => name !== lost);
  const places = left.map((name) => directories[name]);
  if (random.chance(0.5)) places.reverse();
  const rows = await recoveredRows(server, backup, places);
  if (left.length === 1) {
    // Still named, it cannot be asked, and may have more: recovery must not take that for the end.
    const named = [join(directories[lost], 'lost'), ...places];
    for (const order of [named, named.toReversed()]) {
      const target = join(scratchDir('fetch'), 'RECOVERYXLOG');
      const fetch = keep(runCli(['fetch', ...order, '00000002.history', target]));
      expect((await fetch.exit).code, fetch.stderr).toBeGreaterThan(125);
    }
  }
  for (const place of places) {
    const verify = keep(runCli(['verify', '--quick', place]));
    expect((await verify.exit).code, verify.stdout + verify.stderr).toBeLessThan(2);
  }
  // Of what only the lost disk had nothing can be left; all that the other one confirmed must be.
  const promised = fate === 'ahead' ? held : confirmed;
  return {
    confirmed: confirmed.length,
    lost: promised.filter((n) => !rows.has(n)),
    alone: confirmed.filter((n) => !rows.has(n)).length,
  };
}

test('a new disk gets all that the other machine has', async () => {
  const major = MAJORS.at(-1) as Major;
  await using both = await TwoReceivers.create(major);
  const { server, directories } = both;
  await server.configure({ synchronous_standby_names: 'ANY 1 (a, b)' });
  const backup = await server.baseBackup();
  const clients = new CommitClients(() => server);
  const more = () => {
    const enough = clients.confirmed.length + 20;
    return waitFor(() => clients.confirmed.length >= enough, {
      ...{ what: 'commits', intervalMs: 5, timeoutMs: 120_000 },
    });
  };
  await more();
  await writeWal(server, 2_500_000);
  await both.kill('b');
  // Not in silence: what is confirmed now is on one disk.
  const check = keep(
    runCli([
      ...['check', '-w', '-D', directories.a, '-S', 'a'],
      ...['-d', server.conninfo({ application_name: 'a' })],
    ]),
  );
  expect((await check.exit).code).toBe(1);
  expect(unfolded(check.stdout)).toContain(
    '"b" is not connected: commits are confirmed without it',
  );
  rmSync(directories.b, { recursive: true });
  mkdirSync(directories.b);
  await both.loseSlot('b');
  await more();
  await both.start('b');
  await more();
  // The joint is the first segment that both have whole.
  const segments = () => segmentsIn(directories.a).filter((name) => name < newest);
  const newest = await server.switchWal();
  await waitFor(
    () => {
      const here = segmentsIn(directories.b);
      const missing = segments().filter((name) => !here.includes(name));
      if (missing.length === 0) return true;
      throw new Error(`${missing} ${both.runs.b?.stderr.slice(-2000)}`);
    },
    { what: 'all older segments', timeoutMs: 120_000 },
  );
  await clients.stop();
  await both.caughtUp('b');
  await server.kill9();
  for (const name of NAMES) await both.kill(name);
  for (const name of segments()) {
    const [one, other] = NAMES.map((machine) => readFileSync(join(directories[machine], name)));
    expect(one?.equals(other as Buffer), name).toBe(true);
  }
  const rows = await recoveredRows(server, backup, [directories.b]);
  expect(clients.confirmed.filter((n) => !rows.has(n))).toEqual([]);
  const verify = keep(runCli(['verify', directories.b]));
  expect((await verify.exit).code, verify.stdout + verify.stderr).toBe(0);
}, 600_000);

const segmentsIn = (directory: string) =>
  readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));

test.each(LONG ? ENDS : ENDS.slice(-1))(
  `what two receivers confirmed is recovered, ${ROUNDS} rounds, PostgreSQL %i`,
  async (major) => {
    const sum = { confirmed: 0, lost: 0, alone: 0 };
    for (let n = 0; n < ROUNDS; n++) {
      const random = new Random(SEED + n);
      const fate = FATES[(SEED + n) % FATES.length] as Fate;
      const result = await round(major, fate, random);
      const what = `WALKEEP_TWO_RECEIVERS_SEED=${SEED + n} ${fate}`;
      expect(result.lost, what).toEqual([]);
      sum.confirmed += result.confirmed;
      sum.lost += result.lost.length;
      sum.alone += result.alone;
    }
    console.log(
      `PostgreSQL ${major}, ${ROUNDS} rounds (seed ${SEED}): ${sum.confirmed} commits confirmed, ${sum.lost} lost; ${sum.alone} only on the disk that was lost`,
    );
  },
  ROUNDS * 600_000,
);
