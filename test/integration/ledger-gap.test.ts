import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readLedger } from '../../src/archive/ledger.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, PROGRAMS, receive, waitEqual, writeWal } from '../support/receiving.js';
import { findTool } from '../support/tools.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const MAJOR_PAIR = ([15, 18] as const).filter((major) => MAJORS.includes(major));
const newest = MAJORS.at(-1)!;

/** Removes what other tools would: all but dotfiles. */
function empty(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (!name.startsWith('.')) rmSync(join(directory, name));
  }
}

async function createSlot(server: PostgresServer): Promise<void> {
  await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
}

/** Receives until caught up, stops. */
async function receiveOnce(
  directory: string,
  server: PostgresServer,
  args: string[] = [],
  program: (typeof PROGRAMS)[number] = 'walkeep',
  holes = 0,
) {
  const run = keep(receive(directory, server.conninfo(), args, { program }));
  // Over a gap it may start twice: where it ended, and where the server is.
  await run.waitForOutput(
    holes > 0 ? /gap: WAL from[\s\S]*starting log streaming/ : /starting log streaming/,
  );
  await writeWal(server, 1_200_000);
  // A hole shows between complete segments only.
  if (holes > 0) await server.switchWal();
  await waitEqual(directory, server, { holes });
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  return run;
}

/** Writes WAL until the slot has lost its own, and it is gone from pg_wal too. */
async function invalidateSlot(server: PostgresServer): Promise<void> {
  await server.configure({
    max_slot_wal_keep_size: '1MB',
    wal_keep_size: '0',
    max_wal_size: '2MB',
  });
  await waitFor(async () => {
    for (let i = 0; i < 3; i++) await server.switchWal();
    await server.sql('CHECKPOINT');
    const [slot] = await server.sql(
      "SELECT restart_lsn, wal_status FROM pg_replication_slots WHERE slot_name = 's'",
    );
    return slot?.wal_status === 'lost' && slot?.restart_lsn === null;
  });
}

/** The slot's successor under the same name, as an operator makes it. */
async function recreateSlot(server: PostgresServer): Promise<void> {
  await server.sql("SELECT pg_drop_replication_slot('s')");
  await server.sql("SELECT pg_create_physical_replication_slot('s')");
}

describe.each(MAJOR_PAIR)('a lost slot and an emptied directory, PostgreSQL %i', (major: Major) => {
  async function lost(program: (typeof PROGRAMS)[number]) {
    const server = keep(await PostgresServer.create({ major, archive: true }));
    await createSlot(server);
    const directory = archiveDirectory();
    await receiveOnce(directory, server, ['-S', 's', '--synchronous'], program);
    const end = (await readLedger(directory))?.end;
    empty(directory);
    await invalidateSlot(server);
    return { server, directory, end };
  }

  test('walkeep refuses, names the gap, and records it once accepted', async () => {
    const { server, directory, end } = await lost('walkeep');
    const refused = keep(receive(directory, server.conninfo(), ['-S', 's']));
    expect((await refused.exit).code).toBe(1);
    expect(refused.stderr).toMatch(/error: gap: WAL from 0\/\w+ to 0\/\w+ \(timeline 1\) would be/);
    expect(refused.stderr).toMatch(/detail: .*restart_lsn is null/);
    expect(refused.stderr).toMatch(/hint: .*--accept-gap/);
    expect(readdirSync(directory).filter((name) => !name.startsWith('.'))).toEqual([]);

    await recreateSlot(server);
    const accepted = await receiveOnce(directory, server, ['-S', 's', '--accept-gap']);
    expect(accepted.stderr).toMatch(/warning: gap: WAL from/);
    const ledger = await readLedger(directory);
    expect(ledger?.gaps).toEqual([
      expect.objectContaining({ from: end, timeline: 1, why: 'accepted' }),
    ]);
    expect(ledger?.gaps[0]?.to).toBeGreaterThan(end as bigint);
    // Said once: what follows is continuous.
    const next = await receiveOnce(directory, server, ['-S', 's']);
    expect(next.stderr).not.toMatch(/gap/);
  });

  test('pg_receivewal warns and goes on', async () => {
    const { server, directory, end } = await lost('pg_receivewal');
    await recreateSlot(server);
    const run = await receiveOnce(directory, server, ['-S', 's'], 'pg_receivewal');
    expect(run.stderr).toMatch(
      /warning: gap: WAL from .* would be missing in the archive; going on/,
    );
    expect((await readLedger(directory))?.gaps).toEqual([expect.objectContaining({ from: end })]);
  });
});

describe.each(MAJORS.filter((major) => [14, 18].includes(major)))(
  'PostgreSQL %i',
  (major: Major) => {
    test('an emptied directory with all WAL still there goes on without a gap', async () => {
      const server = keep(await PostgresServer.create({ major, archive: true }));
      await createSlot(server);
      const directory = archiveDirectory();
      for (const args of [['-S', 's', '--synchronous'], []]) {
        await receiveOnce(directory, server, args);
        const end = (await readLedger(directory))?.end as bigint;
        empty(directory);
        await writeWal(server, 2_500_000);
        await receiveOnce(directory, server, args);
        const first = readdirSync(directory).filter((name) => /^[0-9A-F]{24}/.test(name))[0];
        expect(BigInt(`0x${first?.slice(8, 16)}${first?.slice(18)}00000`)).toBeLessThanOrEqual(end);
        expect((await readLedger(directory))?.gaps).toEqual([]);
      }
    });
  },
);

test.each(PROGRAMS)(
  '%s: WAL that the server removed is an alarm, --accept-gap goes on',
  async (p) => {
    const server = keep(await PostgresServer.create({ major: newest, archive: true }));
    const directory = archiveDirectory();
    await receiveOnce(directory, server, [], p);
    await server.configure({ wal_keep_size: '0', max_wal_size: '2MB' });
    const end = (await readLedger(directory))?.end as bigint;
    await waitFor(async () => {
      for (let i = 0; i < 3; i++) await server.switchWal();
      await server.sql('CHECKPOINT');
      const names = readdirSync(join(server.dataDir, 'pg_wal')).filter((n) => n.length === 24);
      return BigInt(`0x${names.sort()[0]?.slice(16)}`) > end / 0x100000n + 1n;
    });
    const alarm = keep(receive(directory, server.conninfo(), [], { program: p }));
    expect((await alarm.exit).code).toBe(1);
    expect(alarm.stderr).toMatch(/error: .*requested WAL segment \w+ has already been removed/);
    if (p !== 'walkeep') return;
    // Or it is gone again before the receiver asks for it.
    await server.configure({ wal_keep_size: '64MB' });
    const run = await receiveOnce(directory, server, ['--accept-gap'], p, 1);
    expect(run.stderr).toMatch(/warning: gap: WAL from/);
    expect((await readLedger(directory))?.gaps).toEqual([expect.objectContaining({ from: end })]);
  },
);

test.each([true, false])(
  'all segments but an old one were moved away, the server has only what follows; slot: %s',
  async (slot) => {
    const server = keep(await PostgresServer.create({ major: newest, archive: true }));
    if (slot) await createSlot(server);
    const args = slot ? ['-S', 's', '--synchronous'] : [];
    const directory = archiveDirectory();
    await receiveOnce(directory, server, args);
    await receiveOnce(directory, server, args);
    const files = readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));
    const [oldest] = files.sort();
    expect(files.length).toBeGreaterThan(1);
    for (const name of readdirSync(directory)) {
      if (!name.startsWith('.') && name !== oldest) rmSync(join(directory, name));
    }
    // What lies right behind the old file is gone from the server, the ledger's end is not.
    const end = (await readLedger(directory))?.completeLsn as bigint;
    const log = join(server.dataDir, 'pg_wal');
    for (const name of readdirSync(log)) {
      if (/^[0-9A-F]{24}$/.test(name) && BigInt(`0x${name.slice(16)}`) < end / 0x100000n) {
        rmSync(join(log, name));
      }
    }
    const run = keep(receive(directory, server.conninfo(), args));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 1_200_000);
    await waitEqual(directory, server, { holes: 1 });
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    expect(run.stderr).toMatch(
      /warning: WAL from \S+ to \S+ was archived and is not in the directory/,
    );
    expect(run.stderr).not.toMatch(/gap:/);
    expect((await readLedger(directory))?.gaps).toEqual([]);
  },
);

test.each(PROGRAMS)(
  '%s: an empty partial is an explicit restart, the gap is recorded',
  async (p) => {
    const server = keep(await PostgresServer.create({ major: newest, archive: true }));
    const directory = archiveDirectory();
    await receiveOnce(directory, server, [], p);
    empty(directory);
    await writeWal(server, 3_000_000);
    // What `barman receive-wal --reset` leaves.
    writeFileSync(join(directory, `${await server.currentSegment()}.partial`), '');
    const run = await receiveOnce(directory, server, [], p);
    expect(run.stderr).toMatch(/warning: gap: WAL from/);
    expect((await readLedger(directory))?.gaps).toEqual([
      expect.objectContaining({ why: 'restarted at an empty partial' }),
    ]);
  },
);

const upstream = findTool('pg_receivewal', 15);
test.skipIf(!upstream || !MAJORS.includes(15)).each(PROGRAMS)(
  '%s adopts a directory of pg_receivewal 15 (Debian)',
  async (program) => {
    const server = keep(await PostgresServer.create({ major: 15, archive: true }));
    const directory = archiveDirectory();
    await writeWal(server, 400_000);
    const lsn = (await server.sql('SELECT pg_current_wal_flush_lsn() AS l'))[0]?.l;
    const args = ['-D', directory, '-d', server.conninfo(), '-E', lsn, '-n', '-w'];
    await writeWal(server, 1000);
    execFileSync(upstream as string, args, { stdio: 'pipe', timeout: 20_000 });
    expect(readdirSync(directory)).toEqual([expect.stringMatching(/\.partial$/)]);
    await writeWal(server, 1_500_000);
    const run = await receiveOnce(directory, server, [], program);
    expect(run.stderr).not.toMatch(/warning|error/);
    expect((await readLedger(directory))?.lineage).toEqual([
      expect.objectContaining({ timeline: 1, why: 'adopted' }),
    ]);
  },
);
