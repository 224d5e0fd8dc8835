import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { request as secureRequest } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { WebConfig } from '../../../src/serve/config/config.js';
import { Access } from '../../../src/serve/web/access.js';
import { WebListener } from '../../../src/serve/web/listener.js';
import { Routes } from '../../../src/serve/web/routes.js';
import { MOST_WATCHERS, Stream } from '../../../src/serve/web/stream.js';
import { Web } from '../../../src/serve/web/web.js';
import { CertificateAuthority, type KeyPair } from '../../support/certificates.js';
import { scratchDir } from '../../support/scratch.js';
import { freePort } from '../../support/server-config.js';
import { waitFor } from '../../support/wait.js';
import { dead, ScriptedFacts, serverOf } from './facts.js';

const NOW = Date.now();
const TOKEN = 'a-token-of-more-than-sixteen';
const LOOPBACK = { host: '127.0.0.1', port: 0 };
const TEXT_HTML = { accept: 'text/html' };

const open: Web[] = [];
afterEach(async () => {
  for (const web of open.splice(0)) await web.close();
});

async function opened(config: Partial<WebConfig> = {}, facts = new ScriptedFacts([serverOf(NOW)])) {
  const web = new Web(facts, facts.memory);
  const change = async (next: WebConfig | undefined) => (await web.change(next)).commit();
  await change({ listen: LOOPBACK, ...config });
  open.push(web);
  const origin = `http://127.0.0.1:${web.port}`;
  const get = (path: string, init?: RequestInit) =>
    fetch(`${origin}${path}`, { redirect: 'manual', ...init });
  return { web, facts, change, origin, get };
}

/** Bytes to a port; resolves with the answer when the connection ends. */
function raw(port: number | undefined, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port as number, '127.0.0.1', () => socket.write(text));
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
  });
}

function secret(text: string): string {
  const file = join(scratchDir('secret'), 'token');
  writeFileSync(file, `${text}\n`, { mode: 0o600 });
  return file;
}

describe('on a loopback address', () => {
  it('answers pages that let nothing in from elsewhere', async () => {
    const { get } = await opened();
    const { status, headers } = await get('/');
    expect(status).toBe(200);
    expect(headers.get('content-security-policy')).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    );
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('referrer-policy')).toBe('no-referrer');
    expect(headers.get('cache-control')).toBe('no-store');
  });

  it('answers GET and HEAD only', async () => {
    const { get } = await opened();
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
      expect((await get('/', { method })).status).toBe(405);
    }
    expect((await get('/login', { method: 'POST', body: 'token=x' })).status).toBe(405);
    const head = await get('/', { method: 'HEAD' });
    expect([head.status, await head.text()]).toEqual([200, '']);
  });

  it('does not answer under a name that only leads here', async () => {
    const { web } = await opened();
    const asked = (host: string) =>
      raw(web.port, `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    expect(await asked('evil.example:80')).toMatch(/^HTTP\/1\.1 421 /);
    expect(await asked('127.0.0.1.evil.example')).toMatch(/^HTTP\/1\.1 421 /);
    expect(await asked('localhost:1234')).toMatch(/^HTTP\/1\.1 200 /);
    expect(await raw(web.port, 'GET / HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 421 /);
  });

  it('refuses what is no request, or too much of one', async () => {
    const { web, get } = await opened();
    expect(await raw(web.port, 'no http\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    const long = 'x'.repeat(9000);
    expect(await raw(web.port, `GET /${long} HTTP/1.1\r\nHost: localhost\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 431 /,
    );
    expect((await get('/')).status).toBe(200);
  });

  it('has small files of its own that are asked for once', async () => {
    const { get } = await opened();
    let bytes = 0;
    for (const [path, type] of [
      ['/style.css', 'text/css'],
      ['/script.js', 'text/javascript'],
      ['/icon.svg', 'image/svg+xml'],
    ] as const) {
      const { status, headers } = await get(path);
      expect(status).toBe(200);
      expect(headers.get('content-type')).toContain(type);
      bytes += Number(headers.get('content-length'));
      const again = await get(path, { headers: { 'if-none-match': headers.get('etag') ?? '' } });
      expect([again.status, await again.text()]).toEqual([304, '']);
    }
    expect(bytes).toBeLessThan(16_000);
  });

  it('answers whatever is wrong with a page, and goes on', async () => {
    const { get, facts } = await opened();
    facts.all = [null as never];
    expect((await get('/')).status).toBe(500);
    facts.all = [serverOf(NOW)];
    expect((await get('/')).status).toBe(200);
  });

  it('says where it cannot listen', async () => {
    const { web } = await opened();
    const again = opened({ listen: { host: '127.0.0.1', port: web.port as number } });
    await expect(again).rejects.toThrow(`could not listen on "127.0.0.1", port ${web.port}`);
  });
});

/** Events of a stream, as far as they came. */
async function watched(url: string, init?: RequestInit) {
  const abort = new AbortController();
  const response = await fetch(url, { ...init, signal: abort.signal });
  const events: { event: string; id: string; data: { parts?: Record<string, string> } }[] = [];
  const reading = (async () => {
    let text = '';
    const decoder = new TextDecoder();
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      text += decoder.decode(chunk, { stream: true });
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const fields = text.slice(0, end).split('\n');
        text = text.slice(end + 2);
        const field = (name: string) =>
          fields.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? '';
        if (field('data') === '') continue;
        const event = field('event') || 'message';
        events.push({ event, id: field('id'), data: JSON.parse(field('data')) });
      }
    }
  })().catch(() => {});
  const stop = () => {
    abort.abort();
    return reading;
  };
  return { status: response.status, events, stop, ended: reading };
}

describe('whoever watches', () => {
  const versionOf = (text: string) => /data-live="([^"]*)"/.exec(text)?.[1] ?? '';

  it('is told what changed since the page was made, and only that', async () => {
    const facts = new ScriptedFacts([serverOf(NOW), dead(NOW, { name: 'orders' })]);
    const { get, origin } = await opened({}, facts);
    const version = versionOf(await (await get('/')).text());
    const { events, stop } = await watched(`${origin}/events?page=/&version=${version}`);
    // Nothing did: only that it lives.
    await waitFor(() => events.length > 0);
    facts.all = [serverOf(NOW, { state: 'held' }), dead(NOW, { name: 'orders' })];
    const change = await waitFor(() =>
      events.find(
        ({ event, data }) => event === 'message' && data.parts?.['s-shop']?.includes('held'),
      ),
    );
    expect(Object.keys(change.data.parts ?? {})).not.toContain('legend');
    expect(change.data.parts?.alarms).toContain('shop');
    expect(change.id).not.toBe(version);
    await stop();
    // A browser that comes again says what it had.
    const headers = { 'last-event-id': version };
    const again = await watched(`${origin}/events?page=/&version=x`, { headers });
    await waitFor(() => again.events.some(({ data }) => data.parts?.['s-shop']?.includes('held')));
    await again.stop();
  });

  it('is told to load all again when servers come and go, and of a program begun again', async () => {
    const { get, origin, facts } = await opened();
    const version = versionOf(await (await get('/')).text());
    const { events, stop } = await watched(`${origin}/events?page=/&version=${version}`);
    facts.all = [serverOf(NOW), serverOf(NOW, { name: 'more' })];
    await waitFor(() => events.some(({ event }) => event === 'reload'));
    await stop();
    const other = await watched(`${origin}/events?page=/&version=other-5`);
    await waitFor(() => other.events.some(({ event }) => event === 'reload'));
    await other.stop();
  });

  it('is not one of too many', async () => {
    const { origin, get } = await opened();
    const url = `${origin}/events?page=/server/shop&version=`;
    const all = await Promise.all(Array.from({ length: MOST_WATCHERS }, () => watched(url)));
    expect(all.every(({ status }) => status === 200)).toBe(true);
    expect((await get('/events?page=/')).status).toBe(503);
    expect((await get('/')).status).toBe(200);
    await Promise.all(all.map(({ stop }) => stop()));
    await waitFor(async () => {
      const one = await watched(url);
      await one.stop();
      return one.status === 200;
    });
    expect((await get('/events?page=/server/none')).status).toBe(404);
  });

  it('is gone with its connection, also where one asked for more on it', async () => {
    const { web } = await opened();
    const socket = connect(web.port as number, '127.0.0.1');
    socket.write('GET /events?page=/ HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(3));
    await waitFor(() => web.watchers === 3);
    socket.destroy();
    await waitFor(() => web.watchers === 0);
  });

  it('is dropped if it does not read', async () => {
    const facts = new ScriptedFacts(
      Array.from({ length: 100 }, (_, i) => serverOf(NOW, { name: `s${i}` })),
    );
    const { web, origin } = await opened({}, facts);
    const socket = connect(web.port as number, '127.0.0.1');
    socket.on('error', () => {});
    const version = versionOf(await (await fetch(origin)).text());
    socket.pause();
    socket.write(`GET /events?page=/&version=${version} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    let i = 0;
    const changing = setInterval(() => {
      i += 1;
      const text = `${i} `.repeat(3000);
      facts.all = facts.all.map((server) => ({
        ...server,
        ...{ state: 'held', ended: { code: 'WK_GAP', message: text } },
      }));
    }, 50);
    // The kernel takes some on behalf of it; then what is left grows, until it is enough.
    await waitFor(() => web.watchers === 1);
    await waitFor(() => web.watchers === 0);
    clearInterval(changing);
    socket.destroy();
  });
});

describe('with a token', () => {
  it('shows nothing to whoever does not give it', async () => {
    const { get } = await opened({ tokenFile: secret(TOKEN) });
    for (const path of [
      '/',
      '/server/shop',
      '/status.json',
      '/health/shop',
      '/events?page=/',
      '/x',
    ]) {
      const { status, headers } = await get(path);
      expect(status).toBe(401);
      expect(headers.get('www-authenticate')).toBe('Bearer');
    }
    const page = await get('/server/shop?x=1', { headers: TEXT_HTML });
    const text = await page.text();
    expect(page.status).toBe(401);
    expect(text).toContain('name="next" value="/server/shop?x=1"');
    expect(text).not.toContain('streaming');
    expect((await get('/style.css')).status).toBe(200);
    const headers = { authorization: `Bearer ${TOKEN}` };
    expect((await get('/health/shop', { headers })).status).toBe(200);
  });

  it('takes it once for a cookie, and goes on to where it was asked for', async () => {
    const { get } = await opened({ tokenFile: secret(TOKEN) });
    const login = (form: Record<string, string>) =>
      get('/login', { method: 'POST', body: new URLSearchParams(form) });
    const { status, headers } = await login({ token: TOKEN, next: '/server/shop' });
    expect([status, headers.get('location')]).toEqual([303, '/server/shop']);
    const cookie = headers.get('set-cookie') ?? '';
    expect(cookie).toMatch(/; HttpOnly; SameSite=Strict$/);
    expect(cookie).not.toContain(TOKEN);
    const page = await get('/server/shop', { headers: { cookie: cookie.split(';')[0] as string } });
    expect(page.status).toBe(200);
    for (const next of ['//evil.example', 'https://evil.example', '/\\evil.example', '/a\r\nx:y']) {
      expect((await login({ token: TOKEN, next })).headers.get('location')).toBe('/');
    }
  });

  it('does not even look at another one for a while after a wrong one', async () => {
    const { get } = await opened({ tokenFile: secret(TOKEN) });
    const login = (token: string) =>
      get('/login', { method: 'POST', body: new URLSearchParams({ token, next: '/' }) });
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => login(`wrong-${i}`)));
    const statuses = answers.map(({ status }) => status);
    // How many were within a wait is a matter of time; that one was is not: they came at once.
    expect(statuses.filter((status) => status === 401 || status === 429).length).toBe(20);
    expect(statuses).toContain(401);
    // In the end the right one is let in again.
    await waitFor(async () => (await login(TOKEN)).status === 303);
    const long = await login('x'.repeat(5000));
    expect(long.status).toBe(413);
  });

  it('is refused at the start if it is short, or others may read it', async () => {
    await expect(opened({ tokenFile: secret('short') })).rejects.toThrow('shorter than 16');
    const file = secret(TOKEN);
    chmodSync(file, 0o644);
    await expect(opened({ tokenFile: file })).rejects.toThrow('may be read or written by others');
  });

  it('can be replaced; who has the old one is out', async () => {
    const tokenFile = secret(TOKEN);
    const { get, change, web } = await opened({ tokenFile });
    const headers = { authorization: `Bearer ${TOKEN}` };
    const listen = { host: '127.0.0.1', port: web.port as number };
    writeFileSync(tokenFile, 'another-one-that-is-long-enough\n');
    // The same configuration as far as it is written; the port is not the one of before.
    expect((await get('/', { headers })).status).toBe(200);
    await change({ listen: LOOPBACK, tokenFile });
    expect(web.port).toBe(listen.port);
    expect((await get('/', { headers })).status).toBe(401);
  });

  it('watches no longer with the old one', async () => {
    const tokenFile = secret(TOKEN);
    const { change, origin, web } = await opened({ tokenFile });
    const headers = { authorization: `Bearer ${TOKEN}` };
    const { ended, stop } = await watched(`${origin}/events?page=/`, { headers });
    // Read again, and the same.
    await change({ listen: LOOPBACK, tokenFile });
    expect(web.watchers).toBe(1);
    writeFileSync(tokenFile, 'another-one-that-is-long-enough\n');
    await change({ listen: LOOPBACK, tokenFile });
    await ended;
    expect(web.watchers).toBe(0);
    await stop();
  });
});

describe('with a certificate', () => {
  let ca: CertificateAuthority;
  let pairs: KeyPair[];
  beforeAll(async () => {
    ca = await CertificateAuthority.create(scratchDir('ca'));
    pairs = [];
    for (const name of ['one', 'two']) pairs.push(await ca.issue(name, ['IP:127.0.0.1']));
  });

  /** A configuration with copies of a pair, which can be replaced. */
  function configured(pair: KeyPair) {
    const dir = scratchDir('tls');
    const tls = { certFile: join(dir, 'crt'), keyFile: join(dir, 'key') };
    const put = (next: KeyPair) => {
      copyFileSync(next.cert, tls.certFile);
      copyFileSync(next.key, tls.keyFile);
      chmodSync(tls.keyFile, 0o600);
    };
    put(pair);
    return { tls, put };
  }

  const subject = (port: number | undefined): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connectTls(
        { host: '127.0.0.1', port: port as number, ca: readFileSync(ca.cert) },
        () => {
          resolve(`${socket.getPeerCertificate().subject.CN}`);
          socket.destroy();
        },
      );
      socket.on('error', reject);
    });

  const status = (port: number | undefined, host = '127.0.0.1'): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const options = {
        host,
        port,
        ca: readFileSync(ca.cert),
        agent: false,
        rejectUnauthorized: host === '127.0.0.1',
      };
      secureRequest({ ...options, headers: { authorization: `Bearer ${TOKEN}` } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on('error', reject)
        .end();
    });

  it('answers on other addresses, to whoever has the token; its cookie is for https', async () => {
    const { tls } = configured(pairs[0] as KeyPair);
    const listen = { host: '0.0.0.0', port: 0 };
    const { web } = await opened({ listen, tls, tokenFile: secret(TOKEN) });
    expect(await subject(web.port)).toBe('one');
    expect(await status(web.port)).toBe(200);
  });

  it('refuses other addresses without a token or without a certificate', async () => {
    const { tls } = configured(pairs[0] as KeyPair);
    const listen = { host: '0.0.0.0', port: 0 };
    const wrong: Partial<WebConfig>[] = [{}, { tls }, { tokenFile: secret(TOKEN) }];
    for (const config of wrong) {
      await expect(opened({ listen, ...config })).rejects.toThrow('no loopback address');
    }
  });

  it('waits for nobody in the middle of a handshake when it closes', async () => {
    const { cert, key } = pairs[0] as KeyPair;
    const facts = new ScriptedFacts([serverOf(NOW)]);
    const tls = { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
    const listener = await WebListener.open({
      ...{ listen: LOOPBACK, guard: { access: new Access(TOKEN, true), tls } },
      ...{ routes: new Routes(facts, facts.memory), stream: new Stream() },
      // Longer than a test may take.
      handshakeTimeout: 3_600_000,
    });
    const silent = connect(listener.port, '127.0.0.1');
    const gone = new Promise<void>((resolve) => silent.once('close', () => resolve()));
    silent.on('error', () => {});
    await new Promise((resolve) => silent.once('connect', resolve));
    // They are accepted in their order.
    expect(await status(listener.port)).toBe(200);
    await listener.close();
    await gone;
  });

  it('takes another certificate while it answers, and keeps the one before if it is none', async () => {
    const { tls, put } = configured(pairs[0] as KeyPair);
    const { web, change } = await opened({ tls, tokenFile: secret(TOKEN) });
    const { port } = web;
    const config = { listen: LOOPBACK, tls, tokenFile: secret(TOKEN) };
    put(pairs[1] as KeyPair);
    await change(config);
    expect(web.port).toBe(port);
    expect(await subject(port)).toBe('two');
    copyFileSync((pairs[0] as KeyPair).cert, tls.certFile);
    await expect(change(config)).rejects.toThrow('are no certificate and key');
    writeFileSync(tls.certFile, 'rubbish');
    await expect(change(config)).rejects.toThrow('are no certificate and key');
    put(pairs[0] as KeyPair);
    chmodSync(tls.keyFile, 0o640);
    if (process.geteuid?.() !== 0) await expect(change(config)).rejects.toThrow('others');
    expect(await subject(port)).toBe('two');
    expect(await status(port)).toBe(200);
  });

  it('goes from http to https at one place, and elsewhere only when that can be had', async () => {
    const port = await freePort();
    const listen = { host: '127.0.0.1', port };
    const { tls } = configured(pairs[0] as KeyPair);
    const { web, change, origin } = await opened({ listen });
    expect((await fetch(origin)).status).toBe(200);
    const tokenFile = secret(TOKEN);
    await change({ listen, tls, tokenFile });
    expect(await status(port)).toBe(200);
    const other = await opened();
    const taken = { host: '127.0.0.1', port: other.web.port as number };
    await expect(change({ listen: taken, tls, tokenFile })).rejects.toThrow('could not listen');
    expect(await status(port)).toBe(200);
    await change({ listen: LOOPBACK, tls, tokenFile });
    expect(web.port).not.toBe(port);
    expect(await status(web.port)).toBe(200);
    await expect(status(port)).rejects.toThrow();
    await change(undefined);
    expect(web.port).toBeUndefined();
  });
});
