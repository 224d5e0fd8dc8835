import { execFileSync } from 'node:child_process';
import type { CliRun } from './cli.js';
import { CommitClients } from './commit-clients.js';
import { MAJORS, PostgresServer } from './postgres.js';
import { childrenOf, isRunning, signal } from './processes.js';
import { archiveDirectory, receive } from './receiving.js';
import { removeScratch, scratchDir, serverUser } from './scratch.js';
import { waitFor } from './wait.js';

export const VICTIMS = ['walkeep', 'walsender', 'postmaster', 'server'] as const;
export type Victim = (typeof VICTIMS)[number];

/** Numbers from 0 to 1 that a seed reproduces (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The processes of one round. */
class Round {
  readonly server: PostgresServer;
  readonly directory = archiveDirectory();
  #run: CliRun | undefined;

  constructor(server: PostgresServer) {
    this.server = server;
  }

  async startReceiver(): Promise<void> {
    this.#run = receive(this.directory, this.server.conninfo(), ['-S', 's', '--synchronous']);
    await this.#run.waitForOutput(/starting log streaming/);
  }

  async killReceiver(): Promise<void> {
    await this.#run?.stop('SIGKILL');
  }

  /** What walkeep said; nothing but lost connections may have gone wrong. */
  get stderr(): string {
    return this.#run?.stderr ?? '';
  }

  /** kill -9, then the same again: as an operator or a supervisor would. */
  async kill(victim: Victim): Promise<void> {
    if (victim === 'walkeep') {
      await this.killReceiver();
      await this.startReceiver();
    } else if (victim === 'walsender') {
      const [pid] = await this.server.walSenderPids();
      // The postmaster takes it for a crash: all sessions end and the server recovers.
      if (pid !== undefined) signal(pid, 'SIGKILL');
    } else {
      if (victim === 'server') await this.server.kill9();
      else await this.#killPostmaster();
      await this.server.start();
    }
  }

  /** The postmaster alone: its children go on until they notice. */
  async #killPostmaster(): Promise<void> {
    const { pid } = this.server;
    const children = childrenOf(pid);
    signal(pid, 'SIGKILL');
    await this.server.waitStopped();
    await waitFor(() => !children.some(isRunning), { what: 'the orphans to end' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.killReceiver();
    await this.server.destroy();
  }
}

export interface RoundResult {
  kills: Victim[];
  confirmed: number;
  unconfirmed: number;
  /** Confirmed rows that the recovered server does not have. */
  lost: number[];
}

/**
 * One round: clients commit with synchronous_commit = on while something is killed at random
 * moments; then everything is killed, and a fresh server recovers from a base backup and the
 * archive alone.
 */
export async function crashRound(seed: number, first: Victim): Promise<RoundResult> {
  const random = randomFrom(seed);
  const kills = [first];
  while (kills.length < 3 && random() < 0.5) {
    kills.push(VICTIMS[Math.floor(random() * VICTIMS.length)] as Victim);
  }
  const server = await PostgresServer.create({
    major: MAJORS.at(-1)!,
    settings: { restart_after_crash: 'on' },
  });
  await using round = new Round(server);
  await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
  await server.sql('CREATE TABLE t (n int PRIMARY KEY, note text)');
  await round.startReceiver();
  const backup = await server.baseBackup();
  await server.configure({ synchronous_standby_names: 'walkeep' });

  const clients = new CommitClients(() => server);
  for (const victim of kills) {
    const enough = clients.confirmed.length + 20 + Math.floor(random() * 400);
    await waitFor(() => clients.confirmed.length >= enough, {
      what: `${enough} commits before killing ${victim}`,
      intervalMs: 1,
      timeoutMs: 60_000,
    }).catch((error) => {
      throw new Error(`${error.message}\n${round.stderr}`);
    });
    await round.kill(victim);
  }
  const enough = clients.confirmed.length + 1 + Math.floor(random() * 300);
  await waitFor(() => clients.confirmed.length >= enough, { intervalMs: 1, timeoutMs: 60_000 });
  const stopped = clients.stop();
  if (random() < 0.5) await round.killReceiver();
  await server.kill9();
  await round.killReceiver();
  await stopped;

  const lost = await missingAfterRecovery(server, backup, round.directory, clients.confirmed);
  const { confirmed, unconfirmed } = clients;
  return { kills, confirmed: confirmed.length, unconfirmed, lost };
}

/** Confirmed rows that a server recovered from the base backup and the archive lacks. */
export async function missingAfterRecovery(
  server: PostgresServer,
  backup: string,
  directory: string,
  confirmed: readonly number[],
): Promise<number[]> {
  // Where the servers' user can read it.
  const archive = scratchDir('archive', { forServer: true });
  execFileSync('cp', ['-r', `${directory}/.`, archive]);
  if (serverUser.uid) execFileSync('chown', ['-R', `${serverUser.uid}`, archive]);
  await using recovered = await server.recoverFrom({
    backup,
    restoreCommand: `cp ${archive}/%f %p 2>/dev/null || cp ${archive}/%f.partial %p 2>/dev/null`,
    settings: { synchronous_standby_names: '' },
  });
  await waitFor(
    async () => (await recovered.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
    { what: 'the recovery to end' },
  );
  const rows = await recovered.sql<{ n: number }>('SELECT n FROM t');
  const there = new Set(rows.map((row) => row.n));
  removeScratch(archive);
  return confirmed.filter((n) => !there.has(n));
}
