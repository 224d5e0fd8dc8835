import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { run } from '../cli/run.js';
import { disposer } from '../support/cleanup.js';
import { CommitClients } from '../support/commit-clients.js';
import { missingAfterRecovery } from '../support/crash-round.js';
import { PASSWORD, PostgresServer } from '../support/postgres.js';
import { childrenOf, isRunning, signal } from '../support/processes.js';
import { archiveDirectory, waitEqual } from '../support/receiving.js';
import { removeScratch, scratchDir } from '../support/scratch.js';
import { Serving } from '../support/serving.js';
import { waitFor } from '../support/wait.js';

/** `WALKEEP_SERVE_ROUNDS=100` for the long mode, which prints how long commits waited. */
const ROUNDS = Number(process.env.WALKEEP_SERVE_ROUNDS ?? 3);
const SESSIONS = 4;
const KINDS = ['kill the receiver', 'stop the receiver', 'kill the program'] as const;
type Kind = (typeof KINDS)[number];

const keep = disposer();

/** What is in an archive at this moment, also while somebody writes to it. */
const snapshot = (directory: string) =>
  waitFor(() => {
    const copy = scratchDir('snapshot');
    // A file that was renamed meanwhile is an error.
    execFileSync('cp', ['-r', `${directory}/.`, copy], { stdio: 'ignore' });
    return copy;
  });

const tally = (ms: number[]) => {
  const sorted = ms.toSorted((a, b) => a - b);
  return { n: ms.length, median: sorted[sorted.length >> 1], max: sorted.at(-1) };
};

it(
  `${ROUNDS} kills of receivers and of the program that watches them lose no confirmed commit`,
  async () => {
    const server = await PostgresServer.create({ major: 18, auth: 'scram-sha-256' });
    keep({ [Symbol.asyncDispose]: () => server.destroy() });
    await server.sql('CREATE TABLE t (n int PRIMARY KEY, note text)');
    const password = join(scratchDir('secret'), 'password');
    writeFileSync(password, `${PASSWORD}\n`, { mode: 0o600 });
    const directory = archiveDirectory();
    const serving = keep(
      await Serving.start({
        shop: {
          connection: `host=127.0.0.1 port=${server.port} user=postgres`,
          ...{ password_file: password, directory, slot: 'walkeep', ensure_slot: true },
          synchronous: true,
        },
      }),
    );
    await serving.waitState('shop', 'streaming');
    await server.configure({ synchronous_standby_names: 'walkeep', synchronous_commit: 'on' });
    const clients = new CommitClients(() => server, { sessions: SESSIONS, pauseMs: 2 });
    const { confirmed } = clients;
    const waits: Record<Kind, number[]> = {
      ...{ 'kill the receiver': [], 'stop the receiver': [], 'kill the program': [] },
    };

    for (let round = 0; round < ROUNDS; round += 1) {
      const kind = KINDS[round % KINDS.length] as Kind;
      const backup = await server.baseBackup();
      const label = readFileSync(join(backup, 'backup_label'), 'utf8');
      const first = /\(file ([0-9A-F]{24})\)/.exec(label)?.[1] as string;
      const before = confirmed.length;
      await waitFor(() => confirmed.length > before + 50);
      const old = serving.run;
      const receiver = await serving.pidOf('shop');
      const children = childrenOf(old.pid);
      expect(children).toContain(receiver);

      const began = performance.now();
      if (kind === 'kill the program') signal(old.pid, 'SIGKILL');
      else signal(receiver, kind === 'kill the receiver' ? 'SIGKILL' : 'SIGSTOP');
      // Its answers that are on their way already count, too.
      const known = [...confirmed];
      const copy = await snapshot(directory);
      if (kind === 'kill the program') {
        // Whoever began it does so again at once: its receivers may still be there.
        if (old.child.exitCode === null && old.child.signalCode === null) {
          await once(old.child, 'exit');
        }
        await serving.restart();
      }
      const gone = kind === 'kill the program' ? children : [receiver];
      await waitFor(() => !gone.some(isRunning), { timeoutMs: 120_000, what: `${gone} to go` });
      const stopped = confirmed.length;
      // Each session may have one more that was answered before.
      await waitFor(() => confirmed.length > stopped + SESSIONS, { timeoutMs: 120_000 });
      waits[kind].push(Math.round(performance.now() - began));
      const { pid } = await serving.waitState('shop', 'streaming');
      expect(pid).not.toBe(receiver);

      const lost = await missingAfterRecovery(server, backup, copy, known);
      expect({ round, kind, lost }).toEqual({ round, kind, lost: [] });
      removeScratch(copy);
      removeScratch(join(backup, '..'));
      await run('walkeep', 'cleanup', directory, first);
    }

    const settled = confirmed.length;
    await waitFor(() => confirmed.length > settled + SESSIONS);
    await clients.stop();
    await waitEqual(directory, server);
    const rows = await server.sql<{ n: number }>('SELECT n FROM t');
    const there = new Set(rows.map(({ n }) => n));
    expect(confirmed.filter((n) => !there.has(n))).toEqual([]);
    expect(serving.events('held')).toEqual([]);
    if (process.env.WALKEEP_SERVE_ROUNDS) {
      const told = Object.entries(waits).map(([kind, ms]) => [kind, tally(ms)]);
      console.log(JSON.stringify({ confirmed: confirmed.length, ms: Object.fromEntries(told) }));
    }
  },
  180_000 + ROUNDS * 60_000,
);
