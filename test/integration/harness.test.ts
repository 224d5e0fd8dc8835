import { once } from 'node:events';
import { copyFileSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { cmpSegments } from '../support/compare.js';
import { MAJORS, PASSWORD, PostgresServer } from '../support/postgres.js';
import { isRunning } from '../support/processes.js';
import { scratchDir } from '../support/scratch.js';
import { ScriptedServer } from '../support/scripted-server.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { findTool } from '../support/tools.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

const servers: PostgresServer[] = [];
const keep = (server: PostgresServer) => {
  servers.push(server);
  return server;
};
afterEach(async () => {
  for (const server of servers.splice(0)) await server.destroy();
});

describe.each(MAJORS)('PostgreSQL %i', (major) => {
  test('starts, archives finished segments byte for byte, survives kill9', async () => {
    const server = keep(await PostgresServer.create({ major, archive: true }));
    const [row] = await server.sql<{ version: string; size: string }>(
      "SELECT current_setting('server_version_num') AS version, current_setting('wal_segment_size') AS size",
    );
    expect(Math.floor(Number(row?.version) / 10_000)).toBe(major);
    expect(row?.size).toBe('1MB');

    await server.sql('CREATE TABLE t AS SELECT 1 AS a');
    const segment = await server.switchWal();
    const copy = await server.waitArchived(segment);
    expect(readFileSync(copy).equals(readFileSync(join(server.dataDir, 'pg_wal', segment)))).toBe(
      true,
    );

    const pid = server.pid;
    await server.kill9();
    expect(isRunning(pid)).toBe(false);
    await server.start();
    expect(await server.sql('SELECT a FROM t')).toEqual([{ a: 1 }]);
    await server.restart();
    await server.configure({ wal_keep_size: '3MB' });
    expect(await server.sql('SHOW wal_keep_size')).toEqual([{ wal_keep_size: '3MB' }]);
  });

  test('a standby follows and is promoted to timeline 2', async () => {
    const primary = keep(await PostgresServer.create({ major }));
    const standby = keep(await primary.createStandby());
    await primary.sql('CREATE TABLE t AS SELECT 1 AS a');
    const lsn = await primary.currentLsn();
    await waitFor(async () => (await standby.currentLsn()) >= lsn);
    expect(await primary.walSenderPids()).toHaveLength(1);
    expect(await standby.promote()).toBe(2);
    await standby.sql('INSERT INTO t VALUES (2)');
    expect(await standby.systemIdentifier()).toBe(await primary.systemIdentifier());
  });

  test('recovers from a base backup with restore_command', async () => {
    const server = keep(await PostgresServer.create({ major, archive: true }));
    const backup = await server.baseBackup();
    await server.sql('CREATE TABLE t AS SELECT 1 AS a');
    await server.waitArchived(await server.switchWal());
    await server.stop('immediate');
    const recovered = keep(
      await server.recoverFrom({ backup, restoreCommand: `cp ${server.archiveDir}/%f %p` }),
    );
    await waitFor(
      async () => (await recovered.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
    );
    expect(await recovered.sql('SELECT a FROM t')).toEqual([{ a: 1 }]);
  });
});

test.skipIf(MAJORS.length === 0)('TLS, passwords, another cluster, no leftovers', async () => {
  const major = MAJORS.at(-1)!;
  const server = keep(
    await PostgresServer.create({ major, tls: true, auth: 'scram-sha-256', fresh: true }),
  );
  const ca = readFileSync(server.ca!.cert, 'utf8');
  const client = await server.client({ host: 'localhost', password: PASSWORD, ssl: { ca } });
  const { rows } = await client.query('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()');
  expect(rows).toEqual([{ ssl: true }]);
  await client.end();
  await expect(server.client({ host: 'localhost', password: 'wrong' })).rejects.toThrow(/password/);
  const other = keep(await PostgresServer.create({ major }));
  expect(await server.systemIdentifier()).not.toBe(await other.systemIdentifier());
  await other.destroy();
  expect(() => readdirSync(other.dir)).toThrow(/ENOENT/);
});

test.skipIf(MAJORS.length === 0)('the workload fills segments and counts its commits', async () => {
  const server = keep(await PostgresServer.create({ major: MAJORS.at(-1)!, archive: true }));
  const first = await server.currentSegment();
  const ids = await workload(server, {
    transactions: 12,
    prepareEvery: 3,
    switchEvery: 4,
    messageBytes: 100_000,
  });
  expect(ids).toHaveLength(12);
  expect(await workload(server, { transactions: 1 })).toEqual([13]);
  expect(await server.sql('SELECT count(*)::int AS n FROM committed')).toEqual([{ n: 13 }]);
  const last = await server.switchWal();
  await server.waitArchived(last);
  expect(last > first).toBe(true);
  const compared = cmpSegments(server.archiveDir, join(server.dataDir, 'pg_wal'));
  expect(compared.different).toEqual([]);
  expect(compared.onlyInA).toEqual([]);
  expect(compared.equal.length).toBeGreaterThan(4);
});

test('the scripted server answers like a walsender and records what it got', async () => {
  const server = await ScriptedServer.listen(async (connection) => {
    await connection.accept();
    const start = await connection.serve({ timeline: 7 });
    expect(start).toMatchObject({ slot: 's', lsn: 0x3000000n, timeline: 7 });
    connection.close();
  });
  const client = new pg.Client({ host: '127.0.0.1', port: server.port, user: 'postgres' });
  client.on('error', () => {});
  await client.connect();
  const { rows } = await client.query('IDENTIFY_SYSTEM');
  expect(rows).toEqual([
    { systemid: '7000000000000000001', timeline: '7', xlogpos: '0/3000000', dbname: null },
  ]);
  await expect(client.query('START_REPLICATION SLOT "s" 0/3000000 TIMELINE 7')).rejects.toThrow(
    /terminated/,
  );
  expect(server.connections[0]?.startup.user).toBe('postgres');
  expect(server.errors).toEqual([]);
  await server.close();
});

test('a proxy closes although the server was gone while its line was silent', async () => {
  const gone = createServer().listen(0, '127.0.0.1');
  await once(gone, 'listening');
  const { port } = gone.address() as AddressInfo;
  gone.close();
  await once(gone, 'close');
  const proxy = await TcpProxy.listen(port);
  proxy.stall();
  const client = createConnection(proxy.port, '127.0.0.1').on('error', () => {});
  await waitFor(() => proxy.accepted === 1);
  // The proxy's own attempt, made before, has been refused by then.
  await once(createConnection(port, '127.0.0.1'), 'error').catch(() => undefined);
  await new Promise((resolve) => setImmediate(resolve));
  await proxy.close();
  await waitFor(() => client.destroyed);
});

test('a wrapper that looks for a program is not that program', () => {
  const dir = scratchDir('path');
  const wrapper = join(dir, 'pg_wrapper');
  writeFileSync(wrapper, '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  symlinkSync(wrapper, join(dir, 'pg_absent'));
  copyFileSync(wrapper, join(dir, 'pg_present'));
  vi.stubEnv('PATH', dir);
  try {
    expect(findTool('pg_absent')).toBeUndefined();
    expect(findTool('pg_present')).toBe(join(dir, 'pg_present'));
  } finally {
    vi.unstubAllEnvs();
  }
});
