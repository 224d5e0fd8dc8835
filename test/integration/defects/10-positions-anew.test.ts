import { describe, expect, test } from 'vitest';
import { type Lsn, parseLsn } from '../../../src/lsn.js';
import { disposer } from '../../support/cleanup.js';
import { cutOff, forkPoint, pair } from '../../support/failover.js';
import { MAJORS, type Major } from '../../support/postgres.js';
import { signal } from '../../support/processes.js';
import {
  archiveDirectory,
  PROGRAMS,
  type Program,
  receive,
  unverified,
  waitEqual,
  writeWal,
} from '../../support/receiving.js';
import { backend, type Identity, ScriptedServer } from '../../support/scripted-server.js';
import { waitFor } from '../../support/wait.js';

const keep = disposer();
const MB = 1024 * 1024;
const START = 0x3000000n;

/** Bytes that pass for WAL at `lsn`: each tells where it belongs. */
function wal(lsn: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = Number((lsn + BigInt(i)) % 251n) + 1;
  return bytes;
}

const ARGS = ['-S', 's', '--synchronous', '-s', '1'];
const slot = { restartLsn: START, restartTimeline: 1 };

describe.each(PROGRAMS)('%s reports nothing but what this stream brought', (program) => {
  test('after a reconnect', async () => {
    const identity = { segmentSizeMb: 1, flushLsn: START, slot };
    let second: ReturnType<typeof performance.now> | undefined;
    const server = keep(
      await ScriptedServer.listen(async (c, index) => {
        const { lsn } = await c.startStream(identity);
        if (index === 0) {
          c.send(backend.xlogData(START, wal(START, 500_000)));
          await c.waitStatus((r) => r.flush === START + 500_000n);
          c.reset();
          return;
        }
        expect(lsn).toBe(START);
        second = performance.now();
        // Silent at first: the replies say what was received on this stream, nothing.
        await c.waitStatus((r) => r.write === START);
        c.send(backend.keepalive(START + 500_000n, true));
        await waitFor(() => c.statusReplies.length >= 2);
        c.send(backend.xlogData(START, wal(START, 100_000)));
        await c.waitStatus((r) => r.flush === START + 100_000n);
      }),
    );
    const conninfo = server.conninfo({ sslmode: 'disable' });
    keep(receive(archiveDirectory(), conninfo, [...ARGS, ...unverified(program)], { program }));
    const again = await server.connection(1);
    await again.waitStatus((r) => r.flush === START + 100_000n);
    expect(second).toBeDefined();
    for (const { write, flush } of again.statusReplies) {
      expect(flush).toBeLessThanOrEqual(write);
      expect(write).toBeLessThanOrEqual(START + 100_000n);
    }
    expect(server.errors).toEqual([]);
  });

  test('after a timeline switch below the old flush', async () => {
    const fork = START + BigInt(MB) + 1000n;
    const identity: Identity = {
      ...{ segmentSizeMb: 1, flushLsn: START, slot },
      histories: { 2: `1\t0/${fork.toString(16).toUpperCase()}\tno recovery target specified\n` },
    };
    const segment = START + BigInt(MB);
    const before: number[] = [];
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await c.startStream(identity);
        const length = MB + 1000;
        for (let at = 0; at < length; at += 100_000) {
          const part = wal(START + BigInt(at), Math.min(100_000, length - at));
          c.send(backend.xlogData(START + BigInt(at), part));
        }
        await c.waitStatus((r) => r.flush === fork);
        await c.endStream(
          backend.resultSet({ next_tli: '2', next_tli_startpos: `0/${fork.toString(16)}` }),
        );
        before.push(c.statusReplies.length);
        const { lsn, timeline } = await c.serve(identity);
        expect([lsn, timeline]).toEqual([segment, 2]);
        before.push(c.statusReplies.length);
        c.send(backend.copyBoth());
        await waitFor(() => c.statusReplies.length > (before[1] as number));
        c.send(backend.xlogData(segment, wal(segment, 500)));
        await c.waitStatus((r) => r.flush === segment + 500n);
      }),
    );
    const conninfo = server.conninfo({ sslmode: 'disable' });
    const run = keep(
      receive(archiveDirectory(), conninfo, [...ARGS, ...unverified(program)], { program }),
    );
    const connection = await server.connection(0);
    await connection
      .waitStatus((r) => r.flush === segment + 500n)
      .catch((e) => {
        throw new Error(run.stderr, { cause: e });
      });
    const replies = connection.statusReplies.slice(before[1]);
    expect(replies[0]).toMatchObject({ write: segment, flush: segment });
    for (const { write, flush } of replies) {
      expect(flush).toBeLessThanOrEqual(write);
      expect(write).toBeLessThanOrEqual(segment + 500n);
    }
    expect(server.errors).toEqual([]);
  });
});

const CASES: [Major, Program][] = [
  [15, 'walkeep'],
  [18, 'pg_receivewal'],
];
test.each(CASES.filter(([major]) => MAJORS.includes(major)))(
  'a commit on the new timeline waits for the receiver (PostgreSQL %i, %s)',
  async (major, program) => {
    const [primary, standby] = (await pair(major)).map(keep) as Awaited<ReturnType<typeof pair>>;
    const directory = archiveDirectory();
    const conninfo =
      `host=127.0.0.1,127.0.0.1 port=${primary.port},${standby.port} ` +
      'user=postgres application_name=archive';
    await primary.sql("SELECT pg_create_physical_replication_slot('s', true)");
    const run = keep(receive(directory, conninfo, ['-S', 's', '--synchronous'], { program }));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(primary, 100_000);
    await cutOff(primary, standby);
    // The receiver's old flush is far above the fork.
    await writeWal(primary, 700_000);
    const oldFlush = await waitEqual(directory, primary);
    await primary.stop('immediate');
    await standby.promote();
    expect(await forkPoint(standby)).toBeLessThan(oldFlush);
    await standby.sql("SELECT pg_create_physical_replication_slot('s', true)");
    const replication = async () => {
      const [row] = await standby.sql(
        "SELECT sent_lsn::text s, flush_lsn::text f, sync_state FROM pg_stat_replication WHERE application_name = 'archive'",
      );
      return row;
    };
    await waitFor(async () => (await replication())?.f, {
      what: 'the receiver on the new primary',
    });
    await waitEqual(directory, standby, { timeline: 2, others: [primary] });
    await standby.configure({ synchronous_standby_names: 'archive' });
    await waitFor(async () => (await replication())?.sync_state === 'sync');
    // Commits wait once the checkpointer has read the setting, which it does before the next checkpoint.
    await standby.sql('CHECKPOINT');

    signal(run.pid, 'SIGSTOP');
    const client = await standby.client();
    let confirmed: Lsn | undefined;
    const commit = client.query('CREATE TABLE t AS SELECT 1 AS a').then(async () => {
      confirmed = await standby.currentLsn();
    });
    await waitFor(async () => {
      const [row] = await standby.sql(
        "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
      );
      return row?.n === 1;
    });
    const { s, f } = (await replication()) as { s: string; f: string };
    expect(parseLsn(f)).toBeLessThanOrEqual(parseLsn(s));
    // Below the old flush: a position kept over the switch would have confirmed it.
    expect(await standby.currentLsn()).toBeLessThan(oldFlush);
    expect(confirmed).toBeUndefined();
    signal(run.pid, 'SIGCONT');
    await commit;
    await waitEqual(directory, standby, { timeline: 2, others: [primary] });
    await run.stop();
  },
);
