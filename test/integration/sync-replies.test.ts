import { expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import { resolveSettings } from '../../src/connection/conninfo/resolve.js';
import type { Lsn } from '../../src/lsn.js';
import { StreamSession } from '../../src/receive/stream.js';
import { PacedTarget, type WriteReport } from '../../src/receive/target/paced-target.js';
import { type WalWriter, WriterPositions } from '../../src/receive/target/wal-writer.js';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory, PROGRAMS, receive, unverified } from '../support/receiving.js';
import {
  backend,
  type Identity,
  type ScriptedConnection,
  ScriptedServer,
} from '../support/scripted-server.js';
import { delay, waitFor } from '../support/wait.js';

const keep = disposer();
const START = 0x3000000n;

/** A healthy server whose settings for synchronous commits are these. */
const settings = (commit: string): Identity => ({
  answer: (query) => {
    if (/synchronous_commit/.test(query)) return backend.resultSet({ synchronous_commit: commit });
    if (/synchronous_standby_names/.test(query)) {
      return backend.resultSet({ synchronous_standby_names: 'walkeep' });
    }
    return undefined;
  },
});

async function endStream(c: ScriptedConnection): Promise<void> {
  await c.nextOf('c');
  c.send(
    backend.copyDone(),
    backend.commandComplete('COPY 0'),
    backend.commandComplete('START_STREAMING'),
    backend.readyForQuery(),
  );
  await c.nextOf('X');
  c.close();
}

/**
 * Commits of 200 bytes: `count` of them, each sent when the one before is confirmed. `slow` ones
 * took longer than half of what makes a sync slow: over such a disk the write is told early.
 */
async function commits(c: ScriptedConnection, count: number) {
  const before = c.statusReplies.length;
  let slow = 0;
  for (let n = 0; n < count; n++) {
    const at = START + BigInt(n * 200);
    const sent = performance.now();
    c.send(backend.xlogData(at, Buffer.alloc(200, 1)));
    const { at: answered } = await c.waitStatus((s) => s.flush === at + 200n);
    if (answered - sent > 5) slow += 1;
  }
  const replies = c.statusReplies.slice(before);
  const repeated = replies.filter((s, i) => {
    const last = replies[i - 1];
    return last && last.write === s.write && last.flush === s.flush;
  });
  return { replies: replies.length, repeated: repeated.length, slow };
}

test.each<[string, string[], number]>([
  ['on', [], 1],
  ['remote_apply', [], 1],
  ['remote_write', ['--write-report=sync'], 1],
  // The write is told before the sync there, and only there.
  ['remote_write', [], 2],
])('with synchronous_commit = %s %j a commit gets %i', async (level, args, replies) => {
  const count = 300;
  let sent: Awaited<ReturnType<typeof commits>> | undefined;
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.startStream(settings(level));
      await c.waitStatus(() => true);
      sent = await commits(c, count);
      await endStream(c);
    }),
  );
  const directory = archiveDirectory();
  const options = ['--synchronous', '-s', '3600', '--verify=off', ...args];
  const run = keep(receive(directory, server.conninfo({ sslmode: 'disable' }), options));
  await waitFor(() => sent || server.errors.length > 0, { what: 'the commits' });
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  expect(server.errors).toEqual([]);
  expect(sent!.replies).toBeGreaterThanOrEqual(count);
  expect(sent!.replies).toBeLessThanOrEqual(replies * count + 2 * sent!.slow);
  expect(sent!.repeated).toBe(0);
});

test('WAL that comes with the consent to stream is confirmed at once', async () => {
  const answers: bigint[] = [];
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.accept();
      await c.serve(settings('on'));
      c.send(backend.copyBoth(), backend.xlogData(START, Buffer.alloc(200, 1)));
      answers.push((await c.waitStatus((s) => s.flush === START + 200n, 5000)).flush);
      c.reset();
    }),
  );
  const options = ['--synchronous', '-s', '0', '--verify=off'];
  const run = keep(receive(archiveDirectory(), server.conninfo({ sslmode: 'disable' }), options));
  await waitFor(() => answers.length >= 5 || server.errors.length > 0, { what: 'five replies' });
  expect(server.errors).toEqual([]);
  await run.stop('SIGKILL');
});

test('a question that comes with the consent to stream is answered', async () => {
  let answers = 0;
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.accept();
      await c.serve(settings('on'));
      c.send(backend.copyBoth(), backend.keepalive(START, true));
      await c.waitStatus(() => true, 5000);
      answers += 1;
      c.reset();
    }),
  );
  const options = ['-s', '0', '--verify=off'];
  const run = keep(receive(archiveDirectory(), server.conninfo({ sslmode: 'disable' }), options));
  await waitFor(() => answers >= 5 || server.errors.length > 0, { what: 'five replies' });
  expect(server.errors).toEqual([]);
  await run.stop('SIGKILL');
});

test('what arrives together is answered together', async () => {
  const count = 500;
  let replies = 0;
  let elapsed = 0;
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.startStream(settings('on'));
      await c.waitStatus(() => true);
      const before = c.statusReplies.length;
      const began = performance.now();
      const messages = Array.from({ length: count }, (_, n) =>
        backend.xlogData(START + BigInt(n * 100), Buffer.alloc(100, 1)),
      );
      c.send(...messages);
      await c.waitStatus((s) => s.flush === START + BigInt(count * 100));
      replies = c.statusReplies.length - before;
      elapsed = performance.now() - began;
      await endStream(c);
    }),
  );
  const options = ['--synchronous', '-s', '3600', '--verify=off'];
  const run = keep(receive(archiveDirectory(), server.conninfo({ sslmode: 'disable' }), options));
  await waitFor(() => replies > 0 || server.errors.length > 0, { what: 'the replies' });
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  expect(server.errors).toEqual([]);
  // While more is on its way one sync covers 50 ms of it.
  expect(replies).toBeLessThan(25 + elapsed / 50);
});

test.each(PROGRAMS)(
  '%s: the last reply of a graceful stop has the final flush',
  async (program) => {
    const end = START + 5000n;
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await c.startStream({ slot: { restartLsn: START, restartTimeline: 1 } });
        c.send(backend.xlogData(START, Buffer.alloc(5000, 1)));
        await endStream(c);
      }),
    );
    const run = keep(
      receive(
        archiveDirectory(),
        server.conninfo({ sslmode: 'disable' }),
        ['-S', 's', '-s', '1', ...unverified(program)],
        { program },
      ),
    );
    const connection = await server.connection(0);
    await connection.waitStatus((s) => s.write === end);
    expect(connection.statusReplies.at(-1)?.flush).toBe(START);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    expect(connection.statusReplies.at(-1)).toMatchObject({ write: end, flush: end, apply: 0n });
    // Before CopyDone: the server takes none behind it.
    const types = connection.received.map((m) => m.type).join('');
    expect(types).toMatch(/dcX$/);
    expect(server.errors).toEqual([]);
  },
);

const SYNC_MS = 200;
const block = new Int32Array(new SharedArrayBuffer(4));

/** A disk whose writes are quick and whose syncs take 200 ms, with a call that does both or not. */
class SlowDisk implements WalWriter {
  readonly pending = 0;
  inline = 0;
  background = 0;
  readonly positions = new WriterPositions(START as Lsn);
  readonly writeSynced?: (chunks: readonly Uint8Array[]) => boolean;

  constructor(both: boolean) {
    if (!both) return;
    this.writeSynced = (chunks) => {
      this.writeSync(chunks);
      this.syncSync();
      return true;
    };
  }

  private held: Promise<void> = Promise.resolve();
  release: () => void = () => {};

  /** Syncs that begin from now on do not end before `release`. */
  hold(): void {
    this.held = new Promise((resolve) => {
      this.release = resolve;
    });
  }

  writeSync(chunks: readonly Uint8Array[]): void {
    const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    this.positions.wrote(this.positions.written + length);
  }

  async write(chunks: readonly Uint8Array[]): Promise<void> {
    this.writeSync(chunks);
  }

  syncSync(): void {
    this.inline += 1;
    const covered = this.positions.written;
    Atomics.wait(block, 0, 0, SYNC_MS);
    this.positions.synced(covered);
  }

  async sync(): Promise<void> {
    this.background += 1;
    const covered = this.positions.written;
    await Promise.all([delay(SYNC_MS), this.held]);
    this.positions.synced(covered);
  }

  async close(): Promise<void> {
    await this.sync();
  }
}

test.each<[WriteReport, boolean]>([
  ['sync', false],
  ['sync', true],
  ['slow', false],
  ['slow', true],
  ['write', false],
  ['write', true],
])(
  'keepalives are answered in time over a disk whose syncs take 200 ms (%s, with the write: %s)',
  async (writeReport, both) => {
    const disk = new SlowDisk(both);
    const target = new PacedTarget({ writer: disk, synchronous: true, writeReport });
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await c.startStream();
        let at = START;
        for (let n = 0; n < 60; n++) {
          const data = Buffer.alloc(8192, n);
          const replies = c.statusReplies.length;
          disk.hold();
          c.send(backend.xlogData(at, data), backend.keepalive(at + 8192n, true));
          at += 8192n;
          // No answer waits for a sync in the background.
          await waitFor(() => c.statusReplies.length > replies, { intervalMs: 1 });
          disk.release();
          await c.waitStatus((s) => s.write >= at);
        }
        await c.waitStatus((s) => s.flush === at);
        c.send(backend.copyDone());
        await c.nextOf('c');
        c.send(
          backend.commandComplete('COPY 0'),
          backend.commandComplete('START_STREAMING'),
          backend.readyForQuery(),
        );
      }),
    );
    const conninfo = server.conninfo({ sslmode: 'disable' });
    const connection = await connect(
      await resolveSettings({ conninfo, fallbackApplicationName: 'test' }),
    );
    const session = new StreamSession({
      ...{ connection, timeline: 1, target },
      ...{ synchronous: true, reportFlush: true, applyIsFlush: false },
      ...{ statusInterval: 10_000, receiveTimeout: 30_000 },
      onProgress: () => {},
    });
    const outcome = await session.run(new AbortController().signal, () => {});
    expect(server.errors).toEqual([]);
    expect(outcome).toMatchObject({ kind: 'ended', lsn: START + 60n * 8192n });
    // Who is told of the write is not told with the sync.
    expect(disk.inline).toBeLessThanOrEqual(writeReport === 'write' ? 0 : 1);
    expect(disk.background).toBeGreaterThan(0);
    // Positions told are honest: flush never beyond what a finished sync covers.
    const [c] = server.connections;
    for (const s of c?.statusReplies ?? []) expect(s.flush).toBeLessThanOrEqual(s.write);
    connection.destroy();
  },
);
