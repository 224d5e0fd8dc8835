/**
 * `npm run demo`: a real PostgreSQL with `walkeep receive` as its synchronous standby, a base backup,
 * a workload that commits, and two accidents: somebody drops a table, and later the primary is killed
 * and its disk is gone. What was received live is compared with the server's own files; then one
 * command brings back every confirmed commit, and another the table, as it was just before the drop.
 * Everything is in a temporary directory and gone afterwards.
 */
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readLedger } from '../src/archive/ledger.js';
import { formatLsn, parseLsn } from '../src/lsn.js';
import { type CliRun, runCli } from '../test/support/cli.js';
import { cmpPrefix, cmpSegments } from '../test/support/compare.js';
import { MAJORS, PostgresServer } from '../test/support/postgres.js';
import { removeScratch, scratchDir, serverUser } from '../test/support/scratch.js';
import { walkeepForServer } from '../test/support/server-program.js';
import { waitFor } from '../test/support/wait.js';
import { workload } from '../test/support/workload.js';

/** Confirmed commits at which the table is dropped, and the primary killed while more are on their way. */
const BEFORE_DROP = 150;
const COMMITS = 400;
const ACCOUNTS = 50_000;

/** Whom commands run as: the lost machine's root at first, then the user that the new server runs as. */
let user: typeof serverUser = {};
/** What stands for which path in what is shown. */
const places: Record<string, string> = {};

const began = performance.now();
const seconds = () => `${((performance.now() - began) / 1000).toFixed(1).padStart(5)} s`;
const say = (text = '') => console.log(text);
const step = (text: string) => say(`${seconds()}  ${text}`);

let server: PostgresServer | undefined;
const restored: PostgresServer[] = [];
let receiver: CliRun | undefined;

async function cleanUp(): Promise<void> {
  receiver?.child.kill('SIGKILL');
  for (const one of restored) await one.destroy();
  await server?.destroy();
}

/**
 * Runs a command as an operator would, and shows it with what it says.
 * @param names what stands for which path in what is shown
 */
async function walkeep(args: string[], names: Record<string, string> = {}): Promise<string> {
  const shown = (text: string): string =>
    Object.entries({ ...places, ...names })
      .reduce((t, [path, name]) => t.replaceAll(path, name), text)
      // An installed one is on the path; this one lies somewhere in a checkout, or in a copy of it.
      .replaceAll(/PATH=\S+ \S+\/bin\/walkeep /g, 'walkeep ');
  say();
  step(`$ walkeep ${shown(args.map((arg) => (/[ ']/.test(arg) ? `"${arg}"` : arg)).join(' '))}`);
  // The settings that restore writes name this very program, which the server's user must be able to read.
  const run = promisify(execFile)('sh', ['-c', `${walkeepForServer()} "$@"`, 'walkeep', ...args], {
    ...user,
    cwd: '/',
  });
  const { stdout, stderr } = await run.catch((e: { stderr?: string }) => {
    throw new Error(`walkeep ${args[0]} failed:\n${e.stderr ?? e}`);
  });
  say(shown(`${stdout}${stderr}`).trimEnd());
  say();
  return stdout;
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
  let dropped: Promise<unknown> | undefined;
  try {
    await workload(primary, {
      transactions: 2 * COMMITS,
      rows: 100,
      prepareEvery: 10,
      messageBytes: 8_000,
      onCommit: (id) => {
        confirmed.push(id);
        if (confirmed.length === BEFORE_DROP) {
          dropped = primary
            .sql('DROP TABLE accounts')
            .then(() => step('somebody: DROP TABLE accounts'));
        }
        if (confirmed.length === COMMITS) killed = dropped?.then(() => primary.kill9());
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
async function prove(primary: PostgresServer, directory: string): Promise<void> {
  const end = (await readLedger(directory))?.end;
  if (end === undefined) throw new Error('the ledger says nothing');
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
  const [partial] = readdirSync(directory).filter((f) => /^[0-9A-F]{24}\.partial$/.test(f));
  const length = Number(end % BigInt(primary.segmentSize));
  const last = partial?.replace('.partial', '');
  const offset = last ? cmpPrefix(join(directory, partial as string), own(last), length) : -1;
  if (offset >= 0) throw new Error(`${partial} differs at offset ${offset}`);
  step(
    `${equal.length + onlyInA.length} segments, and the last one up to ${formatLsn(end)}, equal the server's own`,
  );
}

/** Starts what was restored and waits until it takes writes. */
async function start(one: PostgresServer): Promise<void> {
  restored.push(one);
  await one.start();
  const isPrimary = async () => !(await one.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r;
  await waitFor(isPrimary, { what: 'the end of recovery' });
  step('$ pg_ctl start: it recovered, and takes writes');
}

async function main(): Promise<void> {
  const major = MAJORS.at(-1);
  if (!major) {
    throw new Error('the demo needs PostgreSQL from npm, which exists for Linux on x64 here');
  }
  say('walkeep demo: from "the primary is gone" to rows back');
  say();
  server = await PostgresServer.create({ major, archive: true, fsync: true });
  const primary = server;
  step(`PostgreSQL ${major} runs (1 MB segments); it also archives by itself, to compare with`);
  await server.sql("SELECT pg_create_physical_replication_slot('demo', true)");

  const directory = scratchDir('archive', { forServer: true });
  Object.assign(places, { [directory]: 'ARCHIVE', [server.conninfo()]: 'CONN' });
  step('$ walkeep receive -D ARCHIVE -S demo --synchronous -d CONN');
  receiver = runCli([
    'receive',
    '-D',
    directory,
    '-S',
    'demo',
    '--synchronous',
    '-d',
    server.conninfo(),
  ]);
  const ended = receiver.exit.then(() => {
    throw new Error(`walkeep ended by itself:\n${receiver?.stderr}`);
  });
  // It may end by itself at any moment until it is told to stop.
  ended.catch(() => {});
  const streaming = waitFor(() => standby(primary), { what: 'walkeep to stream' });
  streaming.catch(() => {});
  await Promise.race([streaming, ended]);
  await server.configure({ synchronous_standby_names: 'walkeep' });
  await waitFor(async () => (await standby(primary))?.state === 'sync', {
    what: 'walkeep to be the synchronous standby',
  });
  step('walkeep is the synchronous standby: a commit waits for its fsync');
  await server.sql(
    `CREATE TABLE accounts AS SELECT i AS id, i * 7 AS balance FROM generate_series(1, ${ACCOUNTS}) i`,
  );
  await walkeep(['backup', directory, '-d', server.conninfo()]);

  say();
  const working = commitUntilKilled(server, directory);
  working.catch(() => {});
  const confirmed = await Promise.race([working, ended]);
  step(`kill -9: the primary is dead; ${confirmed.length} commits were confirmed`);
  const status = await receiver.stop('SIGINT');
  if (status.code !== 0) {
    throw new Error(`walkeep ended with ${status.code ?? status.signal}:\n${receiver.stderr}`);
  }
  await prove(server, directory);
  removeScratch(server.dataDir);
  step("the primary's disk is gone");
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, directory]);
  user = serverUser;

  await walkeep(['backups', directory]);
  const latest = await server.createRestored(
    async (dataDir) =>
      void (await walkeep(['restore', directory, dataDir], { [dataDir]: 'PGDATA' })),
    { synchronous_standby_names: '' },
  );
  await start(latest);
  const rows = await latest.sql<{ id: number }>('SELECT id FROM committed');
  const there = new Set(rows.map((row) => row.id));
  const lost = confirmed.filter((id) => !there.has(id));
  if (lost.length > 0) throw new Error(`${lost.length} confirmed commits are lost: ${lost}`);
  step(`all ${confirmed.length} confirmed commits are there`);

  const found = await walkeep(['find', directory, '--drops', '--target']);
  const undoLsn = /recovery_target_lsn = '([0-9A-F]+\/[0-9A-F]+)'/.exec(found)?.[1];
  if (!undoLsn) throw new Error('the drop was not found');
  const before = await server.createRestored(
    async (dataDir) =>
      void (await walkeep(
        ['restore', directory, dataDir, '--to', undoLsn, '--before', '--action', 'promote'],
        {
          [dataDir]: 'PGDATA2',
        },
      )),
  );
  await start(before);
  const [accounts] = await before.sql<{ n: number }>('SELECT count(*)::int AS n FROM accounts');
  if (accounts?.n !== ACCOUNTS) throw new Error(`${accounts?.n} of ${ACCOUNTS} rows are there`);
  step(`the dropped table is there, with all ${ACCOUNTS} rows`);
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
