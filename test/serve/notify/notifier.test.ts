import { afterEach, expect, it } from 'vitest';
import { Notifier } from '../../../src/serve/notify/notifier.js';
import type { LogEntry, ServerStatus } from '../../../src/serve/status.js';
import { waitFor } from '../../support/wait.js';
import { Endpoint, SECRET } from './endpoint.js';
import { serverOf } from './statuses.js';

const open: Notifier[] = [];
afterEach(() => {
  for (const notifier of open.splice(0)) notifier.end();
});

function notifying(servers: ServerStatus[]) {
  const log: LogEntry[] = [];
  const now = { servers, good: true };
  const facts = { servers: () => now.servers, configIsGood: () => now.good };
  const notifier = new Notifier(facts, (entry) => void log.push(entry));
  open.push(notifier);
  return { notifier, log, now };
}

const late = serverOf({ rpoSeconds: 31 });

it('tells the log and the webhook of the same, by itself', async () => {
  const endpoint = await Endpoint.open();
  const { notifier, log, now } = notifying([serverOf()]);
  notifier.apply({ webhook: { urlFile: endpoint.urlFile, on: ['rpo', 'reload'] } });
  now.servers = [late];
  now.good = false;
  await waitFor(() => endpoint.asked.length === 2);
  expect(endpoint.messages.map(({ id }) => id)).toEqual(['shop:rpo', ':reload']);
  expect(log.map(({ level, event, server }) => [level, event, server])).toEqual([
    ['error', 'trouble', 'shop'],
    ['warning', 'trouble', undefined],
  ]);
  expect(notifier.troubles('shop')).toMatchObject([{ kind: 'rpo', severity: 'critical' }]);
  expect(notifier.troubles('shop')[0]).not.toHaveProperty('id');
  expect(notifier.troubles('other')).toEqual([]);
});

it('tells a webhook that comes later of what is wrong already', async () => {
  const endpoint = await Endpoint.open();
  const { notifier } = notifying([late]);
  notifier.apply({});
  notifier.look();
  const webhook = { urlFile: endpoint.urlFile, on: ['rpo'] as const };
  notifier.apply({ webhook });
  await waitFor(() => endpoint.asked.length === 1);
  // The same is not another one.
  notifier.apply({ webhook: { ...webhook } });
  notifier.look();
  notifier.apply({ webhook: { ...webhook, on: ['rpo', 'gap'] } });
  await waitFor(() => endpoint.asked.length === 2);
  expect(endpoint.messages).toMatchObject([{ id: 'shop:rpo' }, { id: 'shop:rpo' }]);
});

it('sends nothing any more at its end', async () => {
  const endpoint = await Endpoint.open();
  endpoint.answer = () => {};
  const { notifier, log } = notifying([serverOf()]);
  notifier.apply({ heartbeat: { urlFile: endpoint.urlFile, every: 1 } });
  await waitFor(() => endpoint.asked.length === 1);
  notifier.end();
  await waitFor(() => endpoint.hungUp === 1);
  expect(log).toEqual([]);
  expect(JSON.stringify(log)).not.toContain(SECRET);
});
