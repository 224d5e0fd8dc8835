import { once } from 'node:events';
import { basename } from 'node:path';
import { expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import { resolveSettings } from '../../src/connection/conninfo/resolve.js';
import { SinkError, UsageError } from '../../src/errors.js';
import { walRecords } from '../../src/library/wal-records.js';
import { parseLsn } from '../../src/lsn.js';
import type { ReceivedSegment } from '../../src/receive/options.js';
import { WalReceiver } from '../../src/receive/receiver.js';
import { type SinkOpening, streamWal } from '../../src/receive/sink.js';
import { RM_XACT } from '../../src/wal/records/xact.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, writeWal } from '../support/receiving.js';

const keep = disposer();
const create = async () => keep(await PostgresServer.create({ major: MAJORS.at(-1)! }));

test('records of a server, from now on, and from a position to another', async () => {
  const server = await create();
  await server.sql('CREATE TABLE t (n int)');
  const connection = server.conninfo();
  const openings: SinkOpening[] = [];
  const onOpen = (opening: SinkOpening) => {
    openings.push(opening);
    server.sql('INSERT INTO t VALUES (1)');
  };
  const since = await server.currentLsn();
  for await (const record of walRecords({ connection, onOpen })) {
    expect(record.lsn).toBeGreaterThanOrEqual(since);
    if (record.rmgr !== RM_XACT) continue;
    expect(record).toMatchObject({ rmgrName: 'Transaction', timeline: 1, serverMajor: 18 });
    break;
  }
  expect(openings).toHaveLength(1);
  expect(openings[0]).toMatchObject({ timeline: 1, segmentSize: 2 ** 20 });
  const { systemId } = openings[0] as SinkOpening;
  // Nothing comes behind it by itself: an idle server is not waited for.
  const until = await server.currentLsn();
  const rmgrs = new Set<string>();
  for await (const record of walRecords({ connection, since, until, systemId })) {
    expect(record.lsn).toBeGreaterThanOrEqual(since);
    expect(record.lsn).toBeLessThan(until);
    rmgrs.add(record.rmgrName);
    if (record.rmgrName === 'Heap') expect(record.blocks[0]).toMatchObject({ fork: 0, block: 0 });
  }
  expect([...rmgrs]).toEqual(expect.arrayContaining(['Heap', 'Transaction']));
  const wrong = walRecords({ connection, systemId: systemId + 1n });
  await expect(wrong.next()).rejects.toMatchObject({ code: 'WK_SYSTEM_IDENTIFIER' });
});

test('a sink is opened before anything is written, and a second command is refused', async () => {
  const server = await create();
  const told: string[] = [];
  const stop = new AbortController();
  let opening: SinkOpening | undefined;
  const sink = {
    open: async (stream: SinkOpening) => {
      opening = stream;
      told.push('open');
    },
    write: () => {
      told.push('write');
      stop.abort();
    },
    flush: () => {},
  };
  await streamWal({ connection: server.conninfo() }, sink, stop.signal);
  expect(told.slice(0, 2)).toEqual(['open', 'write']);
  expect(opening).toMatchObject({ timeline: 1, history: { timeline: 1, ancestors: [] } });
  expect(opening?.signal.aborted).toBe(true);

  const conninfo = server.conninfo();
  await using session = await connect(
    await resolveSettings({ conninfo, fallbackApplicationName: 'x' }),
  );
  expect(await session.segmentSize()).toBe(2 ** 20);
  const running = session.identifySystem();
  await expect(session.show('wal_segment_size')).rejects.toThrow(UsageError);
  expect((await running).systemId).toBe(opening?.systemId);
});

test('onSegment is awaited, and ends the receiver where it fails', async () => {
  const server = await create();
  const seen: ReceivedSegment[] = [];
  let working = 0;
  const stop = new AbortController();
  const receiver = new WalReceiver({
    connection: server.conninfo(),
    directory: archiveDirectory(),
    onSegment: async (segment) => {
      working += 1;
      expect(working).toBe(1);
      await new Promise((resolve) => setImmediate(resolve));
      seen.push(segment);
      working -= 1;
      if (seen.length === 3) throw new Error('full');
    },
  });
  expect(receiver.position).toBeUndefined();
  const started = once(receiver, 'start');
  const done = receiver.run(stop.signal);
  done.catch(() => {});
  // It begins with the segment that the server is in then.
  await started;
  await writeWal(server, 4_500_000);
  await expect(done).rejects.toThrow(SinkError);
  await expect(done).rejects.toThrow(/onSegment failed for ".*[0-9A-F]{24}": full/);
  expect(seen).toHaveLength(3);
  expect(seen.map(({ path }) => basename(path))).toEqual(
    seen.map(({ path }) => basename(path)).sort(),
  );
  expect(receiver.position?.flushed).toBeGreaterThan(parseLsn('0/0'));
});
