/**
 * Catch-up: how fast a receiver takes WAL that is already there. Rounds are interleaved; each
 * receiver starts in an empty directory at the same segment and stops at the same LSN.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PostgresServer } from '../test/support/postgres.js';
import { packageRoot } from '../test/support/scratch.js';
import { type Contender, pgReceivewal, Running, type Usage, walkeep } from './receivers.js';
import { print, ratioText, saveResult, scratchRoot } from './report.js';
import { median } from './statistics.js';
import { insertRows } from './wal-source.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 2048);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
const SETTINGS = { wal_keep_size: '8GB', max_wal_size: '8GB', shared_buffers: '512MB' };

const server = await PostgresServer.create({ major: 15, segmentSizeMb: 16, settings: SETTINGS });
const [{ start, name }] = (await server.sql(
  'SELECT pg_switch_wal(), pg_current_wal_lsn()::text AS start, pg_walfile_name(pg_current_wal_lsn()) AS name',
)) as [{ start: string; name: string }];
const startLsn = BigInt(`0x${start.split('/')[1]}`);
await insertRows(server, startLsn + BigInt(MEGABYTES) * 1024n * 1024n);
const [{ lsn: end }] = (await server.sql('SELECT pg_current_wal_lsn()::text AS lsn')) as [
  { lsn: string },
];
await server.sql('SELECT pg_switch_wal()');
await server.sql('INSERT INTO t VALUES (-1)');
const megabytes = Number((await server.currentLsn()) - startLsn) / 1e6;

const unix = `host=${server.socketDir} port=${server.port} user=postgres`;
const tcp = `host=127.0.0.1 port=${server.port} user=postgres sslmode=disable`;
const nothing: Contender = {
  name: 'null',
  command: [process.execPath, join(packageRoot, '.build/benchmarks/null-receiver.js')],
};

async function run(contender: Contender, conninfo: string, flags: string[]): Promise<Usage> {
  if (contender === nothing) {
    return new Running(contender, [conninfo, segmentStart(start), end]).finish();
  }
  const directory = mkdtempSync(join(scratchRoot(), 'wal-'));
  // An empty partial tells both where to start.
  writeFileSync(join(directory, `${name}.partial`), '');
  const args = ['-D', directory, '-n', '-E', end, '-d', conninfo, ...flags];
  const usage = await new Running(contender, args).finish();
  rmSync(directory, { recursive: true });
  if (usage.exitCode !== 0) throw new Error(`${contender.name} failed: ${usage.stderr}`);
  return usage;
}

function segmentStart(lsn: string): string {
  const [hi, lo] = lsn.split('/') as [string, string];
  return `${hi}/${(Number.parseInt(lo, 16) & ~0xffffff).toString(16)}`;
}

const theirs = pgReceivewal();
const cases = [
  { title: 'unix socket, fsync', conninfo: unix, flags: [] },
  { title: 'TCP, fsync', conninfo: tcp, flags: [] },
  { title: 'unix socket, --no-sync', conninfo: unix, flags: ['--no-sync'] },
  { title: 'unix socket, gzip:1', conninfo: unix, flags: ['-Z', 'gzip:1'] },
  { title: 'unix socket, lz4', conninfo: unix, flags: ['-Z', 'lz4'] },
].filter((c) => c.title.includes(process.env.WALKEEP_BENCH_CASE ?? ''));
const verifyOff: Contender = {
  name: 'walkeep --verify=off',
  command: [...walkeep.command, '--verify=off'],
};
const all: Record<string, Record<string, Usage[]>> = {};
for (const { title, conninfo, flags } of cases) {
  const contenders = [walkeep, verifyOff, theirs, nothing].filter((c) => c !== undefined);
  const results: Record<string, Usage[]> = {};
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const c of contenders) {
      const usages = results[c.name] ?? [];
      results[c.name] = usages;
      usages.push(await run(c, conninfo, flags));
    }
  }
  all[title] = results;
  const base = results.pg_receivewal?.map((u) => megabytes / u.seconds);
  const rows = Object.entries(results).map(([who, usages]) => {
    const speeds = usages.map((u) => megabytes / u.seconds);
    return [
      who,
      median(speeds).toFixed(0),
      base && who !== 'pg_receivewal' ? ratioText(speeds, base) : '1.00',
      (median(usages.map((u) => u.cpu)) / (megabytes / 1000)).toFixed(2),
      Math.max(...usages.map((u) => u.rssMb)).toFixed(0),
    ];
  });
  print(
    `Catch-up, ${megabytes.toFixed(0)} MB, ${title}, ${ROUNDS} rounds`,
    ['receiver', 'MB/s', 'ratio [95 %]', 'CPU s/GB', 'peak RSS MB'],
    rows,
  );
}
if (!theirs) process.stdout.write('pg_receivewal is not installed: no ratios.\n');
saveResult('catch-up', { megabytes, cases: all });
await server.destroy();
process.exit(0);
