import { copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { verifyArchive } from '../../src/verify/verify.js';
import { parseSegmentFileName, type SegmentName, segmentStart } from '../../src/wal/file-name.js';
import { randomNumbers } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { cutOff, pair } from '../support/failover.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { workload } from '../support/workload.js';
import { unusedIn } from '../wal/fixtures.js';

const keep = disposer();
const SEGMENT = 1024 * 1024;
/** 10,000 for a thorough run. */
const FLIPS = Number(process.env.WALKEEP_FLIPS ?? 300);

/** What the executable says of an archive, with a thread for each job. */
async function verify(directory: string, ...args: string[]) {
  const run = runCli(['verify', '--json', '--jobs=2', ...args, directory]);
  const { code } = await run.exit;
  const objects = run.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const findings = objects.slice(0, -1).map((f) => `${f.severity} ${f.code} ${f.file}`);
  return { code, findings, summary: objects.at(-1), stderr: run.stderr };
}

test.each(MAJORS)('the archive of a crash-recovered PostgreSQL %i is clean', async (major) => {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  await workload(server, { transactions: 10, prepareEvery: 3, messageBytes: 900_000 });
  await server.kill9();
  await server.start();
  await workload(server, { transactions: 4, switchEvery: 2 });
  await server.waitArchived(await server.switchWal());
  const { code, findings, summary } = await verify(server.archiveDir);
  expect(findings).toEqual([]);
  expect(summary).toMatchObject({ timelines: 1, errors: 0, warnings: 0 });
  expect(summary.bytes).toBe(summary.segments * SEGMENT);
  expect(summary.segments).toBeGreaterThan(10);
  expect(code).toBe(0);
});

test('a directory being received into is clean, over a promotion too', async () => {
  const [primary, standby] = await pair(17);
  keep(primary);
  keep(standby);
  const directory = archiveDirectory();
  const receiver = keep(receive(directory, primary.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  let running = true;
  const writing = (async () => {
    while (running) await workload(primary, { transactions: 2, messageBytes: 300_000 });
  })();
  try {
    for (let i = 0; i < 5; i++) {
      const { findings, stderr } = await verify(directory);
      expect(stderr).toBe('');
      expect(findings.filter((f) => f.startsWith('error'))).toEqual([]);
    }
  } finally {
    running = false;
    await writing;
  }
  await cutOff(primary, standby);
  await waitEqual(directory, primary);
  await receiver.stop();
  await primary.kill9();
  await standby.promote();
  const second = keep(receive(directory, standby.conninfo()));
  await writeWal(standby, 2_500_000);
  await waitEqual(directory, standby, { timeline: 2, others: [primary] });
  await second.stop();
  const { findings, summary } = await verify(directory);
  expect(findings.filter((f) => !f.startsWith('info'))).toEqual([]);
  expect(summary.timelines).toBe(2);
  const list = runCli(['list', directory]);
  expect(await list.exit).toEqual({ code: 0, signal: null });
  expect(list.stdout).toMatch(/^└ timeline 2, branched off 1 at /m);
});

test(`each of ${FLIPS} bits flipped in real WAL is found`, {
  timeout: 60_000 + FLIPS * 100,
}, async () => {
  const server = keep(await PostgresServer.create({ major: 16, archive: true, fresh: true }));
  const first = await server.switchWal();
  await workload(server, { transactions: 30, rows: 400 });
  await server.waitArchived(await server.switchWal());
  const names = readdirSync(server.archiveDir)
    .filter((name) => name > first)
    .sort()
    .slice(0, 3);
  expect(names).toHaveLength(3);
  const directory = scratchDir('flips');
  for (const name of names) copyFileSync(join(server.archiveDir, name), join(directory, name));
  const path = join(directory, names[1]!);
  const good = readFileSync(path);
  const { segment } = parseSegmentFileName(names[1]!, SEGMENT) as SegmentName;
  const isUnused = unusedIn(good, {
    startLsn: segmentStart(segment, SEGMENT),
    segmentSize: SEGMENT,
  });
  const random = randomNumbers(7);
  const missed: string[] = [];
  for (let i = 0; i < FLIPS; i++) {
    const at = Math.floor(random() * SEGMENT);
    const bit = 1 << Math.floor(random() * 8);
    // XLP_BKP_REMOVABLE means nothing to a check, nor what only aligns records.
    if ((at % 8192 === 2 && bit === 4) || isUnused(at)) continue;
    const bad = Buffer.from(good);
    bad[at] = bad[at]! ^ bit;
    writeFileSync(path, bad);
    const jobBytes = i % 2 === 0 ? undefined : 1;
    const { summary } = await verifyArchive(directory, { jobs: 1, jobBytes });
    if (summary.errors === 0) missed.push(`${at} ^ ${bit}`);
  }
  expect(missed).toEqual([]);
});

test('damage, as the executable tells it', async () => {
  const server = keep(await PostgresServer.create({ major: 15, archive: true }));
  await workload(server, { transactions: 5, messageBytes: 900_000 });
  await server.waitArchived(await server.switchWal());
  const names = readdirSync(server.archiveDir).sort();
  const second = join(server.archiveDir, names[1]!);
  const bytes = readFileSync(second);
  bytes[500_000] = bytes[500_000]! ^ 1;
  writeFileSync(second, bytes);
  rmSync(join(server.archiveDir, names[3]!));
  const { code, findings } = await verify(server.archiveDir);
  expect(code).toBe(1);
  expect(findings).toHaveLength(2);
  expect(findings[0]).toMatch(new RegExp(`^error record-\\w+ ${names[1]}$`));
  expect(findings[1]).toBe(`error gap ${names[3]}`);
});
