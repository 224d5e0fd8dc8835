import { readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ArchiveStatus } from '../../src/serve/status.js';
import { runCli } from '../support/cli.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, waitEqual, writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { Serving } from '../support/serving.js';
import { backupOf } from '../support/taken-backup.js';
import { waitFor } from '../support/wait.js';

/** What "walkeep list --json" prints, as the status has it. */
async function listed(directory: string) {
  const run = runCli(['list', '--json', directory]);
  const { code } = await run.exit;
  expect(code, run.stderr).toBe(0);
  const objects = run.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const timelines = objects.filter(({ type }) => type === 'timeline');
  const gaps = objects.filter(({ type }) => type === 'gap');
  return {
    // The end of what is written just now goes on.
    ranges: timelines.flatMap((t) => t.ranges.map((r: { from: string }) => [t.timeline, r.from])),
    gaps: gaps.map(({ timeline, from, to }) => ({ timeline, from, to, accepted: false })),
  };
}

const viewed = ({ timelines, gaps }: ArchiveStatus) => ({
  ranges: timelines.flatMap((t) => t.ranges.map((r) => [t.timeline, r.from])),
  gaps: gaps.map(({ timeline, from, to, accepted }) => ({ timeline, from, to, accepted })),
});

describe('what serve tells of an archive', () => {
  let server: PostgresServer;
  let serving: Serving;
  const directory = archiveDirectory();

  beforeAll(async () => {
    server = await PostgresServer.create({ major: 18 });
    await server.sql('CREATE TABLE t (id int, filler text)');
    const connection = `host=127.0.0.1 port=${server.port} user=postgres`;
    serving = await Serving.start({
      shop: { connection, directory, slot: 'walkeep', ensure_slot: true },
    });
    await serving.waitState('shop', 'streaming');
  });

  afterAll(async () => {
    await serving.run.stop('SIGKILL');
    await server.destroy();
  });

  const told = (wanted: (archive: ArchiveStatus) => unknown): Promise<ArchiveStatus> =>
    waitFor(
      async () => {
        const { archive } = await serving.status('shop');
        return archive && wanted(archive) ? archive : undefined;
      },
      { timeoutMs: 120_000 },
    );

  const complete = () => readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));

  async function segments(n: number): Promise<void> {
    const before = complete().length;
    while (complete().length < before + n) {
      const now = complete().length;
      await writeWal(server);
      await server.switchWal();
      await waitFor(() => complete().length > now);
    }
    await waitEqual(directory, server);
  }

  it('is the slot as the server has it', async () => {
    const { slot } = await told((archive) => archive.slot?.active);
    const [row] = await server.sql<{ wal_status: string; safe: string | null }>(
      `SELECT wal_status, safe_wal_size::text AS safe FROM pg_replication_slots WHERE slot_name = 'walkeep'`,
    );
    expect(slot).toMatchObject({
      ...{ name: 'walkeep', exists: true, active: true, walStatus: row?.wal_status },
      retainedBytes: expect.any(Number),
    });
    expect(slot?.safeBytes === undefined).toBe(row?.safe === null);
  });

  it('is a backup, and what it can be restored to', async () => {
    await segments(1);
    await told(({ backups }) => backups.length === 0);
    const { record } = await backupOf(server, directory, { wal: 'archive' });
    await segments(2);
    const { backups } = await told(
      (archive) => archive.backups[0]?.state === 'complete' && archive.windows.length === 1,
    );
    expect(backups).toMatchObject([
      { id: record.id, place: 'directory', type: 'full', endedAt: record.end.time, timeline: 1 },
    ]);
    const [row] = await server.sql<{ now: string }>(
      `SELECT to_char(clock_timestamp() AT TIME ZONE 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS now`,
    );
    await server.sql('INSERT INTO t VALUES (1)');
    await segments(1);
    // What was committed later can be had, too.
    const { windows } = await told(
      (archive) => (archive.windows[0]?.to ?? '') >= (row?.now ?? 'z'),
    );
    expect(windows[0]).toMatchObject({ from: record.end.time, backup: record.id, timeline: 1 });
  });

  it('is the same WAL and the same gaps as "list --json" has', async () => {
    const before = await told(({ gaps }) => gaps.length === 0);
    await segments(3);
    const name = complete().sort().at(-2) as string;
    const gone = join(scratchDir('gone'), name);
    renameSync(join(directory, name), gone);
    const archive = await told(({ gaps }) => gaps.length === 1);
    const gap = await waitFor(async () => {
      const { archive: now } = await serving.status('shop');
      expect(viewed(now as ArchiveStatus)).toEqual(await listed(directory));
      return now?.gaps[0];
    });
    expect(gap).toMatchObject({ accepted: false, segments: 1 });
    expect(archive.gaps[0]?.after).toMatch(/^20\d\d-/);
    // Nothing behind it can be restored to.
    const after = Date.parse(gap.after as string);
    await told(({ windows }) => windows.length === 1 && Date.parse(windows[0]!.to) <= after);
    expect(before.windows).toHaveLength(1);
    renameSync(gone, join(directory, name));
    await told(({ gaps, windows }) => gaps.length === 0 && Date.parse(windows[0]!.to) > after);
  });

  it('is that the server has no slot any more', async () => {
    await serving.ctl('pause', 'shop');
    await waitFor(() => server.sql(`SELECT pg_drop_replication_slot('walkeep')`));
    await told(({ slot }) => slot?.exists === false && !slot.error);
  });
});
