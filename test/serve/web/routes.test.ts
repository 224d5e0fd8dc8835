import { describe, expect, it } from 'vitest';
import type { ServerStatus } from '../../../src/serve/status.js';
import { Memory, SAMPLE } from '../../../src/serve/web/memory.js';
import { Routes } from '../../../src/serve/web/routes.js';
import { dead, empty, ScriptedFacts, serverOf, withGaps } from './facts.js';

const NOW = Date.now();

function routesOf(...servers: ServerStatus[]) {
  const facts = new ScriptedFacts(servers);
  const routes = new Routes(facts, facts.memory);
  const get = (path: string) => routes.answer(path);
  return { facts, get };
}

/** Text as it is read, without markup. */
const read = (text: string) =>
  text
    .replace(/<title>.*?<\/title>/gs, '')
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ');

describe('pages', () => {
  it('show all servers, and what needs attention', () => {
    const { get, facts } = routesOf(serverOf(NOW), withGaps(NOW, { name: 'ledger' }), empty(NOW));
    const { status, text } = get('/');
    expect(status).toBe(200);
    expect(read(text)).toContain('3 servers');
    expect(read(text)).toContain('Needs attention: ledger');
    expect(read(text)).toContain('The archive is empty: nothing can be restored yet.');
    for (const name of ['shop', 'ledger', 'new']) expect(text).toContain(`href="/server/${name}"`);
    facts.good = false;
    expect(read(get('/').text)).toContain('The configuration was not good');
    facts.all = [serverOf(NOW)];
    facts.good = true;
    expect(read(get('/').text)).toContain('It is well.');
  });

  it('show one server with its gaps as they are listed', () => {
    const server = withGaps(NOW);
    const { get, facts } = routesOf(server);
    facts.note({
      level: 'error',
      event: 'held',
      message: 'WAL is gone',
      server: 'shop',
      code: 'WK_GAP',
    });
    facts.note({ level: 'info', event: 'other', message: 'of another', server: 'ledger' });
    const text = read(get('/server/shop').text);
    for (const { after, before, from, to, segments } of server.archive?.gaps ?? []) {
      for (const time of [after, before]) {
        expect(text).toContain(`${time?.slice(0, 19).replace('T', ' ')} UTC`);
      }
      expect(text).toContain(`${from} to ${to}, ${segments} segments`);
    }
    expect(text).toContain('WAL is gone WK_GAP');
    expect(text).not.toContain('of another');
    expect(text).toContain('PostgreSQL 18 at pg1.example:5432, timeline 2');
  });

  it('say why nothing comes, and what to do', () => {
    const { get } = routesOf(dead(NOW));
    for (const path of ['/', '/server/shop']) {
      const text = read(get(path).text);
      expect(text).toContain('could not connect to');
      expect(text).toContain('Is the server running');
      expect(text).toContain('40 min of at most 30 s');
    }
  });

  it('are found at their own paths only', () => {
    const { get } = routesOf(serverOf(NOW));
    for (const path of [
      ...['/server', '/server/', '/server/none', '/server/shop/', '/server/shop/none', '//', '/x'],
      ...['/server/%', '/server/shop/constructor', '/__proto__', '/health', '/health/shop/x', ''],
    ]) {
      expect({ path, status: get(path).status }).toEqual({ path, status: 404 });
    }
  });

  it('show whatever a name or an error is as text', () => {
    const evil = `"><script>alert(1)</script><img src=x onerror='alert(2)'>\u202e\u0000\n&lt;`;
    const error = { code: evil, message: evil, hint: evil };
    const server = withGaps(NOW, {
      ...{ name: evil, state: 'disconnected', directory: evil, ended: error },
      receiver: {
        ...{ state: 'disconnected', segments: 0, connections: 0, error },
        server: { host: evil, port: 1, version: 180_000, systemId: evil, timeline: 1 },
        members: { [evil]: { covers: null, message: evil } },
      },
      stores: [
        {
          ...{ name: evil, place: evil, state: 'away', since: evil, rpoSeconds: 1, error },
          totals: { segments: 0, failures: 0 },
        },
      ],
    });
    const { archive } = server;
    if (!archive) throw new Error('no archive');
    archive.error = error;
    archive.places.push({ place: evil, error });
    archive.besideWindows.push({ from: evil, to: evil, backup: evil, place: evil, timeline: 1 });
    archive.backups[0] = {
      id: evil,
      place: evil,
      type: 'full',
      state: evil as 'failed',
      kept: false,
      reaches: [],
      why: evil,
    };
    archive.gaps.push({
      ...{ timeline: 1, from: evil, to: evil, segments: 1, accepted: false, after: evil },
    });
    archive.slot = { readAt: evil, name: evil, exists: true, walStatus: evil };
    const { get, facts } = routesOf(server);
    facts.note({
      level: 'error',
      event: evil,
      message: evil,
      server: evil,
      code: evil,
      hint: evil,
    });
    for (const path of ['/', `/server/${encodeURIComponent(evil)}`]) {
      const { status, text } = get(path);
      expect(status).toBe(200);
      expect(text.match(/<script[^>]*>/g)).toEqual(['<script src="/script.js" defer>']);
      expect(text).not.toMatch(/<img|\u202e/);
      expect(text).not.toContain('\u0000');
      // Nothing inline that the policy would stop.
      expect(text.replace(/"[^"]*"/g, '')).not.toMatch(/<[^>]* (style|on\w+)=/);
    }
  });
});

describe('health', () => {
  const health = (more: Partial<ServerStatus>) => {
    const { status, text } = routesOf(serverOf(NOW, more)).get('/health/shop');
    return [status, text];
  };

  it('is good only while WAL streams and no more than allowed could be lost', () => {
    expect(health({})).toEqual([200, 'ok\n']);
    expect(health({ rpoSeconds: 30 })).toEqual([200, 'ok\n']);
    expect(health({ rpoSeconds: 30.2 })[0]).toBe(503);
    const states: ServerStatus['state'][] = [
      ...(['starting', 'connecting', 'disconnected', 'restarting'] as const),
      ...(['held', 'paused', 'stopping'] as const),
    ];
    for (const state of states)
      expect(health({ state })).toEqual([503, expect.stringContaining(state)]);
    const ended = { code: 'WK_GAP', message: 'WAL is missing\u001b[2J' };
    expect(health({ state: 'held', ended })).toEqual([
      503,
      'held: WK_GAP: WAL is missing\\u001b[2J\n',
    ]);
    expect(routesOf().get('/health/shop').status).toBe(404);
  });

  it('says what is wrong now, and not what was before', () => {
    const ended = { code: 'WK_PROCESS', message: 'the receiver ended' };
    const error = { code: 'WK_CONNECTION', message: 'refused' };
    const receiver = { state: 'disconnected' as const, segments: 0, connections: 1, error };
    const told = (state: ServerStatus['state']) => health({ state, ended, receiver })[1];
    expect(told('disconnected')).toBe('disconnected: WK_CONNECTION: refused\n');
    expect(told('held')).toBe('held: WK_PROCESS: the receiver ended\n');
    expect(told('paused')).toBe('paused\n');
  });
});

it('gives the status as JSON', () => {
  const server = serverOf(NOW, { name: 'a\u202eb' });
  const { type, text } = routesOf(server).get('/status.json');
  expect(type).toBe('application/json; charset=utf-8');
  expect(text).not.toContain('\u202e');
  expect(JSON.parse(text)).toMatchObject({ servers: [JSON.parse(JSON.stringify(server))] });
});

describe('memory', () => {
  it('keeps an hour of lag and some entries, and forgets who is gone', () => {
    const memory = new Memory();
    const [shop, ledger] = [serverOf(NOW), serverOf(NOW, { name: 'ledger' })];
    for (let i = 0; i < 1000; i += 1) memory.sample([shop, ledger], NOW + i * SAMPLE);
    const lag = memory.lag('shop');
    expect(lag.length).toBe(720);
    expect(lag.at(-1)?.at).toBe(NOW + 999 * SAMPLE);
    for (let i = 0; i < 100; i += 1) {
      for (const server of ['shop', 'ledger']) {
        memory.note({ level: 'info', event: 'e', message: `${i}`, server });
      }
    }
    expect(memory.events('shop').length).toBe(50);
    expect(memory.events('shop').at(-1)?.entry.message).toBe('99');
    memory.sample([shop], NOW);
    expect([memory.lag('ledger'), memory.events('ledger')]).toEqual([[], []]);
    expect(memory.events('shop').length).toBe(50);
  });
});
