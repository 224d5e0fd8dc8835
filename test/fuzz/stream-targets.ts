import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { connect } from '../../src/connection/connect.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import type { Lsn } from '../../src/lsn.js';
import type { WalReceiverOptions } from '../../src/receive/options.js';
import { Refusals } from '../../src/receive/refusals.js';
import { ReceivingDirectory } from '../../src/receive/start/receiving-directory.js';
import { RemovedWal } from '../../src/receive/start/removed-wal.js';
import { type RunOwner, TimelineRun } from '../../src/receive/timeline-run.js';
import { followTimelines } from '../../src/receive/timelines.js';
import { readServerState } from '../../src/server/server-state.js';
import { parseSegmentFileName } from '../../src/wal/file-name.js';
import { settingsFor } from '../connection/fixtures.js';
import { SEGMENT } from '../simulation/model-wal.js';
import { removeScratch, scratchDir } from '../support/scratch.js';
import { SocketServer } from '../support/socket-server.js';
import { asyncTarget, expectTyped } from './harness.js';
import { HONEST, START, StreamPeer, type StreamScript, script, WAL } from './stream-peer.js';

const input = fc.record({
  script,
  verify: fc.constantFrom('strict' as const, 'off' as const),
  synchronous: fc.boolean(),
  abort: fc.boolean(),
});

/** What a DirectoryReceiver does over one connection. */
class Receiver {
  readonly stop = new AbortController();
  private readonly options: WalReceiverOptions;
  private readonly refusals: Refusals;

  constructor(options: WalReceiverOptions, refusals: Refusals) {
    this.options = options;
    this.refusals = refusals;
  }

  async serve(connection: ReplicationConnection): Promise<void> {
    const { options, refusals } = this;
    const server = await readServerState(connection);
    const archive = await ReceivingDirectory.open(options, connection, server, {
      removed: new RemovedWal(),
      slotInvalid: false,
      refused: refusals.current,
      warn: () => {},
    });
    const owner: RunOwner = {
      ...{ tell: () => {}, noteProgress: () => {} },
      ...{ refusals, writeReport: 'slow' },
    };
    try {
      await followTimelines(archive.start, options.endLsn, {
        stream: (at) =>
          new TimelineRun(options, connection, archive, at, owner).stream(
            this.stop.signal,
            () => {},
          ),
        follow: (at, _, end) => archive.follow(connection, at.timeline, end),
      });
    } finally {
      await archive.close();
    }
  }
}

/** What the server has, from START on. */
const TRUE_IMAGE = Buffer.alloc(2 * SEGMENT);
for (let n = 0; n < 2; n++) WAL.segment(START / SEGMENT + n).copy(TRUE_IMAGE, n * SEGMENT);

/**
 * No byte is there that was not sent for this place; complete names hold complete segments. Gives
 * the end of what is stored.
 */
function checkFiles(directory: string, image: Buffer, sent: number): number {
  let stored = START;
  for (const name of readdirSync(directory)) {
    const file = parseSegmentFileName(name, SEGMENT);
    if (!file) continue;
    assert.equal(file.timeline, 1, name);
    const content = readFileSync(join(directory, name));
    const at = Number(file.segment) * SEGMENT;
    assert(at >= START && content.length <= SEGMENT, name);
    const length = Math.max(0, Math.min(content.length, sent - at));
    // What was not received is zero, all of it or from some place on.
    let end = content.length;
    while (end > 0 && content[end - 1] === 0) end -= 1;
    assert(end <= length, `${name}: ${end} bytes of ${length} sent`);
    const expected = image.subarray(at - START, at - START + end);
    assert(content.subarray(0, end).equals(expected), `${name} holds other bytes`);
    assert(file.partial || length === SEGMENT, `${name} is not complete`);
    stored = Math.max(stored, at + end);
  }
  return stored;
}

const streams = asyncTarget('whole stream onto a disk', 15, input, async () => {
  const seen = { inputs: 0, stored: 0, recovered: 0 };
  const directory = join(scratchDir('fuzz'), 'archive');
  let given: StreamScript = HONEST;
  let peer: StreamPeer | undefined;
  let image: Buffer = TRUE_IMAGE;
  const server = await SocketServer.listen((socket) => {
    peer = new StreamPeer(socket, given, image);
  });

  /** One connection; gives its error, and up to where the server sent in order. */
  const attempt = async (receiver: Receiver, abortAfter = Number.POSITIVE_INFINITY) => {
    peer = undefined;
    const connection = await connect(settingsFor(server.directory, 5432));
    const own = peer as unknown as StreamPeer;
    const { replies } = own;
    own.onReply = () => {
      if (replies.length >= abortAfter) receiver.stop.abort();
    };
    const error = await receiver.serve(connection).then(
      () => undefined,
      (e: unknown) => e,
    );
    connection.destroy();
    for (const { write, flush } of replies) {
      assert(flush <= write && write <= Math.max(own.position, START));
    }
    return { error, sent: own.position };
  };

  return {
    check: async ({ verify, synchronous, abort, script: acts }) => {
      seen.inputs += 1;
      rmSync(directory, { recursive: true, force: true });
      mkdirSync(directory);
      const options: WalReceiverOptions = { connection: '', directory, verify, synchronous };
      const refusals = new Refusals();
      image = Buffer.alloc(2 * SEGMENT);
      given = acts;
      const hostile = await attempt(new Receiver(options, refusals), abort ? 2 : undefined);
      if (hostile.error !== undefined) expectTyped(hostile.error);
      const lies = Object.keys(given.answers).length > 0;
      const damaged = given.acts.some((a) => a.kind === 'damaged');
      if (!lies && checkFiles(directory, image, hostile.sent) > START) seen.stored += 1;

      // The same directory and the real server: all WAL arrives without help.
      given = HONEST;
      const endLsn = BigInt(WAL.end - 1) as Lsn;
      const honest = await attempt(new Receiver({ ...options, endLsn }, refusals));
      if (honest.error !== undefined) {
        expectTyped(honest.error);
        if (!lies && !damaged) throw honest.error;
        return;
      }
      seen.recovered += 1;
      // Unchecked, damage becomes part of a segment that is complete by then.
      if (damaged && verify === 'off') return;
      assert.equal(checkFiles(directory, TRUE_IMAGE, WAL.end), WAL.end);
    },
    done: async () => {
      await server.close();
      removeScratch(join(directory, '..'));
      assert(seen.inputs < 100 || (seen.stored > 0 && seen.recovered > 0), JSON.stringify(seen));
    },
  };
});

export const streamTargets = [streams];
