/**
 * Recovery of one base backup over many segments with different restore_commands, interleaved.
 * The same WAL each time; a recovery that does not end with every row of it fails the run.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage } from '../test/support/package-copy.js';
import { waitFor } from '../test/support/wait.js';
import { PgBackRest } from './pgbackrest.js';
import { print, ratioText, saveResult, serverScratch } from './report.js';
import { median } from './statistics.js';
import { createSource, originals, tableDigest, updateAtRandom } from './wal-source.js';

const SEGMENTS = Number(process.env.WALKEEP_BENCH_SEGMENTS ?? 64);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
const ROWS = Number(process.env.WALKEEP_BENCH_ROWS ?? 300_000);
/** Of the server that recovers. Below the table's size replay reads pages, and takes much longer. */
const BUFFERS = process.env.WALKEEP_BENCH_SHARED_BUFFERS ?? '256MB';
/** `off`: segments hold small records only, from the first to the last. */
const FULL_PAGES = process.env.WALKEEP_BENCH_FULL_PAGE_WRITES ?? 'off';
/** From this time per segment on the bar holds: ms, with cp. */
const BAR_FROM = 100;
const BAR = 1.3;

const origin = await createSource(ROWS, { full_page_writes: FULL_PAGES });
const backup = await origin.baseBackup();
const names = await updateAtRandom(origin, ROWS, SEGMENTS);
const expected = await tableDigest(origin);
// What the archive has must be WAL of the right size before anything is measured on it.
originals(origin, names);
const repository = PgBackRest.create(
  join(serverScratch('recovery'), 'repo'),
  origin.dataDir,
  'none',
);
await origin.stop();
// With those of the backup itself, and the one that ended with the server.
const stored = readdirSync(origin.archiveDir).filter((name) => /^[0-9A-F]{24}$/.test(name));
repository?.push(stored.map((name) => join(origin.archiveDir, name)));

const walkeep = `${process.execPath} ${join(copyPackage(), 'bin', 'walkeep')} fetch`;
const commands: Record<string, string> = {
  cp: `cp ${origin.archiveDir}/%f %p`,
  'walkeep fetch': `${walkeep} ${origin.archiveDir} %f %p`,
  'walkeep fetch --prefetch 4': `${walkeep} --prefetch=4 ${origin.archiveDir} %f %p`,
  ...(repository ? { 'pgBackRest archive-get': repository.restoreCommand } : {}),
};

interface Recovery {
  segments: number;
  /** From the start of archive recovery to the last record replayed. */
  seconds: number;
  /** User and system time of the process that replays, without its restore_commands. */
  replayCpu: number;
  /** From there until writes are taken: the checkpoint at the end. */
  openSeconds: number;
}

const MOMENTS = {
  began: /^(\S+ \S+) UTC .*starting archive recovery/m,
  replayed: /^(\S+ \S+) UTC .*redo done at/m,
  open: /^(\S+ \S+) UTC .*database system is ready to accept connections/m,
};

async function recover(restoreCommand: string): Promise<Recovery> {
  const server = await origin.recoverFrom({
    backup,
    restoreCommand,
    targetSettings: { recovery_target_action: 'promote' },
    settings: { shared_buffers: BUFFERS },
    // As a server that is needed has it.
    fsync: true,
    start: false,
  });
  // The copy of the backup must not be written back while recovery is measured.
  if (spawnSync('sync').status !== 0) throw new Error('sync failed');
  await server.start({ timeoutMs: 600_000 });
  const log = await waitFor(
    async () => {
      const text = await server.log();
      return (!server.running || MOMENTS.open.test(text)) && text;
    },
    { what: 'the end of recovery', timeoutMs: 1_800_000, intervalMs: 100 },
  );
  if (!server.running) throw new Error(`the server ended:\n${log}`);
  const actual = await tableDigest(server);
  if (actual !== expected) throw new Error(`recovered ${actual} instead of ${expected}:\n${log}`);
  const restored = log.match(/restored log file "[0-9A-F]{24}"/g)?.length ?? 0;
  if (restored < SEGMENTS) throw new Error(`only ${restored} segments were restored:\n${log}`);
  const [began, replayed, open] = Object.values(MOMENTS).map((moment) =>
    Date.parse(`${moment.exec(log)?.[1]?.replace(' ', 'T')}Z`),
  ) as [number, number, number];
  const spool = join(server.dataDir, 'pg_wal', '.walkeep-spool');
  // What reads ahead ends by itself, and must not be in the way of the next recovery.
  await waitFor(() => !existsSync(spool), { what: 'the reader to end' });
  await server.destroy();
  const cpu = /redo done at .* user: ([\d.]+) s, system: ([\d.]+) s/.exec(log);
  return {
    segments: restored,
    seconds: (replayed - began) / 1000,
    replayCpu: Number(cpu?.[1]) + Number(cpu?.[2]),
    openSeconds: (open - replayed) / 1000,
  };
}

const results = new Map<string, Recovery[]>(Object.keys(commands).map((name) => [name, []]));
const all = Object.entries(commands);
for (let round = 0; round < ROUNDS; round += 1) {
  for (let i = 0; i < all.length; i += 1) {
    const [name, command] = all[(i + round) % all.length] as [string, string];
    results.get(name)?.push(await recover(command));
  }
}

const base = (results.get('cp') as Recovery[]).map(({ seconds }) => seconds);
const perSegment = (one: Recovery) => (one.seconds * 1000) / one.segments;
const replay = (one: Recovery) => (one.replayCpu * 1000) / one.segments;
const rows = [...results].map(([name, runs]) => {
  const seconds = runs.map((run) => run.seconds);
  return [
    name,
    median(seconds).toFixed(1),
    median(runs.map(perSegment)).toFixed(0),
    name === 'cp' ? '1.00' : ratioText(seconds, base),
    median(runs.map(replay)).toFixed(0),
    median(runs.map(({ openSeconds }) => openSeconds)).toFixed(1),
  ];
});
print(
  `Recovery over ${results.get('cp')?.[0]?.segments} segments of 16 MB, ${ROUNDS} rounds`,
  [
    'restore_command',
    'seconds',
    'ms/segment',
    'ratio to cp [95 %]',
    'replay CPU ms',
    'then open s',
  ],
  rows,
);
const withCp = median((results.get('cp') as Recovery[]).map(perSegment));
process.stdout.write(
  withCp >= BAR_FROM
    ? `A segment takes ${withCp.toFixed(0)} ms with cp: the bar is a ratio of ${BAR}.\n`
    : `A segment takes ${withCp.toFixed(0)} ms with cp: below ${BAR_FROM} ms there is no bar.\n`,
);
if (!repository) process.stdout.write('pgBackRest is not installed: not compared with.\n');
saveResult('recovery', { expected, recoveries: Object.fromEntries(results) });
await origin.destroy();
process.exit(0);
