import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { LogicalReplicationService, type Pgoutput, PgoutputPlugin } from 'pg-logical-replication';
import { expect, test } from 'vitest';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { parseRecordHeader, RECORD_HEADER_SIZE } from '../../src/wal/record.js';
import { RM_XACT } from '../../src/wal/records/xact.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, waitEqual } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

/** Since 17 a logical walsender waits for the slots in synchronized_standby_slots. */
const MAJOR = MAJORS.find((major) => major >= 17);
const PAGE = 8192;

/** The record at `lsn` as it lies in the directory now; undefined where a page cuts its header. */
function storedRecord(directory: string, lsn: Lsn, segmentSize: number) {
  if (Number(lsn % BigInt(PAGE)) > PAGE - RECORD_HEADER_SIZE) return undefined;
  const name = segmentFileName(1, segmentOf(lsn, segmentSize), segmentSize);
  const path = join(directory, name);
  const fd = openSync(existsSync(path) ? path : `${path}.partial`, 'r');
  const header = Buffer.alloc(RECORD_HEADER_SIZE);
  readSync(fd, header, 0, header.length, Number(lsn % BigInt(segmentSize)));
  closeSync(fd);
  return parseRecordHeader(header, 0);
}

test.skipIf(!MAJOR)(
  `what an independent logical consumer gets is stored here before (needs PostgreSQL 17 or newer)`,
  async () => {
    const server = keep(
      await PostgresServer.create({
        major: MAJOR!,
        archive: true,
        settings: { wal_level: 'logical', synchronized_standby_slots: 'keep' },
      }),
    );
    await server.sql("SELECT pg_create_physical_replication_slot('keep', true)");
    await server.sql('CREATE TABLE t (n int PRIMARY KEY, note text)');
    await server.sql('CREATE PUBLICATION p FOR TABLE t');
    await server.sql(
      "SELECT pg_create_logical_replication_slot('l', 'pgoutput', failover => true)",
    );
    const directory = archiveDirectory();
    const run = keep(receive(directory, server.conninfo(), ['-S', 'keep', '--synchronous']));
    await run.waitForOutput(/starting log streaming/);

    const { host, port, user } = server;
    const service = new LogicalReplicationService(
      { host, port, user, database: 'postgres' },
      { acknowledge: { auto: true, timeoutSeconds: 1 } },
    );
    keep({ [Symbol.asyncDispose]: async () => void (await service.destroy()) });
    const found: { xid: number; stored: { xid: number; rmgr: number } | undefined }[] = [];
    const problems: unknown[] = [];
    let xid = 0;
    service.on('error', (error) => problems.push(error));
    service.on('data', (_lsn: string, log: Pgoutput.Message) => {
      try {
        if (log.tag === 'begin') xid = log.xid;
        if (log.tag !== 'commit') return;
        // Looked at now, before anything that is still under way could arrive.
        const lsn = parseLsn(log.commitLsn as string);
        found.push({ xid, stored: storedRecord(directory, lsn, server.segmentSize) });
      } catch (error) {
        problems.push(error);
      }
    });
    const plugin = new PgoutputPlugin({ protoVersion: 1, publicationNames: ['p'] });
    service.subscribe(plugin, 'l').catch((error) => problems.push(error));

    const client = await server.client();
    const commits: number[] = [];
    for (let n = 0; n < 300; n++) {
      const { rows } = await client.query(
        'INSERT INTO t VALUES ($1::int, repeat(md5($1::int::text), 100)) RETURNING pg_current_xact_id()::text AS x',
        [n],
      );
      commits.push(Number(rows[0].x));
    }
    await waitFor(() => found.length >= commits.length || problems.length > 0, {
      what: 'the logical consumer',
    });
    expect(problems).toEqual([]);
    expect(found.map((f) => f.xid)).toEqual(commits);
    const whole = found.filter((f) => f.stored);
    expect(whole.length).toBeGreaterThan(250);
    for (const { xid, stored } of whole) expect(stored).toMatchObject({ xid, rmgr: RM_XACT });
    await waitEqual(directory, server);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  },
);
