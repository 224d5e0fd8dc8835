import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { binDir } from './binaries.js';
import type { disposer } from './cleanup.js';
import { MAJORS, type Major, PostgresServer } from './postgres.js';
import { archiveDirectory, receive } from './receiving.js';
import { RecordedRows } from './recorded-rows.js';
import { giveToServer, serverUser } from './scratch.js';

/** The system's program, which knows manifests up to its own version. */
export const VERIFY = '/usr/lib/postgresql/15/bin/pg_verifybackup';
export const MAJOR: Major = MAJORS.includes(15) ? 15 : (MAJORS[0] as Major);

/** A server with a tablespace, and an archive that receives its WAL. @param rows of its table */
export async function spacedServer(
  keep: ReturnType<typeof disposer>,
  { rows: count }: { rows: number },
) {
  const server = keep(
    await PostgresServer.create({ major: MAJOR, initdbArgs: ['--data-checksums'] }),
  );
  const space = join(server.dir, 'space');
  mkdirSync(space);
  giveToServer(space);
  await server.sql(`CREATE TABLESPACE space LOCATION '${space}'`);
  const rows = new RecordedRows([undefined, 'space']);
  await rows.prepare(server);
  await server.sql(`CREATE TABLE bulk TABLESPACE space AS
    SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, ${count}) i`);
  await rows.commits(server, { most: 3 });
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  return { server, rows, space, archive, receiver };
}

/** PostgreSQL itself refuses the directory. */
export function expectNoServer(dataDir: string): void {
  const { status, stderr } = spawnSync(join(binDir(MAJOR), 'postgres'), ['-D', dataDir], {
    ...serverUser,
    cwd: '/',
    env: {},
    encoding: 'utf8',
    timeout: 30_000,
  });
  expect(status, stderr).toBeGreaterThan(0);
}
