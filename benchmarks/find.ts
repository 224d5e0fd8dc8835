/**
 * Drops found in stored WAL: `walkeep find --drops` beside `walkeep verify` on the same archive, of many
 * small transactions and of few large ones. Rounds are interleaved; the files are in the page cache.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage } from '../test/support/package-copy.js';
import { PostgresServer } from '../test/support/postgres.js';
import { print, saveResult } from './report.js';
import { median, pairedRatio } from './statistics.js';
import { type Timed, timed } from './timed-command.js';
import { insertRows } from './wal-source.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 1024);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 7);

/** Commits of one row each until the WAL has reached `end`. */
async function commitRows(server: PostgresServer, end: bigint): Promise<void> {
  await server.sql('CREATE TABLE t (i bigint PRIMARY KEY, v text)');
  await server.sql(
    `CREATE PROCEDURE fill(a int, n int) LANGUAGE plpgsql AS $$ BEGIN
       FOR i IN a .. a + n - 1 LOOP INSERT INTO t VALUES (i, md5(i::text)); COMMIT; END LOOP;
     END $$`,
  );
  for (let rows = 0; (await server.currentLsn()) <= end; rows += 100_000) {
    await server.sql(`CALL fill(${rows}, 100000)`);
  }
}

const program = [process.execPath, join(copyPackage(), 'bin', 'walkeep')];
const results: Record<string, Record<string, Timed[]>> = {};
for (const [kind, fill] of Object.entries({ commits: commitRows, bulk: insertRows })) {
  const server = await PostgresServer.create({
    major: 15,
    segmentSizeMb: 16,
    archive: true,
    settings: { max_wal_size: '8GB', shared_buffers: '512MB', synchronous_commit: 'off' },
  });
  await server.switchWal();
  await fill(server, (await server.currentLsn()) + BigInt(MEGABYTES) * 1024n * 1024n);
  await server.sql('CREATE TABLE gone (i int)');
  await server.sql('DROP TABLE gone');
  await server.waitArchived(await server.switchWal(), 600_000);
  const archive = server.archiveDir;
  const megabytes = (readdirSync(archive).length * server.segmentSize) / 1e6;
  const commands: Record<string, string[]> = {
    verify: [...program, 'verify', archive],
    'find --drops': [...program, 'find', '--drops', archive],
  };
  const taken: Record<string, Timed[]> = { verify: [], 'find --drops': [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    const order = Object.entries(commands);
    if (round % 2 === 1) order.reverse();
    for (const [name, command] of order) taken[name]?.push(timed(command, '/'));
  }
  results[kind] = taken;
  const speeds = (name: string) => (taken[name] ?? []).map(({ ms }) => (megabytes / ms) * 1000);
  const { ratio, low, high } = pairedRatio(speeds('find --drops'), speeds('verify'));
  print(
    `Drops in ${megabytes.toFixed(0)} MB of ${kind}, ${ROUNDS} rounds`,
    ['command', 'MB/s', 'ratio [95 %]', 'CPU s/GB'],
    Object.keys(commands).map((name) => [
      name,
      median(speeds(name)).toFixed(0),
      name === 'verify' ? '' : `${ratio.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`,
      (median((taken[name] ?? []).map((t) => t.cpuMs)) / megabytes).toFixed(2),
    ]),
  );
  await server.destroy();
}
saveResult('find', { results });
process.exit(0);
