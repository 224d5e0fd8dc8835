import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { expect, test } from 'vitest';
import type { ReceivedSegment, WalReceiverOptions } from '../../src/receive/options.js';
import { WalReceiver } from '../../src/receive/receiver.js';
import { disposer } from '../support/cleanup.js';
import { scratchDir } from '../support/scratch.js';
import { backend, type Script, ScriptedServer } from '../support/scripted-server.js';
import { makeWal } from '../wal/synthetic.js';

const keep = disposer();
const MB = 1024 * 1024;
/** A little more than twelve segments. */
const wal = makeWal(Array.from({ length: 425 }, (_, n) => ({ body: Buffer.alloc(30_001, n) })));
const SEGMENTS = Math.floor(wal.bytes.length / MB);
const identity = { systemId: '77', segmentSizeMb: 1, flushLsn: wal.start };

/** A server with twelve segments, all of which it sends at once. */
const sendsAll: Script = async (c) => {
  const { lsn } = await c.startStream(identity);
  c.send(backend.xlogData(lsn, wal.bytes.subarray(Number(lsn - wal.start))));
  await c.nextOf('c').catch(() => {});
  c.close();
};

async function receiving(
  options: Pick<WalReceiverOptions, 'onSegment'> & Partial<WalReceiverOptions>,
  script: Script = sendsAll,
) {
  const server = keep(await ScriptedServer.listen(script));
  const directory = options.directory ?? scratchDir('on-segment');
  const connection = server.conninfo({ sslmode: 'disable' });
  const receiver = new WalReceiver({ connection, directory, retryDelay: 0, ...options });
  return { server, receiver, stop: new AbortController(), directory };
}

const finalNames = (directory: string) =>
  readdirSync(directory)
    .filter((name) => /^[0-9A-F]{24}(\.\w+)?$/.test(name) && !name.endsWith('.partial'))
    .sort();

test.each([undefined, { method: 'gzip' as const }])(
  'while a segment is handed on no later one has its final name, compression %j',
  async (compression) => {
    const seen: string[] = [];
    const later: string[] = [];
    const { receiver, stop, directory } = await receiving({
      ...(compression ? { compression } : {}),
      synchronous: true,
      onSegment: async ({ path }: ReceivedSegment) => {
        seen.push(basename(path));
        // What comes meanwhile is complete by then.
        for (let turn = 0; turn < 20; turn++) {
          await new Promise((resolve) => setTimeout(resolve, 1));
          later.push(...finalNames(directory).filter((name) => name > basename(path)));
        }
        if (seen.length === SEGMENTS) stop.abort();
      },
    });
    await receiver.run(stop.signal);
    expect(later).toEqual([]);
    expect(seen).toHaveLength(12);
    expect(finalNames(directory)).toEqual(seen);
  },
);
