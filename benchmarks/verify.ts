/**
 * Stored WAL read and checked: `walkeep verify` with one worker and with one for each core, beside
 * pg_waldump -q, which decodes the same records and checks their CRCs too. Rounds are interleaved;
 * the files are in the page cache.
 */
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { copyPackage } from '../test/support/package-copy.js';
import { PostgresServer } from '../test/support/postgres.js';
import { findTool } from '../test/support/tools.js';
import { printSpeeds, saveResult } from './report.js';
import { timedInTurn } from './timed-command.js';
import { insertRows } from './wal-source.js';

const MEGABYTES = Number(process.env.WALKEEP_BENCH_MB ?? 2048);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 7);

const server = await PostgresServer.create({
  major: 15,
  segmentSizeMb: 16,
  archive: true,
  settings: { max_wal_size: '8GB', shared_buffers: '512MB' },
});
await server.switchWal();
await insertRows(server, (await server.currentLsn()) + BigInt(MEGABYTES) * 1024n * 1024n);
await server.waitArchived(await server.switchWal(), 600_000);
const { archiveDir, segmentSize } = server;
const names = readdirSync(archiveDir).sort();
const megabytes = (names.length * segmentSize) / 1e6;

const program = [process.execPath, join(copyPackage(), 'bin', 'walkeep'), 'verify', archiveDir];
const cores = availableParallelism();
const commands: Record<string, string[]> = {
  'walkeep, 1 worker': [...program, '--jobs=1'],
  [`walkeep, ${cores} workers`]: [...program, `--jobs=${cores}`],
};
const waldump = findTool('pg_waldump', 15);
const THEIRS = 'pg_waldump -q';
if (waldump) {
  const [first, last] = [names[0] as string, names.at(-1) as string];
  commands[THEIRS] = [waldump, '-q', '-p', archiveDir, first, last];
}

const results = timedInTurn(commands, ROUNDS);
printSpeeds(
  `Verifying ${megabytes.toFixed(0)} MB in ${names.length} segments, ${ROUNDS} rounds`,
  megabytes,
  results,
  { 'ratio [95 %]': (name) => (name === THEIRS ? undefined : THEIRS) },
);
if (!waldump) process.stdout.write('pg_waldump is not installed: no ratios.\n');
saveResult('verify', { megabytes, results });
await server.destroy();
process.exit(0);
