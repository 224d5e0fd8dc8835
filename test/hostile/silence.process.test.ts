import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import type { WalkeepError } from '../../src/errors.js';
import { WalReceiver, type WalReceiverOptions } from '../../src/index.js';
import type { Lsn } from '../../src/lsn.js';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory } from '../support/receiving.js';
import {
  backend,
  type Script,
  type ScriptedConnection,
  ScriptedServer,
} from '../support/scripted-server.js';
import { delay } from '../support/wait.js';

const keep = disposer();
const START = 0x300_0000n;
/** Milliseconds; a server is given up after twice that. */
const PATIENCE = 150;

/** One byte after the other, each long before the time is up, for as long as the client stays. */
async function dribble(c: ScriptedConnection, bytes: Uint8Array): Promise<void> {
  for (let i = 0; !c.ended; i++) {
    c.send(bytes.subarray(i % bytes.length, (i % bytes.length) + 1));
    await delay(PATIENCE / 5);
  }
}

const notice = backend.noticeResponse('still here');
const silent: Script = async (c) => {
  await once(c.socket, 'close');
};

/** The error that ends the first connection to this server. */
async function ends(script: Script, more: Partial<WalReceiverOptions> = {}): Promise<WalkeepError> {
  const server = keep(await ScriptedServer.listen(script));
  const receiver = new WalReceiver({
    connection: server.conninfo({ sslmode: 'disable', password: 'x' }),
    directory: archiveDirectory(),
    receiveTimeout: PATIENCE,
    reconnect: false,
    verify: 'off',
    ...more,
  });
  return receiver.run().then(
    () => expect.fail('the receiver came to an end without an error'),
    (error) => error,
  );
}

describe('a server that goes silent, or says one byte at a time without an end', () => {
  const stage = (what: string, script: Script): [string, Script][] => [
    [
      `silent ${what}`,
      async (c, i) => {
        await script(c, i);
        await silent(c, i);
      },
    ],
    [
      `slow ${what}`,
      async (c, i) => {
        await script(c, i);
        await dribble(c, notice);
      },
    ],
  ];
  test.each([
    ...stage('before the login', async () => {}),
    ...stage('in the login', async (c) => {
      c.send(backend.authentication(10, Buffer.from('SCRAM-SHA-256\0\0')));
    }),
    ...stage('behind the login', async (c) => {
      c.send(backend.authenticationOk());
    }),
    ...stage('at the first question', (c) => c.accept()),
    ...stage('in an answer', async (c) => {
      await c.accept();
      await c.nextQuery();
      c.send(backend.rowDescription(['x']), backend.dataRow(['0700']));
    }),
    ...stage('at START_REPLICATION', async (c) => {
      await c.accept();
      await c.serve();
    }),
  ])('%s', async (_what, script) => {
    const error = await ends(script);
    expect(error).toMatchObject({ code: 'WK_TIMEOUT', retryable: true });
  });

  test('silent in the stream', async () => {
    const error = await ends(async (c, i) => {
      await c.startStream();
      await silent(c, i);
    });
    expect(error).toMatchObject({ code: 'WK_TIMEOUT', retryable: true });
  });
});

test('a server that goes on sending WAL when it was asked to end', async () => {
  const error = await ends(
    async (c) => {
      await c.startStream({ segmentSizeMb: 1 });
      for (let at = START; !c.ended; at += 1000n) {
        c.send(backend.xlogData(at, Buffer.alloc(1000, 1)));
        await delay(5);
      }
    },
    { endLsn: (START + 5000n) as Lsn },
  );
  expect(error).toMatchObject({ code: 'WK_TIMEOUT', retryable: true });
  expect(error.message).toMatch(/did not complete its answer/);
});
