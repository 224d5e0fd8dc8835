import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { allCover, goOn, Members, memberCovers, OURS } from '../support/members.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, writeWal } from '../support/receiving.js';
import { freePort } from '../support/server-config.js';
import { TcpProxy } from '../support/tcp-proxy.js';

const keep = disposer();
/** docs/failover.md says that this is enough. */
const ROLE = 'CREATE ROLE replicator LOGIN REPLICATION';

test('slots that are lost are made anew; other clusters, rights and machines are told', async () => {
  const members = keep(await Members.create(MAJORS.at(-1)!));
  const directory = archiveDirectory();
  const run = keep(receive(directory, members.conninfo, ['-S', 'walkeep', '--synchronous', OURS]));
  const [b, c] = members.standbys as [PostgresServer, PostgresServer];
  await allCover(members, directory);
  expect(run.stderr).toMatch(
    new RegExp(`: member 127.0.0.1:${b.port} covers: yes \\(slot created\\)`),
  );
  await run.stop('SIGKILL');
  await b.configure({ max_slot_wal_keep_size: '1MB' });
  await goOn(members);
  const lost = await memberCovers(members, directory, OURS);
  expect(lost.code).toBe(2);
  expect(lost.covers.get(b.port)).toMatch(/^no: its replication slot "walkeep" is lost/);
  expect(lost.covers.get(c.port)).toMatch(/^yes: /);

  const other = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, fresh: true }));
  const nobody = await freePort();
  await members.primary.sql(ROLE);
  await members.followed();
  // May replicate, and connect to no database.
  writeFileSync(join(c.dataDir, 'pg_hba.conf'), HBA);
  await c.configure({});
  const hosts = [b.port, c.port, other.port, nobody];
  const option = `--members=host=${hosts.map(() => '127.0.0.1')} port=${hosts} user=replicator`;
  const start = () => keep(receive(directory, members.conninfo, ['-S', 'walkeep', OURS, option]));
  await other.sql(ROLE);
  const second = start();
  const says = (port: number, text: string) =>
    second.waitForOutput(new RegExp(`member 127.0.0.1:${port} covers: ${text}`));
  await says(b.port, 'yes \\(slot replaced\\)');
  await says(c.port, 'unknown: .*no pg_hba.conf entry');
  await says(other.port, 'no: it is of cluster \\d+, the archive of \\d+');
  await says(nobody, 'unknown: .*refused');
  expect(second.stderr).toMatch(/hint: The role needs REPLICATION, and in pg_hba.conf a line for/);
  expect(await other.sql('SELECT * FROM pg_replication_slots')).toEqual([]);
  const { code, covers } = await memberCovers(members, directory, OURS, option);
  expect(code).toBe(2);
  expect(covers.get(b.port)).toMatch(/^yes: /);
  expect(covers.get(c.port)).toMatch(/^unknown: /);
  expect(covers.get(other.port)).toMatch(/^no: it is of cluster/);
  expect(covers.get(nobody)).toMatch(/^unknown: /);
  // It is found out by itself that things are well.
  writeFileSync(
    join(c.dataDir, 'pg_hba.conf'),
    `${HBA}host postgres replicator 127.0.0.1/32 trust\n`,
  );
  await c.configure({});
  await says(c.port, 'yes: ');
  // No session of ours keeps a server from stopping.
  await members.primary.stop();
  await b.stop();
  expect(await second.stop()).toEqual({ code: 0, signal: null });
});

test('a primary that vanishes without a word is left when another one is promoted', async () => {
  const members = keep(await Members.create(MAJORS.at(-1)!));
  const proxy = keep(await TcpProxy.listen(members.primary.port));
  const [next] = members.standbys as [PostgresServer, PostgresServer];
  const directory = archiveDirectory();
  const conninfo = `host=127.0.0.1,127.0.0.1 port=${proxy.port},${next.port} user=postgres target_session_attrs=read-write`;
  // By itself it would bear the silence for twenty minutes.
  const options = ['-S', 'walkeep', '--synchronous', OURS, '--receive-timeout=600'];
  const run = keep(receive(directory, conninfo, options));
  await run.waitForOutput(new RegExp(`: member 127.0.0.1:${next.port} covers: yes`));
  await writeWal(members.primary, 100_000);
  await members.followed();
  proxy.stall();
  await next.promote();
  await run.waitForOutput(/nothing was received from the server for \d+ seconds/);
  await run.waitForOutput(/switched to timeline 2|streaming at \S+ \(timeline 2\)/);
  expect(await run.stop()).toEqual({ code: 0, signal: null });
});

const HBA = 'local all postgres trust\nhost replication all 127.0.0.1/32 trust\n';
