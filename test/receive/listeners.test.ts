import { expect, test } from 'vitest';
import { InternalError } from '../../src/errors.js';
import { WalReceiver } from '../../src/receive/receiver.js';
import { disposer } from '../support/cleanup.js';
import { scratchDir } from '../support/scratch.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';
import { makeWal } from '../wal/synthetic.js';

const keep = disposer();
const wal = makeWal(Array.from({ length: 400 }, (_, n) => ({ body: Buffer.alloc(3001, n) })));

test.each(['connect', 'start', 'segment', 'progress'] as const)(
  'what a listener of "%s" throws ends the receiver, and says where it came from',
  async (event) => {
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await c.startStream({ systemId: '77', segmentSizeMb: 1, flushLsn: wal.start });
        c.send(backend.xlogData(wal.start, wal.bytes));
        await c.nextOf('c').catch(() => {});
        c.close();
      }),
    );
    const receiver = new WalReceiver({
      connection: server.conninfo({ sslmode: 'disable' }),
      directory: scratchDir('listeners'),
    });
    const cause = new Error('out of patience');
    receiver.on(event, () => {
      throw cause;
    });
    const error = await receiver.run().catch((e) => e);
    expect(error).toBeInstanceOf(InternalError);
    expect(error).toMatchObject({
      code: 'WK_INTERNAL',
      message: `a listener of "${event}" failed: out of patience`,
      cause,
    });
    expect(server.connections).toHaveLength(1);
  },
);
