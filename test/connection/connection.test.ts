import { createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import { parseServerVersion } from '../../src/connection/connection.js';
import type { ConnectionSettings } from '../../src/connection/conninfo/settings.js';
import type { WalStream } from '../../src/connection/wal-stream.js';
import {
  AuthenticationError,
  ConnectionError,
  InternalError,
  ProtocolError,
  ServerError,
  TimeoutError,
  TlsError,
} from '../../src/errors.js';
import { parseLsn } from '../../src/lsn.js';
import { backend, type Script, ScriptedServer } from '../support/scripted-server.js';
import { Recorder, rejection, settingsFor } from './fixtures.js';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** A server that understands nothing: `onSocket` does it all. */
async function rawServer(onSocket: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as { port: number }).port;
}

/** Answers the first bytes of every client with `reply`, then does nothing, or closes. */
const answering = (reply: Buffer, close = false) =>
  rawServer((socket) => {
    socket.once('data', () => {
      if (close) socket.end(reply);
      else socket.write(reply);
    });
  });

async function scripted(script: Script): Promise<ScriptedServer> {
  const server = await ScriptedServer.listen(script);
  cleanups.push(() => server.close());
  return server;
}
const open = (port: number, more: Partial<ConnectionSettings> = {}) =>
  connect(settingsFor('127.0.0.1', port, more));
const start = parseLsn('0/3000000');

describe('startup', () => {
  test('garbage is one typed line', async () => {
    const port = await answering(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), true);
    const error = await rejection(open(port));
    expect(error).toBeInstanceOf(ProtocolError);
    expect(error.message).not.toContain('\n');
    expect(error.message).toMatch(/^connection to server at "127.0.0.1", port \d+ failed: invalid/);
    const tls = await rejection(open(port, { sslMode: 'require' }));
    expect(tls).toBeInstanceOf(ProtocolError);
    expect(tls.message).toContain('received invalid response to SSL negotiation: "H"');
  });

  test('a server that says nothing ends at the timeout, with and without TLS', async () => {
    const port = await rawServer(() => {});
    for (const sslMode of ['disable', 'prefer', 'require'] as const) {
      const error = await rejection(open(port, { sslMode, connectTimeout: 50 }));
      expect(error).toBeInstanceOf(TimeoutError);
      expect(error.message).toMatch(/ failed: timeout expired$/);
    }
  });

  test('a timeout longer than any timer of Node.js is a long one', async () => {
    const server = await scripted(async (c) => {
      await c.accept();
      await c.nextOf('X').catch(() => {});
    });
    const warnings: string[] = [];
    const onWarning = ({ name }: Error) => void warnings.push(name);
    process.on('warning', onWarning);
    const connection = await open(server.port, { connectTimeout: 1e12 });
    await connection.close();
    // Node.js tells them in the next turn.
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });

  test('an abort signal ends a silent attempt', async () => {
    const controller = new AbortController();
    const port = await rawServer(() => controller.abort());
    const attempt = connect(settingsFor('127.0.0.1', port), { signal: controller.signal });
    await expect(attempt).rejects.toMatchObject({ name: 'AbortError' });
    const late = connect(settingsFor('127.0.0.1', port), { signal: controller.signal });
    await expect(late).rejects.toMatchObject({ name: 'AbortError' });
  });

  test('an early close is a connection error', async () => {
    const port = await answering(Buffer.alloc(0), true);
    for (const sslMode of ['disable', 'require'] as const) {
      const error = await rejection<ConnectionError>(open(port, { sslMode }));
      expect(error).toBeInstanceOf(ConnectionError);
      expect(error.message).toMatch(/failed: server closed the connection unexpectedly$/);
    }
  });

  test('an error before the close is what is reported', async () => {
    const refusal = backend.errorResponse('53300', 'too many clients', {}, 'FATAL');
    const port = await answering(refusal, true);
    const error = await rejection<ServerError>(open(port));
    expect(error).toBeInstanceOf(ServerError);
    expect(error.sqlstate).toBe('53300');
    expect(error.message).toMatch(/failed: FATAL: {2}too many clients$/);
  });

  test('bytes behind the S are refused: they came in clear', async () => {
    const stuffed = Buffer.concat([Buffer.from('S'), backend.authenticationOk()]);
    const error = await rejection(open(await answering(stuffed), { sslMode: 'require' }));
    expect(error).toBeInstanceOf(ProtocolError);
    expect(error.message).toContain('received unencrypted data after SSL response');
  });

  test('a TLS handshake that is none is a TLS error; N ends require and not prefer', async () => {
    const bad = await rawServer((socket) => {
      socket.once('data', () => {
        socket.write('S');
        socket.once('data', () => socket.write('no handshake at all'));
      });
    });
    expect(await rejection(open(bad, { sslMode: 'require' }))).toBeInstanceOf(TlsError);
    const server = await scripted((c) => c.accept());
    const refused = await rejection(open(server.port, { sslMode: 'require' }));
    expect(refused).toBeInstanceOf(TlsError);
    expect(refused.message).toContain('server does not support SSL, but SSL was required');
    (await open(server.port, { sslMode: 'prefer' })).destroy();
  });

  test('an error in answer to SSLRequest is not shown', async () => {
    const port = await answering(backend.errorResponse('XX000', 'injected'), true);
    const error = await rejection(open(port, { sslMode: 'require' }));
    expect(error.message).toMatch(/server sent an error response during SSL exchange$/);
  });

  test('methods that we do not have', async () => {
    const cases: [number, RegExp][] = [
      [7, /GSSAPI authentication not supported/],
      [9, /SSPI authentication not supported/],
      [2, /authentication method 2 not supported/],
    ];
    for (const [method, message] of cases) {
      const error = await rejection(open(await answering(backend.authentication(method))));
      expect(error).toBeInstanceOf(AuthenticationError);
      expect(error.message).toMatch(message);
    }
  });

  test('the SASL offers that we refuse', async () => {
    const offer = (...names: string[]) =>
      answering(backend.authentication(10, Buffer.from(`${names.join('\0')}\0\0`)));
    const password = 'x';
    const plus = await rejection(open(await offer('SCRAM-SHA-256-PLUS'), { password }));
    expect(plus.message).toContain('SCRAM-SHA-256-PLUS authentication over a non-SSL connection');
    const other = await rejection(open(await offer('OAUTHBEARER'), { password }));
    expect(other.message).toContain("none of the server's SASL authentication mechanisms");
  });

  test('a server that does not know the password is found out', async () => {
    const impostor = (final: Buffer) =>
      rawServer((socket) => {
        socket.once('data', () => {
          socket.write(backend.authentication(10, Buffer.from('SCRAM-SHA-256\0\0')));
          socket.once('data', (initial: Buffer) => {
            const nonce = /r=(.*)$/.exec(initial.toString('latin1'))?.[1];
            const first = `r=${nonce}more,s=c2FsdA==,i=4096`;
            socket.write(backend.authentication(11, Buffer.from(first)));
            socket.once('data', () => socket.write(final));
          });
        });
      });
    const wrong = Buffer.from(`v=${Buffer.alloc(32).toString('base64')}`);
    const password = 's3cret';
    const signature = await impostor(backend.authentication(12, wrong));
    const error = await rejection(open(signature, { password }));
    expect(error).toBeInstanceOf(AuthenticationError);
    expect(error.message).toMatch(/incorrect server signature$/);
    expect(JSON.stringify(error) + error.stack).not.toContain(password);
    // Skips its proof.
    const silent = await impostor(backend.authenticationOk());
    const skipped = await rejection(open(silent, { password }));
    expect(skipped.message).toMatch(/server did not complete authentication$/);
  });

  test('an OK of the wrong length is no OK', async () => {
    const port = await answering(backend.authentication(3, Buffer.alloc(4)));
    const error = await rejection<AuthenticationError>(open(port));
    expect(error.needsPassword).toBe(true);
  });

  test('a flood during startup is cut off', async () => {
    const flood = Buffer.concat(
      Array.from({ length: 1500 }, (_, i) => backend.parameterStatus(`p${i}`, 'x')),
    );
    const error = await rejection(open(await answering(flood)));
    expect(error.message).toMatch(/too many parameters reported by server$/);
  });

  test('what is sent: the parameters of the settings', async () => {
    const server = await scripted((c) => c.accept('16.4 (Debian 16.4-1)'));
    const connection = await open(server.port, {
      startup: { options: '-c a=b', client_encoding: 'LATIN1' },
    });
    expect(server.connections[0]?.startup).toEqual({
      user: 'postgres',
      database: 'replication',
      application_name: 'walkeep',
      replication: 'true',
      client_encoding: 'UTF8',
      options: '-c a=b',
    });
    expect(connection.serverVersion).toBe(160004);
    connection.destroy();
  });

  test('the next host when one is starting up, not when one refuses us', async () => {
    const starting = await answering(
      backend.errorResponse('57P03', 'the database system is starting up', {}, 'FATAL'),
    );
    const refusing = await answering(
      backend.errorResponse('28P01', 'password authentication failed', {}, 'FATAL'),
    );
    const good = await scripted((c) => c.accept());
    const at = (...ports: number[]) => ports.map((port) => ({ host: '127.0.0.1', port }));
    const connection = await open(0, { targets: at(starting, good.port) });
    expect(connection.target.port).toBe(good.port);
    connection.destroy();
    const error = await rejection(open(0, { targets: at(starting, refusing, good.port) }));
    expect(error).toBeInstanceOf(AuthenticationError);
    expect(error.message.split('\n')).toHaveLength(2);
    expect(good.connections).toHaveLength(1);
  });

  test('notices go to the caller', async () => {
    const notices: string[] = [];
    const server = await scripted(async (c) => {
      c.send(backend.noticeResponse('careful'));
      await c.accept();
    });
    const connection = await connect(settingsFor('127.0.0.1', server.port), {
      onNotice: (n) => notices.push(n.message),
    });
    expect(notices).toEqual(['careful']);
    connection.destroy();
  });
});

describe('stream', () => {
  /** Starts a stream; `script` goes on after CopyBothResponse. */
  async function stream(script: Script) {
    const server = await scripted(async (c, index) => {
      await c.startStream();
      await script(c, index);
    });
    const connection = await open(server.port);
    const recorder = new Recorder();
    const wal = await connection.startReplication({ startLsn: start, timeline: 1 }, recorder);
    return { server, connection, recorder, wal: wal as WalStream };
  }
  const row = Buffer.concat([
    backend.rowDescription(['next_tli', 'next_tli_startpos']),
    backend.dataRow(['2', '0/03500000']),
    backend.commandComplete('START_STREAMING'),
  ]);

  test('an error after CopyBothResponse, with the end of the connection behind it', async () => {
    const { recorder, connection, wal } = await stream(async (c) => {
      c.send(backend.errorResponse('57P01', 'terminating connection', {}, 'FATAL'));
      c.close();
    });
    await recorder.until(() => recorder.failure !== undefined);
    expect(recorder.failure).toBeInstanceOf(ServerError);
    expect(recorder.failure?.message).toMatch(
      /^unexpected termination of replication stream: FATAL/,
    );
    await expect(wal.finish()).rejects.toBe(recorder.failure);
    expect(recorder.failures).toBe(1);
    connection.destroy();
  });

  test('after a failed stream the next command waits for ReadyForQuery', async () => {
    let ready = (): void => {};
    const { recorder, connection, server } = await stream(async (c) => {
      c.send(backend.errorResponse('58P01', 'gone'));
      ready = () => c.send(backend.readyForQuery());
      await c.serve();
    });
    await recorder.until(() => recorder.failure !== undefined);
    const system = connection.identifySystem();
    expect(server.connections[0]?.queries.at(-1)).toMatch(/^START_REPLICATION/);
    ready();
    expect((await system).timeline).toBe(1);
    connection.destroy();
  });

  test('a lost connection', async () => {
    for (const how of ['close', 'reset'] as const) {
      const { recorder, connection } = await stream(async (c) => c[how]());
      await recorder.until(() => recorder.failure !== undefined);
      expect(recorder.failure).toBeInstanceOf(ConnectionError);
      expect(connection.closed).toBe(true);
    }
  });

  test('garbage in the stream', async () => {
    const { recorder } = await stream(async (c) => {
      c.send(backend.xlogData(start, Buffer.from('abc')), Buffer.from('\0garbage'));
    });
    await recorder.until(() => recorder.failure !== undefined);
    expect(recorder.failure).toBeInstanceOf(ProtocolError);
    expect(recorder.bytes.toString()).toBe('abc');
  });

  test('a handler that throws is told once, and the connection is gone', async () => {
    const { recorder, connection } = await stream(async (c) => {
      c.send(backend.xlogData(start, Buffer.from('abc')), backend.keepalive(start));
    });
    recorder.onWalMessageEnd = () => {
      throw new RangeError('defect');
    };
    await recorder.until(() => recorder.failure !== undefined);
    expect(recorder.failure).toBeInstanceOf(InternalError);
    expect(recorder.failures).toBe(1);
    expect(recorder.keepalives).toBe(0);
    expect(connection.closed).toBe(true);
  });

  test('the end of a timeline, and streaming again on the same connection', async () => {
    const { recorder, connection, wal, server } = await stream(async (c) => {
      c.send(backend.xlogData(start, Buffer.from('abc')));
      await c.endStream(row, backend.commandComplete('START_REPLICATION'), backend.readyForQuery());
      await c.serve();
      c.send(backend.copyBoth(), backend.keepalive(start, true));
    });
    await recorder.until(() => recorder.serverDone);
    const end = { kind: 'timeline', timeline: 2, startLsn: parseLsn('0/3500000') };
    expect(await wal.finish()).toEqual(end);
    expect(await wal.finish()).toEqual(end);
    const next = new Recorder();
    await connection.startReplication({ startLsn: parseLsn('0/3500000'), timeline: 2 }, next);
    await next.until(() => next.keepalives > 0);
    expect(recorder.failure).toBeUndefined();
    expect(server.errors).toEqual([]);
    connection.destroy();
    expect(next.failures).toBe(0);
  });

  test('a fork on a segment boundary: the row at once, no stream', async () => {
    const server = await scripted(async (c) => {
      await c.accept();
      await c.serve();
      c.send(row, backend.readyForQuery());
      await c.serve();
    });
    const connection = await open(server.port);
    const end = await connection.startReplication({ startLsn: start, timeline: 1 }, new Recorder());
    expect(end).toEqual({ kind: 'timeline', timeline: 2, startLsn: parseLsn('0/3500000') });
    expect((await connection.identifySystem()).timeline).toBe(1);
    connection.destroy();
  });

  test('a shutdown without CopyDone, and the connection closed behind it', async () => {
    const { recorder, wal } = await stream(async (c) => {
      c.send(backend.commandComplete('COPY 0'));
      c.close();
    });
    await recorder.until(() => recorder.serverDone);
    expect(await wal.finish()).toEqual({ kind: 'shutdown' });
    expect(recorder.failures).toBe(0);
  });

  test('finish discards WAL that is under way and sends CopyDone once', async () => {
    const { recorder, wal, server } = await stream(async (c) => {
      c.send(backend.xlogData(start, Buffer.from('abc')));
      await c.nextOf('c');
      c.send(backend.xlogData(start + 3n, Buffer.alloc(100_000)));
      c.send(backend.copyDone(), backend.commandComplete('x'), backend.readyForQuery());
    });
    await recorder.until(() => recorder.length === 3);
    const ends = await Promise.all([wal.finish(), wal.finish()]);
    expect(ends).toEqual([{ kind: 'shutdown' }, { kind: 'shutdown' }]);
    expect(recorder.length).toBe(3);
    wal.sendStatus({ write: 1n, flush: 1n, apply: 0n });
    const sent = server.connections[0]?.received.map((m) => m.type);
    expect(sent?.filter((type) => type === 'c' || type === 'd')).toEqual(['c']);
  });

  test('status replies arrive whole and in order, however fast they are written', async () => {
    const { wal, server, connection } = await stream(async () => {});
    for (let i = 1n; i <= 500n; i++) wal.sendStatus({ write: i, flush: i - 1n, apply: 0n });
    await server.connections[0]?.waitStatus((s) => s.write === 500n);
    const replies = server.connections[0]?.statusReplies ?? [];
    expect(replies.map((r) => r.write)).toEqual(
      Array.from({ length: 500 }, (_, i) => BigInt(i + 1)),
    );
    expect(replies.every((r) => r.flush === r.write - 1n && r.apply === 0n)).toBe(true);
    connection.destroy();
  });

  test('one byte at a time', async () => {
    const data = Buffer.from('0123456789');
    const { recorder, connection } = await stream(async (c) => {
      await c.sendInPieces(
        Buffer.concat([backend.xlogData(start, data), backend.keepalive(start)]),
      );
    });
    await recorder.until(() => recorder.keepalives === 1);
    expect(recorder.bytes).toEqual(data);
    connection.destroy();
  });
});

describe('commands', () => {
  test('a connection that ends in the middle of an answer', async () => {
    const server = await scripted(async (c) => {
      await c.accept();
      await c.nextQuery();
      c.send(backend.rowDescription(['a']));
      c.close();
    });
    const connection = await open(server.port);
    const error = await rejection(connection.query('X'));
    expect(error).toBeInstanceOf(ConnectionError);
    await expect(connection.query('X')).rejects.toBe(error);
  });

  test('an error with the end of the connection behind it, also when idle', async () => {
    const fatal = backend.errorResponse('57P01', 'going down', {}, 'FATAL');
    const server = await scripted(async (c, index) => {
      await c.accept();
      if (index === 0) await c.nextQuery();
      c.send(fatal);
      c.close();
    });
    const busy = await open(server.port);
    await expect(busy.query('X')).rejects.toMatchObject({ code: 'WK_SERVER', sqlstate: '57P01' });
    const idle = await open(server.port);
    const error = await rejection(idle.query('X').then(() => idle.query('X')));
    expect(error).toMatchObject({ code: 'WK_SERVER', sqlstate: '57P01' });
  });

  test('CopyData out of place is refused', async () => {
    const server = await scripted(async (c) => {
      await c.accept();
      await c.nextQuery();
      c.send(backend.copyData(Buffer.from('x')));
    });
    const connection = await open(server.port);
    await expect(connection.query('X')).rejects.toBeInstanceOf(ProtocolError);
  });

  test('close and destroy reject what is under way and can be repeated', async () => {
    const server = await scripted((c) => c.accept());
    const one = await open(server.port);
    const pending = rejection(one.query('X'));
    const closed = [one.close(), one.close()];
    await server.connections[0]?.nextOf('X');
    server.connections[0]?.close();
    await Promise.all(closed);
    expect((await pending).message).toBe('the connection was closed');
    const two = await open(server.port);
    two.destroy();
    two.destroy();
    expect(two.closed).toBe(true);
    await expect(two.query('X')).rejects.toBeInstanceOf(ConnectionError);
  });
});

test.each([
  ['18.4', 180004],
  ['18beta1', 180000],
  ['19devel', 190000],
  ['16.4 (Debian 16.4-1.pgdg120+1)', 160004],
  ['9.6.24', 90624],
  ['', 0],
])('server_version %s', (text, number) => {
  expect(parseServerVersion(text)).toBe(number);
});
