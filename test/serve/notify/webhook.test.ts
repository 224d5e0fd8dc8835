import { hostname } from 'node:os';
import { afterEach, expect, it } from 'vitest';
import type { PresentTrouble } from '../../../src/serve/notify/watch.js';
import { Webhook, type WebhookOptions } from '../../../src/serve/notify/webhook.js';
import type { LogEntry } from '../../../src/serve/status.js';
import { waitFor } from '../../support/wait.js';
import { Endpoint, SECRET } from './endpoint.js';
import { ago, NOW } from './statuses.js';

const open: Webhook[] = [];
afterEach(() => {
  for (const webhook of open.splice(0)) webhook.end();
});

async function hooked(on: WebhookOptions['on'] = ['gap', 'rpo', 'reload']) {
  const endpoint = await Endpoint.open();
  const log: LogEntry[] = [];
  const webhook = new Webhook(
    { urlFile: endpoint.urlFile, on },
    (entry) => void log.push(entry),
    1,
  );
  open.push(webhook);
  const begin = (...begun: PresentTrouble[]) => webhook.note({ begun, over: [] }, NOW);
  const end = (...over: PresentTrouble[]) => webhook.note({ begun: [], over }, NOW);
  const done = () => waitFor(() => webhook.waiting === 0);
  return { endpoint, log, webhook, begin, end, done };
}

const gap = (server = 'shop', text = 'WAL is missing'): PresentTrouble => ({
  ...{ id: `${server}:gap`, server, kind: 'gap', severity: 'critical', text, since: ago(1000) },
});
const told = ({ messages }: Endpoint) => messages.map(({ event, id }) => `${event} ${id}`);

it('tells of the begin and of the end', async () => {
  const { endpoint, begin, end, done } = await hooked();
  begin(gap());
  await done();
  end(gap());
  await done();
  const both = {
    ...{ version: 1, id: 'shop:gap', server: 'shop', kind: 'gap', about: null },
    ...{ severity: 'critical', text: 'WAL is missing', since: ago(1000) },
    ...{ at: new Date(NOW).toISOString(), host: hostname() },
  };
  expect(endpoint.messages).toEqual([
    { ...both, event: 'begin' },
    { ...both, event: 'end' },
  ]);
  expect(endpoint.asked[0]).toMatchObject({ method: 'POST', url: `/${SECRET}` });
});

it('tells only of what it is asked for', async () => {
  const { endpoint, begin, done } = await hooked(['reload']);
  const { server, ...all } = gap();
  begin(gap(), { ...all, id: ':reload', kind: 'reload' });
  await done();
  expect(endpoint.messages).toMatchObject([{ kind: 'reload', server: null }]);
});

it('tries again until it is taken, and tells once that it does', async () => {
  const { endpoint, log, begin, done } = await hooked();
  const answers = [500, 503, 429, 302, 404];
  endpoint.answer = (response) => {
    const status = answers.shift();
    if (status === undefined) response.end();
    else response.writeHead(status, { Location: '/' }).end();
  };
  begin(gap());
  await done();
  expect(told(endpoint)).toEqual(Array(6).fill('begin shop:gap'));
  expect(log.map(({ event }) => event)).toEqual(['webhook-failed', 'webhook']);
  expect(JSON.stringify(log)).not.toContain(SECRET);
});

it('tells the newest of each trouble, and nothing of what nobody heard of', async () => {
  const { endpoint, webhook, begin, end, done } = await hooked();
  let isDown = true;
  endpoint.answer = (response) => (isDown ? response.destroy() : void response.end());
  begin(gap('a'));
  await waitFor(() => endpoint.asked.length > 0);
  // It may have arrived: its end is told. What was not even tried is over without a word.
  begin(gap('b'));
  end(gap('b'));
  expect(webhook.waiting).toBe(1);
  end(gap('a'));
  begin(gap('c', 'first'));
  begin(gap('c', 'then'));
  isDown = false;
  await done();
  const after = endpoint.messages.slice(endpoint.messages.findIndex(({ id }) => id !== 'a:gap'));
  expect(told(endpoint).filter((one) => one.startsWith('end'))).toEqual(['end a:gap']);
  expect(after.filter(({ id }) => id === 'c:gap').at(-1)).toMatchObject({ text: 'then' });
});

it('keeps no more than some, however many come', async () => {
  const { endpoint, log, webhook, begin, done } = await hooked();
  let isDown = true;
  endpoint.answer = (response) => (isDown ? response.destroy() : void response.end());
  begin(...Array.from({ length: 2000 }, (_, i) => gap(`s${i}`)));
  expect(webhook.waiting).toBe(500);
  isDown = false;
  await done();
  await waitFor(() => log.some(({ event }) => event === 'webhook-lost'));
  expect(log.at(-1)?.message).toBe('1500 messages for the webhook were given up');
});

it('holds nobody up while it hangs', async () => {
  const { endpoint, webhook, begin } = await hooked();
  endpoint.answer = () => {};
  begin(gap('a'));
  await waitFor(() => endpoint.asked.length === 1);
  begin(gap('b'));
  expect(webhook.waiting).toBe(2);
  webhook.end();
});
