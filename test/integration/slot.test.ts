import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { writeWal } from '../support/receiving.js';

const keep = disposer();

/** Runs `walkeep slot …` to its end. */
async function slot(server: PostgresServer, ...args: string[]) {
  const cli = keep(runCli(['slot', ...args, '-d', server.conninfo(), '-w']));
  const { code } = await cli.exit;
  return { code, stdout: cli.stdout, stderr: cli.stderr };
}

test.each(MAJORS)('slots of a server of major %i', async (major) => {
  const server = keep(await PostgresServer.create({ major }));
  const done = { code: 0, stdout: '', stderr: '' };
  expect(await slot(server, 'create', 'kept')).toEqual(done);
  expect(await slot(server, 'create', '--no-reserve', 'idle')).toEqual(done);
  expect(await slot(server, 'create', 'kept', '--if-not-exists')).toEqual(done);
  await server.sql(`SELECT pg_create_physical_replication_slot('other', true)`);
  await writeWal(server, 1_200_000);
  const again = await slot(server, 'create', 'kept');
  expect(again.code).toBe(1);
  expect(again.stderr).toMatch(/error: .*replication slot "kept" already exists/);
  const unreserved = await slot(server, 'create', 'idle', '--if-not-exists');
  expect(unreserved.code).toBe(0);
  if (major >= 15) expect(unreserved.stderr).toMatch(/slot "idle" exists, but keeps no WAL/);

  const json = await slot(server, 'list', '--json');
  const slots = json.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(slots.map((s) => s.name)).toEqual(['idle', 'kept', 'other']);
  expect(slots[0]).toMatchObject({ restartLsn: null, retainedBytes: null, walStatus: null });
  expect(slots[1]).toMatchObject({
    type: 'physical',
    active: false,
    temporary: false,
    walStatus: 'reserved',
    safeWalSize: null,
    invalidation: null,
  });
  expect(slots[1].restartLsn).toMatch(/^0\/[0-9A-F]+$/);
  expect(slots[1].retainedBytes).toBeGreaterThan(1_200_000);
  const table = await slot(server, 'list');
  expect(table.stdout.split('\n')[0]).toMatch(/^NAME +TYPE +ACTIVE +RESTART_LSN +RETAINED/);
  expect(table.stdout).toMatch(/\nkept +physical +no +0\/[0-9A-F]+ +\d\.\d MB +reserved +- +-\n/);

  expect(await slot(server, 'drop', 'kept')).toEqual(done);
  const gone = await slot(server, 'drop', 'kept');
  expect(gone.code).toBe(1);
  expect(gone.stderr).toMatch(/replication slot "kept" does not exist/);
  expect((await server.sql('SELECT 1 FROM pg_replication_slots')).length).toBe(2);
});

test('a slot whose WAL was removed says so', async () => {
  const settings = { max_slot_wal_keep_size: '1MB', wal_keep_size: '0', max_wal_size: '2MB' };
  const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, settings }));
  await slot(server, 'create', 's');
  for (let i = 0; i < 4; i++) await server.switchWal();
  await server.sql('CHECKPOINT');
  const { stdout } = await slot(server, 'list', '--json');
  expect(JSON.parse(stdout)).toMatchObject({ walStatus: 'lost', invalidation: 'wal_removed' });
});

test('list as a user that may only replicate', async () => {
  const server = keep(
    await PostgresServer.create({
      major: MAJORS.at(-1)!,
      hba: ['host replication repl 127.0.0.1/32 trust'],
    }),
  );
  await server.sql('CREATE ROLE repl LOGIN REPLICATION');
  expect((await slot(server, 'create', 's', '-U', 'repl')).code).toBe(0);
  const { code, stderr } = await slot(server, 'list', '-U', 'repl');
  expect(code).toBe(1);
  expect(stderr).toMatch(/no pg_hba.conf entry for host .* database "postgres"/);
});

test.each([
  [[], 'no action specified: create, drop or list'],
  [['make', 's'], 'unrecognized action "make": it is create, drop or list'],
  [['create'], 'slot create needs the name of a slot'],
  [['drop', 's', 't'], 'too many command-line arguments (first is "t")'],
  [['list', 's'], 'too many command-line arguments (first is "s")'],
  [['drop', 's', '--if-not-exists'], '--if-not-exists is an option of slot create'],
  [['create', 's', '--json'], '--json is an option of slot list'],
])('misuse %j', async (args, message) => {
  const cli = keep(runCli(['slot', ...args]));
  expect((await cli.exit).code).toBe(1);
  expect(cli.stderr).toBe(
    `walkeep: error: ${message}\nwalkeep: hint: Try "walkeep slot --help" for more information.\n`,
  );
});
