import { readFileSync } from 'node:fs';
import { createServer as createSecure } from 'node:https';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { send } from '../../../src/serve/notify/send.js';
import { CertificateAuthority } from '../../support/certificates.js';
import { scratchDir } from '../../support/scratch.js';
import { Endpoint, SECRET } from './endpoint.js';

const { signal } = new AbortController();
const closing: Server[] = [];
const sockets = new Set<Socket>();
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  for (const server of closing.splice(0)) server.close();
});

async function listening(server: Server): Promise<number> {
  closing.push(server);
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return (server.address() as AddressInfo).port;
}

/** An address that does with a connection what a test says. */
async function raw(serve: (socket: Socket) => void): Promise<string> {
  return `http://127.0.0.1:${await listening(createServer(serve))}/${SECRET}`;
}

/** Why it failed; the address is nowhere in it. */
async function fault(url: string, patience = 60_000): Promise<string> {
  const error = await send({ url, signal, patience }).then(
    () => undefined,
    (e: Error) => e,
  );
  if (!error) return 'sent';
  const all = [error.message, error.stack, JSON.stringify(error), String(error.cause)].join('\n');
  expect(all).not.toContain(SECRET);
  expect(all).not.toMatch(/127\.0\.0\.1|\.invalid|localhost/);
  return error.message;
}

it('asks with GET, or sends JSON', async () => {
  const endpoint = await Endpoint.open();
  await send({ url: endpoint.url, signal });
  await send({ url: endpoint.url, body: '{"ä":1}', signal });
  expect(endpoint.asked).toMatchObject([
    { method: 'GET', url: `/${SECRET}`, body: '' },
    { method: 'POST', body: '{"ä":1}', headers: { 'content-type': 'application/json' } },
  ]);
  expect(endpoint.asked[0]?.headers['user-agent']).toMatch(/^walkeep\//);
});

it('says what was answered', async () => {
  const endpoint = await Endpoint.open();
  for (const [status, text] of [
    [204, 'sent'],
    [500, 'it answered 500'],
    [404, 'it answered 404'],
  ] as const) {
    endpoint.answer = (response) => response.writeHead(status).end();
    expect(await fault(endpoint.url)).toBe(text);
  }
});

it('goes nowhere else', async () => {
  const [endpoint, other] = [await Endpoint.open(), await Endpoint.open()];
  for (const status of [301, 302, 307, 308]) {
    endpoint.answer = (response) => response.writeHead(status, { Location: other.url }).end();
    expect(await fault(endpoint.url)).toBe(`it leads elsewhere (HTTP status ${status})`);
  }
  expect(other.asked).toEqual([]);
});

it('waits for none that hangs, or answers a byte at a time', async () => {
  const late = 'no answer within 0.2 s';
  const timers: NodeJS.Timeout[] = [];
  expect(await fault(await raw(() => {}), 200)).toBe(late);
  const drip = await raw((socket) => {
    socket.write('HTTP/1.1 200 OK\r\n');
    timers.push(setInterval(() => socket.write('X: y\r\n'), 20));
  });
  expect(await fault(drip, 200)).toBe(late);
  // What it says is known with the head of the answer: the rest may take for ever.
  const body = await raw((socket) => {
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n');
    timers.push(setInterval(() => socket.write('x'), 20));
  });
  expect(await fault(body)).toBe('sent');
  for (const timer of timers) clearInterval(timer);
});

it('says why nobody could be asked, and not whom', async () => {
  // What is read to its end resets no connection: the answer gets there.
  const says = (words: string) => raw((socket) => void socket.resume().write(words));
  expect(await fault(await says('SSH-2.0-x\r\n\r\n'))).toMatch(/^its answer is no HTTP \(HPE_/);
  expect(await fault(await raw((socket) => socket.resetAndDestroy()))).toBe(
    'the connection was broken',
  );
  // Nobody listens on the first port.
  expect(await fault(`http://127.0.0.1:1/${SECRET}`)).toBe('the connection was refused');
  expect(await fault(`http://${SECRET}.invalid/`, 5000)).toMatch(
    /^(its name (is not known|could not be looked up)|it cannot be reached|no answer within 5 s)$/,
  );
  for (const url of [SECRET, `file:///${SECRET}`, `ftp://${SECRET}/`, `http://${SECRET}:99999/`]) {
    expect(await fault(url)).toBe('it is no http or https address');
  }
  expect(await fault(`http://%zz:${SECRET}@127.0.0.1/`)).toMatch(/^it (is no|could not)/);
});

it('takes no certificate that is not good', async () => {
  const ca = await CertificateAuthority.create(scratchDir('ca'));
  const { cert, key } = await ca.issue('elsewhere', ['DNS:elsewhere.invalid']);
  const options = { cert: readFileSync(cert), key: readFileSync(key) };
  const asked: string[] = [];
  const server = createSecure(options, ({ url = '' }, response) => {
    asked.push(url);
    response.end();
  });
  const url = `https://127.0.0.1:${await listening(server)}/${SECRET}`;
  expect(await fault(url)).toMatch(/^TLS failed \([A-Z_]+\)$/);
  const plain = await raw((socket) => void socket.resume().write('this is no TLS at all'));
  expect(await fault(plain.replace('http', 'https'))).toMatch(
    /^(TLS failed|it could not be asked) \([A-Z_]+\)$/,
  );
  expect(asked).toEqual([]);
});

it('ends when it is told to', async () => {
  const endpoint = await Endpoint.open();
  const stop = new AbortController();
  endpoint.answer = () => stop.abort(new Error('over'));
  await expect(send({ url: endpoint.url, signal: stop.signal })).rejects.toThrow('over');
  await expect(send({ url: endpoint.url, signal: stop.signal })).rejects.toThrow('over');
  expect(endpoint.asked).toHaveLength(1);
});
