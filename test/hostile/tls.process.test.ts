import { readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { beforeAll, describe, expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import type { ConnectionSettings } from '../../src/connection/conninfo/settings.js';
import type { WalkeepError } from '../../src/errors.js';
import { WalReceiver } from '../../src/index.js';
import type { Lsn } from '../../src/lsn.js';
import { Recorder, rejection, settingsFor } from '../connection/fixtures.js';
import { CertificateAuthority, type KeyPair } from '../support/certificates.js';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { backend, ScriptedConnection } from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const START = 0x300_0000n as Lsn;
let ca: CertificateAuthority;
let pair: KeyPair;
beforeAll(async () => {
  ca = await CertificateAuthority.create(scratchDir('tls'));
  pair = await ca.issue('localhost', ['DNS:localhost', 'IP:127.0.0.1']);
});

/** A server that hands each socket to `talk` once the client has said its first bytes. */
async function listen(talk: (socket: Socket) => void): Promise<number> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.once('data', () => talk(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  keep({
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  });
  return (server.address() as { port: number }).port;
}

/** Our side of TLS on an accepted socket. */
function secured(socket: Socket, more: object = {}): TLSSocket {
  const [cert, key] = [readFileSync(pair.cert), readFileSync(pair.key)];
  const tls = new TLSSocket(socket, { isServer: true, cert, key, ...more });
  return tls.on('error', () => {});
}

const open = (port: number, more: Partial<ConnectionSettings> = {}) =>
  connect(settingsFor('127.0.0.1', port, { sslMode: 'require', connectTimeout: 10_000, ...more }));
const authenticated = Buffer.concat([backend.authenticationOk(), backend.readyForQuery()]);
const alert = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28]);

describe('before and in the handshake', () => {
  test.each<[string, (socket: Socket) => void, string, RegExp]>([
    ['garbage for S', (s) => s.write('Q'), 'WK_PROTOCOL', /invalid response to SSL negotiation/],
    [
      'a login behind the S in one segment',
      (s) => s.write(Buffer.concat([Buffer.from('S'), authenticated])),
      'WK_PROTOCOL',
      /received unencrypted data after SSL response$/,
    ],
    [
      'a login behind the N in one segment',
      (s) => s.write(Buffer.concat([Buffer.from('N'), authenticated])),
      'WK_PROTOCOL',
      /received unencrypted data after SSL response$/,
    ],
    [
      'a login in clear behind the S, a moment later',
      (s) => s.write('S', () => s.write(authenticated)),
      'WK_',
      /SSL error|unencrypted data/,
    ],
    ['N where TLS is required', (s) => s.write('N'), 'WK_TLS', /does not support SSL/],
    ['S and the end', (s) => s.end('S'), 'WK_CONNECTION', /SSL SYSCALL error: EOF detected$/],
    [
      'S and a reset',
      (s) => s.write('S', () => s.once('data', () => s.resetAndDestroy())),
      'WK_CONNECTION',
      /SSL SYSCALL error: (EOF detected|Connection reset by peer)$/,
    ],
    [
      'S and an alert',
      (s) => s.write('S', () => s.once('data', () => s.write(alert))),
      'WK_TLS',
      /SSL error/,
    ],
    [
      'an error in clear for S',
      (s) => s.write(backend.errorResponse('28P01', 'send it in clear')),
      'WK_CONNECTION',
      /^(?!.*in clear)/,
    ],
  ])('%s', async (_what, talk, code, message) => {
    const error = await rejection<WalkeepError>(open(await listen(talk)));
    expect(error.code).toMatch(new RegExp(`^${code}`));
    expect(error.message).toMatch(message);
    expect(typeof error.retryable).toBe('boolean');
  });

  test('the handshake cut off after any number of bytes', async () => {
    // The first flight of a server is some hundred bytes with this certificate.
    for (const length of [1, 4, 5, 6, 40, 100, 200, 400, 700]) {
      const port = await listen((socket) => {
        socket.write('S');
        // TLS behind a proxy that lets only so many bytes pass.
        const inner = createServer((s) => void secured(s)).listen(0, '127.0.0.1', () => {
          const { port: innerPort } = inner.address() as { port: number };
          const link = new (socket.constructor as typeof Socket)().connect(innerPort, '127.0.0.1');
          let left = length;
          link.on('error', () => {}).on('close', () => inner.close());
          socket.on('data', (data) => link.write(data)).on('close', () => link.destroy());
          link.on('data', (data) => {
            const part = data.subarray(0, left);
            left -= part.length;
            if (left > 0) socket.write(part);
            else socket.end(part);
          });
        });
      });
      const error = await rejection<WalkeepError>(open(port));
      expect(error, `cut after ${length}`).toMatchObject({
        code: 'WK_CONNECTION',
        retryable: true,
      });
    }
  });

  test('a certificate of another authority, and one for another name', async () => {
    const other = await CertificateAuthority.create(scratchDir('other'));
    const port = await listen((s) => s.write('S', () => secured(s)));
    const stranger = await rejection<WalkeepError>(
      open(port, { sslMode: 'verify-ca', sslRootCert: other.cert }),
    );
    expect(stranger).toMatchObject({
      code: 'WK_TLS',
      hint: expect.stringContaining('sslrootcert'),
    });
    const misnamed = await rejection<WalkeepError>(
      open(0, {
        targets: [{ host: 'elsewhere.example', hostaddr: '127.0.0.1', port }],
        sslMode: 'verify-full',
        sslRootCert: ca.cert,
      }),
    );
    expect(misnamed).toMatchObject({ code: 'WK_TLS', expected: 'elsewhere.example' });
  });

  test('TLS older than 1.2', async () => {
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
    const port = await listen((s) => s.write('S', () => secured(s, old)));
    expect(await rejection(open(port))).toMatchObject({ code: 'WK_TLS' });
  });

  test('a server that takes channel binding out of its offer, where it is required', async () => {
    const port = await listen((s) =>
      s.write('S', () => {
        const tls = secured(s);
        tls.once('data', () =>
          tls.write(backend.authentication(10, Buffer.from('SCRAM-SHA-256\0\0'))),
        );
      }),
    );
    const error = await rejection(open(port, { password: 'x', channelBinding: 'require' }));
    expect(error).toMatchObject({ code: 'WK_AUTHENTICATION' });
    expect(error.message).toMatch(/did not offer .* channel binding$/);
  });
});

/** Streams nothing over TLS. */
function streaming(socket: Socket): { socket: Socket; script: ScriptedConnection } {
  const script = new ScriptedConnection(secured(socket));
  script.startStream().catch(() => {});
  return { socket, script };
}

test.each<[string, (socket: Socket) => void, string]>([
  ['resets the handshake', (s) => s.write('S', () => s.resetAndDestroy()), 'WK_CONNECTION'],
  ['closes in the handshake', (s) => s.end('S'), 'WK_CONNECTION'],
  ['has lost its TLS', (s) => s.end('N'), 'WK_TLS'],
  [
    'refuses our handshake',
    (s) => s.write('S', () => s.once('data', () => s.end(alert))),
    'WK_TLS',
  ],
])(
  'a receiver that has streamed comes back to a server that %s once',
  async (_what, talk, code) => {
    let connections = 0;
    const streams: ReturnType<typeof streaming>[] = [];
    const port = await listen((socket) => {
      connections += 1;
      if (connections === 2) talk(socket);
      else socket.write('S', () => streams.push(streaming(socket)));
    });
    const abort = new AbortController();
    const codes: string[] = [];
    const receiver = new WalReceiver({
      connection: settingsFor('127.0.0.1', port, { sslMode: 'require' }),
      directory: archiveDirectory(),
      statusInterval: 100,
      retryDelay: 1,
    });
    receiver.on('disconnect', ({ error }) => codes.push(error.code));
    const run = receiver.run(abort.signal);
    const ended = run.catch(() => {});
    const replies = (i: number) => () => (streams[i]?.script.statusReplies.length ?? 0) > 0;
    await Promise.race([waitFor(replies(0)), ended]);
    streams[0]?.socket.resetAndDestroy();
    await Promise.race([waitFor(replies(1)), ended]);
    streams[1]?.socket.resetAndDestroy();
    abort.abort();
    await run;
    expect(codes.slice(0, 2)).toEqual(['WK_CONNECTION', code]);
  },
);

describe('in the stream', () => {
  /** Streams some WAL over TLS; `spoil` gets the socket below TLS, and TLS itself. */
  async function spoiled(spoil: (socket: Socket, tls: TLSSocket) => void) {
    let parts: { socket: Socket; tls: TLSSocket } | undefined;
    const port = await listen((socket) =>
      socket.write('S', () => {
        const tls = secured(socket);
        parts = { socket, tls };
        const script = new ScriptedConnection(tls);
        script
          .startStream()
          .then(() => script.send(backend.xlogData(START, Buffer.alloc(50_000, 1))))
          .catch(() => {});
      }),
    );
    const connection = await open(port);
    expect(connection.tls).toBe(true);
    const recorder = new Recorder();
    await connection.startReplication({ startLsn: START, timeline: 1 }, recorder);
    await recorder.until(() => recorder.length === 50_000);
    if (parts) spoil(parts.socket, parts.tls);
    await waitFor(() => recorder.failure);
    expect(connection.closed).toBe(true);
    expect(recorder.failures).toBe(1);
    return recorder;
  }

  test.each<[string, (socket: Socket, tls: TLSSocket) => void]>([
    ['a reset', (socket) => socket.resetAndDestroy()],
    ['an end without close_notify', (socket) => socket.end()],
    ['close_notify', (_socket, tls) => tls.end()],
    ['an alert in clear', (socket) => socket.write(alert)],
    ['WAL in clear', (socket) => socket.write(backend.xlogData(START, Buffer.alloc(99)))],
    [
      'a record of the right shape and other content',
      (socket) => {
        socket.write(Buffer.concat([Buffer.from([0x17, 3, 3, 0, 64]), Buffer.alloc(64, 7)]));
      },
    ],
    [
      'half a record and the end',
      (socket) => {
        socket.end(Buffer.concat([Buffer.from([0x17, 3, 3, 1, 0]), Buffer.alloc(64, 7)]));
      },
    ],
  ])('%s: one typed error, and no byte more', async (_what, spoil) => {
    const recorder = await spoiled(spoil);
    expect(recorder.failure).toMatchObject({ code: 'WK_CONNECTION', retryable: true });
    expect(recorder.bytes.equals(Buffer.alloc(50_000, 1))).toBe(true);
  });
});
