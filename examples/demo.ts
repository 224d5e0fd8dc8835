/**
 * `npm run demo`: a real PostgreSQL, a workload that commits, and `walkeep receive` as its
 * synchronous standby. At the end the stored WAL is compared byte for byte with what the server
 * archived itself. Everything is in a temporary directory and gone afterwards.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { formatLsn, type Lsn, parseLsn } from '../src/wal/lsn.js';
import { type CliRun, runCli } from '../test/support/cli.js';
import { cmpPrefix, cmpSegments } from '../test/support/compare.js';
import { MAJORS, PostgresServer } from '../test/support/postgres.js';
import { scratchDir } from '../test/support/scratch.js';
import { waitFor } from '../test/support/wait.js';
import { workload } from '../test/support/workload.js';

const TRANSACTIONS = 1000;
const began = performance.now();
const seconds = () => `${((performance.now() - began) / 1000).toFixed(1).padStart(5)} s`;
const say = (text = '') => console.log(text);
const step = (text: string) => say(`${seconds()}  ${text}`);

let server: PostgresServer | undefined;
let receiver: CliRun | undefined;

async function cleanUp(): Promise<void> {
  receiver?.child.kill('SIGKILL');
  await server?.destroy();
}

/** What the server knows about its standby. */
async function standby(primary: PostgresServer) {
  const [row] = await primary.sql<{ flushed: string | null; lag: string; state: string }>(
    `SELECT flush_lsn::text AS flushed, sync_state AS state,
       pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn)::text AS lag
     FROM pg_stat_replication WHERE application_name = 'walkeep'`,
  );
  if (!row?.flushed) return undefined;
  return { flushed: parseLsn(row.flushed), lag: Number(row.lag), state: row.state };
}

async function commitWhileReceiving(
  primary: PostgresServer,
  directory: string,
): Promise<{ commits: number; slowest: number }> {
  let commits = 0;
  let slowest = 0;
  let last = performance.now();
  const show = async () => {
    const now = await standby(primary);
    const complete = readdirSync(directory).filter((f) => /^[0-9A-F]{24}$/.test(f)).length;
    step(
      `${String(commits).padStart(4)} commits  ${String(complete).padStart(3)} segments  ` +
        `flushed ${now ? formatLsn(now.flushed) : '?'}  lag ${Math.ceil((now?.lag ?? 0) / 1024)} kB`,
    );
  };
  const timer = setInterval(() => void show().catch(() => {}), 500);
  try {
    await workload(primary, {
      transactions: TRANSACTIONS,
      rows: 100,
      prepareEvery: 10,
      messageBytes: 8_000,
      onCommit: () => {
        const now = performance.now();
        slowest = Math.max(slowest, now - last);
        last = now;
        commits += 1;
      },
    });
  } finally {
    clearInterval(timer);
  }
  await show();
  return { commits, slowest };
}

/** Compares with the server's own files; throws at the first difference. */
async function prove(primary: PostgresServer, directory: string, flushed: Lsn): Promise<void> {
  const size = BigInt(primary.segmentSize);
  const result = cmpSegments(directory, primary.archiveDir);
  const first = result.equal[0] ?? '';
  const missing = result.onlyInB.filter((segment) => segment > first);
  if (result.equal.length === 0 || result.different.length + result.onlyInA.length > 0) {
    throw new Error(`the archives differ: ${JSON.stringify(result)}`);
  }
  if (missing.length > 0) throw new Error(`missing segments: ${missing.join(', ')}`);
  step(`${result.equal.length} segments equal the server's archived copies, byte for byte`);

  const [partial] = readdirSync(directory).filter((f) => /^[0-9A-F]{24}\.partial$/.test(f));
  if (!partial) return;
  const length = Number(flushed % size);
  const own = join(primary.dataDir, 'pg_wal', partial.replace('.partial', ''));
  const offset = cmpPrefix(join(directory, partial), own, length);
  if (offset >= 0) throw new Error(`${partial} differs at offset ${offset}`);
  step(`${partial}`);
  step(`equals the server's segment up to the flushed position (${length} bytes)`);
}

async function main(): Promise<void> {
  const major = MAJORS.at(-1);
  if (!major) {
    throw new Error('the demo needs PostgreSQL from npm, which exists for Linux on x64 here');
  }
  say('walkeep demo: a synchronous standby that only keeps the WAL');
  say();
  server = await PostgresServer.create({ major, archive: true, fsync: true });
  step(`PostgreSQL ${major} runs (1 MB segments); it also archives by itself`);
  await server.sql("SELECT pg_create_physical_replication_slot('demo', true)");

  const directory = scratchDir('received');
  const args = ['receive', '-D', directory, '-S', 'demo', '--synchronous', '-v'];
  step(`$ ${args.with(2, 'DIR').join(' ').replace('receive', 'walkeep receive')}`);
  receiver = runCli([...args, '-d', server.conninfo()]);
  const ended = receiver.exit.then(() => {
    throw new Error(`walkeep ended by itself:\n${receiver?.stderr}`);
  });
  const primary = server;
  const streaming = waitFor(() => standby(primary), { what: 'walkeep to stream' });
  // It may end by itself at any moment until it is told to stop.
  ended.catch(() => {});
  streaming.catch(() => {});
  await Promise.race([streaming, ended]);
  await server.configure({ synchronous_standby_names: 'walkeep' });
  await waitFor(async () => (await standby(primary))?.state === 'sync', {
    what: 'walkeep to be the synchronous standby',
  });
  step('walkeep is the synchronous standby: a commit waits for its fsync');

  const working = commitWhileReceiving(server, directory);
  working.catch(() => {});
  const { commits, slowest } = await Promise.race([working, ended]);
  step(
    `the last of ${commits} commits is confirmed (slowest transaction ${slowest.toFixed(0)} ms)`,
  );

  const end = await server.currentLsn();
  const { flushed } = await waitFor(
    async () => {
      const now = await standby(primary);
      return now && now.flushed >= end && now;
    },
    { what: `walkeep to flush up to ${formatLsn(end)}` },
  );
  const status = await receiver.stop('SIGINT');
  if (status.code !== 0) {
    throw new Error(`walkeep ended with ${status.code ?? status.signal}:\n${receiver.stderr}`);
  }
  const lastSegment = readdirSync(directory)
    .filter((f) => /^[0-9A-F]{24}$/.test(f))
    .sort()
    .at(-1);
  if (lastSegment) await server.waitArchived(lastSegment);
  await server.stop('immediate');
  step('walkeep and the server are stopped; comparing');
  await prove(server, directory, flushed);
  say();
  say(`Every one of the ${commits} confirmed commits is in the archive, up to`);
  say(`${formatLsn(end)}. Nothing is left behind: files and server are removed.`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    say(`\n${signal}: stopping and removing everything`);
    void cleanUp().finally(() => process.exit(signal === 'SIGINT' ? 130 : 143));
  });
}

try {
  await main();
} catch (error) {
  console.error(`\ndemo failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
} finally {
  await cleanUp();
  if (server && existsSync(server.dir)) process.exitCode = 1;
}
// What still waits for a server that is gone now need not run into its timeout.
process.exit();
