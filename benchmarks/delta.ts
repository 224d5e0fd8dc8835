/**
 * A delta onto the directory of a crashed server beside a restore into an empty one, of the same
 * archive: how long each takes, and what of the archive is read. Rounds are interleaved.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage } from '../test/support/package-copy.js';
import { PostgresServer } from '../test/support/postgres.js';
import { serverUser } from '../test/support/scratch.js';
import { fillTable } from './filled-table.js';
import { print, ratioText, saveResult, serverScratch } from './report.js';
import { median } from './statistics.js';
import { backupsIn } from './stored-backups.js';
import { type Timed, timed } from './timed-command.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 2048);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
const METHOD = process.env.WALKEEP_BENCH_CODEC ?? 'gzip:1';

const server = await PostgresServer.create({
  major: 15,
  segmentSizeMb: 16,
  settings: { max_wal_size: '8GB', shared_buffers: '512MB', wal_level: 'replica' },
});
const rows = await fillTable(server, MEGABYTES);
const root = serverScratch('delta');
const program = join(copyPackage(), 'bin', 'walkeep');
const archive = join(root, 'archive');
const own = [process.execPath, program];
timed([...own, 'store', '--init', archive], '/');
// It brings its WAL along: no archive is needed to restore it to its end.
timed([...own, 'backup', archive, '-d', server.conninfo(), '-Z', METHOD, '--wal', 'include'], '/');
// One page in a hundred, one after the other, as what belongs together is mostly changed together.
await server.sql(
  `DELETE FROM t WHERE i BETWEEN ${Math.floor(rows / 3)} AND ${Math.floor(rows / 3 + rows / 100)}`,
);
await server.sql('CHECKPOINT');
await server.kill9();

const crashed = server.dataDir;
const [fresh, delta] = [join(root, 'fresh'), join(root, 'delta')];
const copy = (): void => {
  rmSync(delta, { recursive: true, force: true });
  execFileSync('cp', ['-a', crashed, delta]);
  rmSync(join(delta, 'postmaster.pid'), { force: true });
  execFileSync('sync');
};
const restore = [...own, 'restore', '--to', 'immediate', '--restore-command', 'false'];
const results: { fresh: Timed[]; delta: Timed[] } = { fresh: [], delta: [] };
copy();
const planned = execFileSync(
  process.execPath,
  [program, ...restore.slice(2), '--delta', '-n', '--json', archive, delta],
  { ...serverUser, cwd: '/', encoding: 'utf8', maxBuffer: 2 ** 26 },
);
const plan = JSON.parse(planned) as {
  delta: { compared: { read: number } };
};
for (let round = 0; round < ROUNDS; round += 1) {
  for (const kind of round % 2 === 0
    ? (['fresh', 'delta'] as const)
    : (['delta', 'fresh'] as const)) {
    rmSync(fresh, { recursive: true, force: true });
    copy();
    const command =
      kind === 'fresh' ? [...restore, archive, fresh] : [...restore, '--delta', archive, delta];
    results[kind].push(timed(command, '/'));
  }
}
const objects = backupsIn(archive)[0] as string;
const stored = readdirSync(objects, { recursive: true, encoding: 'utf8' })
  .map((name) => statSync(join(objects, name)).size)
  .reduce((sum, size) => sum + size, 0);
const { read } = plan.delta.compared;
const ms = (kind: 'fresh' | 'delta') => results[kind].map((one) => one.ms);
print(
  `A delta onto ${MEGABYTES} MB of which 1 % of the pages changed, ${ROUNDS} rounds`,
  ['restore', 's', 'ratio [95 %]', 'CPU s', 'read MB', 'of all'],
  (['fresh', 'delta'] as const).map((kind) => [
    kind,
    (median(ms(kind)) / 1000).toFixed(1),
    kind === 'delta' ? ratioText(ms('delta'), ms('fresh')) : '',
    (median(results[kind].map(({ cpuMs }) => cpuMs)) / 1000).toFixed(1),
    ((kind === 'fresh' ? stored : read) / 1e6).toFixed(1),
    kind === 'fresh' ? '' : `${((100 * read) / stored).toFixed(1)} %`,
  ]),
);
saveResult('delta', {
  megabytes: MEGABYTES,
  stored,
  read,
  results,
  files: readdirSync(crashed).length,
  size: statSync(archive).size,
});
await server.destroy();
