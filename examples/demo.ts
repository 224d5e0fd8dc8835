/**
 * `npm run demo`: a real PostgreSQL, a workload that commits, and `walkeep receive` as its
 * synchronous standby. In the middle of it the primary is killed. The stored WAL is compared byte
 * for byte with what the server has, the server's data is destroyed, and a new server recovers
 * through `walkeep fetch`: every confirmed commit is there. Everything is in a temporary directory
 * and gone afterwards.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readLedger } from '../src/archive/ledger.js';
import { formatLsn, type Lsn, parseLsn } from '../src/lsn.js';
import { type CliRun, runCli } from '../test/support/cli.js';
import { cmpPrefix, cmpSegments } from '../test/support/compare.js';
import { MAJORS, PostgresServer } from '../test/support/postgres.js';
import { giveToServer, removeScratch, scratchDir } from '../test/support/scratch.js';
import { walkeepForServer } from '../test/support/server-program.js';
import { waitFor } from '../test/support/wait.js';
import { workload } from '../test/support/workload.js';

/** Commits after which the primary is killed, while more are on their way. */
const COMMITS = 400;
const began = performance.now();
const seconds = () => `${((performance.now() - began) / 1000).toFixed(1).padStart(5)} s`;
const say = (text = '') => console.log(text);
const step = (text: string) => say(`${seconds()}  ${text}`);

let server: PostgresServer | undefined;
let recovered: PostgresServer | undefined;
let receiver: CliRun | undefined;

async function cleanUp(): Promise<void> {
  receiver?.child.kill('SIGKILL');
  await recovered?.destroy();
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

/** Commits until the primary is killed under it; gives the numbers that were confirmed. */
async function commitUntilKilled(primary: PostgresServer, directory: string): Promise<number[]> {
  const confirmed: number[] = [];
  const show = async () => {
    const now = await standby(primary);
    const complete = readdirSync(directory).filter((f) => /^[0-9A-F]{24}$/.test(f)).length;
    step(
      `${String(confirmed.length).padStart(4)} commits  ${String(complete).padStart(3)} segments  ` +
        `flushed ${now ? formatLsn(now.flushed) : '?'}  lag ${Math.ceil((now?.lag ?? 0) / 1024)} kB`,
    );
  };
  const timer = setInterval(() => void show().catch(() => {}), 1000);
  let killed: Promise<void> | undefined;
  try {
    await workload(primary, {
      transactions: 2 * COMMITS,
      rows: 100,
      prepareEvery: 10,
      messageBytes: 8_000,
      onCommit: (id) => {
        confirmed.push(id);
        if (confirmed.length === COMMITS) killed = primary.kill9();
      },
    });
  } catch (error) {
    // The lost session is what was wanted.
    if (!killed) throw error;
  } finally {
    clearInterval(timer);
  }
  await killed;
  return confirmed;
}

/** Compares with the dead server's own files; throws at the first difference. */
async function prove(primary: PostgresServer, directory: string, end: Lsn): Promise<void> {
  const own = (name: string) => join(primary.dataDir, 'pg_wal', name);
  const { equal, different, onlyInA, onlyInB } = cmpSegments(directory, primary.archiveDir);
  const first = [...equal, ...onlyInA].sort()[0] ?? '';
  const missing = onlyInB.filter((segment) => segment > first);
  // What its archiver had not copied yet when it died is still in its pg_wal.
  const bad = onlyInA.filter(
    (name) => cmpPrefix(join(directory, name), own(name), primary.segmentSize) >= 0,
  );
  if (equal.length === 0 || different.length + bad.length + missing.length > 0) {
    throw new Error(`the archives differ: ${JSON.stringify({ different, bad, missing })}`);
  }
  step(`${equal.length} segments equal the server's archived copies, byte for byte`);
  if (onlyInA.length > 0) {
    step(`${onlyInA.length} more equal its pg_wal: its own archiver had not come to them`);
  }
  const [partial] = readdirSync(directory).filter((f) => /^[0-9A-F]{24}\.partial$/.test(f));
  if (!partial) return;
  const length = Number(end % BigInt(primary.segmentSize));
  const offset = cmpPrefix(join(directory, partial), own(partial.replace('.partial', '')), length);
  if (offset >= 0) throw new Error(`${partial} differs at offset ${offset}`);
  step(`${partial}`);
  step(`equals the server's segment up to ${formatLsn(end)} (${length} bytes)`);
}

/** A new server from the backup and the archive; throws unless every confirmed commit is there. */
async function recover(backup: string, directory: string, confirmed: number[]): Promise<void> {
  // The server's user reads the archive.
  giveToServer(directory);
  for (const file of readdirSync(directory)) giveToServer(join(directory, file));
  const primary = server as PostgresServer;
  recovered = await primary.recoverFrom({
    backup,
    restoreCommand: `${walkeepForServer()} fetch "${directory}" %f "%p"`,
    settings: { synchronous_standby_names: '' },
  });
  const again = recovered;
  await waitFor(async () => (await again.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false, {
    what: 'the end of recovery',
    timeoutMs: 60_000,
  });
  const rows = await again.sql<{ id: number }>('SELECT id FROM committed');
  const there = new Set(rows.map((row) => row.id));
  const lost = confirmed.filter((id) => !there.has(id));
  if (lost.length > 0) throw new Error(`${lost.length} confirmed commits are lost: ${lost}`);
  step(`recovered: all ${confirmed.length} confirmed commits are there`);
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
  const backup = await server.baseBackup();
  step('a base backup is taken');

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

  const working = commitUntilKilled(server, directory);
  working.catch(() => {});
  const confirmed = await Promise.race([working, ended]);
  step(`kill -9: the primary is dead; ${confirmed.length} commits were confirmed`);

  const status = await receiver.stop('SIGINT');
  if (status.code !== 0) {
    throw new Error(`walkeep ended with ${status.code ?? status.signal}:\n${receiver.stderr}`);
  }
  const end = (await readLedger(directory))?.end;
  if (end === undefined) throw new Error('the ledger says nothing');
  step('walkeep is stopped; comparing');
  await prove(server, directory, end);

  removeScratch(server.dataDir);
  step("the primary's data directory is destroyed");
  step("$ restore_command = 'walkeep fetch DIR %f %p'");
  await recover(backup, directory, confirmed);
  say();
  say('Nothing that was confirmed is lost, up to the moment the primary died.');
  say('Nothing is left behind: files and servers are removed.');
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
