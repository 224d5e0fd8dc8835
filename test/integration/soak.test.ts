import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, waitEqual } from '../support/receiving.js';
import { killAtEnd, packageRoot } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

/** `WALKEEP_SOAK_SECONDS=180` for the full run: a day's reconnects, idle times and commits. */
const SECONDS = Number(process.env.WALKEEP_SOAK_SECONDS ?? 15);
/** How much more the second half may take; a short run still warms up. */
const GROWTH = SECONDS >= 120 ? 1.05 : 1.25;
/** Two sessions wait for walkeep; one does not, so that it cannot hold the rate down. */
const SESSIONS = ['on', 'on', 'local'] as const;

interface Look {
  name: 'running' | 'ended';
  connects: number;
  rss: number;
  heapUsed: number;
  external: number;
  cpu: number;
  resources: Record<string, number>;
  listeners: number;
  process: string[];
}

function soak(args: string[]) {
  const child = spawn(process.execPath, ['--expose-gc', 'test/support/soak-child.mjs', ...args], {
    cwd: packageRoot,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  killAtEnd(child);
  const looks: Look[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => looks.push(JSON.parse(line)));
  const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
  keep({ [Symbol.asyncDispose]: async () => void child.kill('SIGKILL') });
  return { child, looks, exit };
}

/** Tiny commits, one behind the other; `counted` gets how many. */
async function commits(server: PostgresServer, level: string, seconds: number): Promise<void> {
  const client = await server.client();
  await client.query(`SET synchronous_commit = ${level}`);
  await client.query(`DO $$
    DECLARE ends timestamptz := clock_timestamp() + interval '${seconds} seconds'; done int := 0;
    BEGIN
      WHILE clock_timestamp() < ends LOOP
        INSERT INTO t VALUES (done);
        COMMIT;
        done := done + 1;
      END LOOP;
      INSERT INTO counted VALUES (done);
    END $$`);
  await client.end();
}

const mean = (values: number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;
const half = (looks: Look[], second: boolean) =>
  looks.slice(...(second ? [looks.length >> 1] : [0, looks.length >> 1]));
/** The most of a kind that was seen at once. */
const most = (looks: Look[], kind: string) =>
  Math.max(...looks.map((look) => look.resources[kind] ?? 0));

test.skipIf(MAJORS.length === 0)(
  `${SECONDS} seconds of tiny commits, idle times and reconnects leak nothing`,
  async () => {
    const server = keep(
      await PostgresServer.create({ major: MAJORS.at(-1)!, settings: { wal_keep_size: '16GB' } }),
    );
    await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
    await server.sql('CREATE TABLE t (n int)');
    await server.sql('CREATE TABLE counted (n int)');
    const directory = archiveDirectory();
    const { child, looks, exit } = soak([server.conninfo(), directory]);
    await waitFor(() => looks.some((look) => look.connects > 0));
    await server.configure({ synchronous_standby_names: 'walkeep' });
    const streaming = () =>
      waitFor(async () => {
        const [row] = await server.sql('SELECT sync_state AS state FROM pg_stat_replication');
        return row?.state === 'sync';
      });

    const began = performance.now();
    const elapsed = () => (performance.now() - began) / 1000;
    let loaded = 0;
    while (elapsed() < SECONDS) {
      await streaming();
      const seconds = Math.min(2, SECONDS / 10);
      await Promise.all(SESSIONS.map((level) => commits(server, level, seconds)));
      loaded += seconds;
      // Idle: nothing comes but keepalives, for two looks.
      const idle = looks.length + 2;
      await waitFor(() => looks.length >= idle);
      const [pid] = await server.walSenderPids();
      await server.sql(`SELECT pg_terminate_backend(${pid})`);
    }
    await streaming();
    await waitEqual(directory, server);
    child.kill('SIGTERM');
    // It ends by itself: nothing is left that would keep it.
    expect(await exit).toBe(0);

    const running = looks.filter((look) => look.name === 'running');
    const [first, second] = [half(running, false), half(running, true)];
    const [row] = await server.sql('SELECT sum(n)::int AS n FROM counted');
    const megabytes = (of: Look[]) => mean(of.map((look) => look.rss)) / 1024 / 1024;
    const growth = megabytes(second) / megabytes(first);
    const held = (of: Look[]) => mean(of.map((look) => look.heapUsed + look.external));
    const last = running.at(-1)!;
    console.log(
      `${elapsed().toFixed(0)} s, ${row?.n} commits (${(row?.n / loaded).toFixed(0)} a second while loaded), ` +
        `${last.connects} connections, CPU ${last.cpu.toFixed(1)} s, ` +
        `RSS ${megabytes(first).toFixed(1)} MB in the first half, ${megabytes(second).toFixed(1)} MB in the second ` +
        `(${((growth - 1) * 100).toFixed(1)} %)`,
    );
    expect(growth).toBeLessThan(GROWTH);
    expect(held(second) / held(first)).toBeLessThan(GROWTH);
    expect(last.connects).toBeGreaterThan(4);
    for (const kind of ['Timeout', 'TCPSocketWrap', 'Immediate']) {
      expect(most(second, kind), kind).toBeLessThanOrEqual(most(first, kind) + 1);
    }
    expect(Math.max(...second.map((l) => l.listeners))).toBeLessThanOrEqual(
      Math.max(...first.map((l) => l.listeners)),
    );
    expect(second.at(-1)?.process).toEqual(first[0]?.process);
    const ended = looks.at(-1)!;
    expect(ended).toMatchObject({ name: 'ended', listeners: 0 });
    const left = Object.keys(ended.resources).filter(
      (kind) => !/^(PipeWrap|Immediate)$/.test(kind),
    );
    expect(left).toEqual([]);
  },
  SECONDS * 1000 + 120_000,
);
