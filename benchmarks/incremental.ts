/**
 * A full backup and incremental ones of the same server, after one page of a hundred was changed:
 * what they take of time and of bytes. Rounds are interleaved.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseBackupRecord } from '../src/base/backup-record.js';
import { copyPackage } from '../test/support/package-copy.js';
import { type Major, PostgresServer } from '../test/support/postgres.js';
import { fillTable } from './filled-table.js';
import { print, saveResult, serverScratch } from './report.js';
import { median } from './statistics.js';
import { backupsIn } from './stored-backups.js';
import { type Timed, timed } from './timed-command.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 500);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
const MAJORS: readonly Major[] = [17, 18];

interface Taken extends Timed {
  /** Bytes of tar, and of all that is stored. */
  size: number;
  stored: number;
}

const program = join(copyPackage(), 'bin', 'walkeep');
const results: Record<string, Taken[]> = {};
const rows: string[][] = [];
for (const major of MAJORS) {
  const server = await PostgresServer.create({
    major,
    settings: {
      ...{ max_wal_size: '8GB', shared_buffers: '512MB', wal_level: 'replica' },
      ...{ summarize_wal: 'on', autovacuum: 'off' },
    },
  });
  // Room for one more row on each page, which then stays on it.
  await fillTable(server, MEGABYTES, 95);
  const archive = join(serverScratch('incremental'), 'archive');
  timed([process.execPath, program, 'store', '--init', archive], '/');
  const known = new Set<string>();
  const take = (name: string, options: string[]): void => {
    const own = [process.execPath, program, 'backup', archive, '-d', server.conninfo()];
    // The archive lacks the WAL: what the server puts into the backup is one segment.
    const took = timed([...own, '--wal', 'include', ...options], '/');
    const path = backupsIn(archive).find((one) => !known.has(one)) as string;
    known.add(path);
    const record = parseBackupRecord(readFileSync(join(path, 'backup.json')));
    // WAL that is included is as much in both.
    const stored = record.objects.reduce((sum, object) => sum + object.size, 0);
    const taken = results[`${major} ${name}`] ?? [];
    results[`${major} ${name}`] = taken;
    taken.push({ ...took, size: record.size, stored });
  };
  for (let round = 0; round < ROUNDS; round++) {
    take('full', []);
    // One row of a page, of every hundredth page.
    await server.sql(`UPDATE t SET i = -i WHERE ctid = ANY (ARRAY(
      SELECT format('(%s,1)', p)::tid FROM generate_series(${round},
        pg_relation_size('t') / current_setting('block_size')::int - 1, 100) p))`);
    take('incremental', ['--incremental', '--no-fallback']);
  }
  for (const name of ['full', 'incremental']) {
    const own = results[`${major} ${name}`] ?? [];
    const full = results[`${major} full`] ?? [];
    const of = (what: 'ms' | 'size' | 'stored') => median(own.map((taken) => taken[what]));
    const share = (what: 'ms' | 'size' | 'stored') =>
      (of(what) / median(full.map((taken) => taken[what]))).toFixed(3);
    rows.push([
      `${major} ${name}`,
      ...[(of('ms') / 1000).toFixed(2), share('ms')],
      ...[(of('size') / 1e6).toFixed(1), share('size')],
      ...[(of('stored') / 1e6).toFixed(1), share('stored')],
    ]);
  }
  await server.destroy();
}
print(
  `Backups of ${MEGABYTES} MB, 1 % of the pages changed, ${ROUNDS} rounds`,
  ['backup', 's', 'share', 'MB of tar', 'share', 'MB stored', 'share'],
  rows,
);
saveResult('incremental', results);
