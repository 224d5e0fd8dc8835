import { writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Heartbeat, isMet } from '../../../src/serve/notify/heartbeat.js';
import type { LogEntry } from '../../../src/serve/status.js';
import { waitFor } from '../../support/wait.js';
import { Endpoint, SECRET, secretFile } from './endpoint.js';
import { serverOf } from './statuses.js';

const well = [serverOf()];

function beating(urlFile: string, every = 60_000) {
  const log: LogEntry[] = [];
  const heartbeat = new Heartbeat({ urlFile, every }, (entry) => void log.push(entry));
  return { heartbeat, log };
}

it('is met while nothing more could be lost than is allowed, of any server', () => {
  expect(isMet(well)).toBe(true);
  expect(isMet([])).toBe(false);
  for (const bad of [{ rpoSeconds: 30.1 }, { state: 'held' as const }]) {
    expect(isMet([...well, serverOf(bad)])).toBe(false);
  }
  // A connection that breaks is no loss yet.
  expect(isMet([serverOf({ state: 'disconnected', rpoSeconds: 29 })])).toBe(true);
});

it('asks as often as it is to, while it is met', async () => {
  const endpoint = await Endpoint.open();
  const { heartbeat, log } = beating(endpoint.urlFile);
  let clock = 1000;
  for (let n = 1; n <= 3; n += 1) {
    await waitFor(() => {
      heartbeat.look(well, clock);
      return endpoint.asked.length === n;
    });
    heartbeat.look(well, clock + 59_999);
    clock += 60_000;
    // Once one is due, none goes for servers that are not well.
    heartbeat.look([serverOf({ rpoSeconds: 31 })], clock);
    expect(endpoint.asked).toHaveLength(n);
  }
  heartbeat.end();
  expect(endpoint.asked[0]).toMatchObject({ method: 'GET', url: `/${SECRET}` });
  expect(log).toEqual([]);
});

it('tells once that it fails, and once that it does not any more', async () => {
  const endpoint = await Endpoint.open();
  const { heartbeat, log } = beating(endpoint.urlFile, 5);
  const asked = (n: number) =>
    waitFor(() => {
      heartbeat.look(well, performance.now());
      return endpoint.asked.length >= n;
    });
  endpoint.answer = (response) => response.writeHead(500).end();
  await asked(3);
  endpoint.answer = (response) => response.end();
  await asked(5);
  endpoint.answer = (response) => response.destroy();
  await asked(8);
  await waitFor(() => log.length === 3);
  heartbeat.end();
  expect(log.map(({ event, message }) => `${event}: ${message}`)).toEqual([
    'heartbeat-failed: the heartbeat could not be sent: it answered 500; it is tried again',
    'heartbeat: the heartbeat can be sent again',
    'heartbeat-failed: the heartbeat could not be sent: the connection was broken; it is tried again',
  ]);
  expect(JSON.stringify(log)).not.toContain(SECRET);
});

it('reads the address each time, and not what others may read', async () => {
  const endpoint = await Endpoint.open();
  const file = secretFile(endpoint.url, 0o644);
  const { heartbeat, log } = beating(file, 5);
  const look = () => heartbeat.look(well, performance.now());
  await waitFor(() => {
    look();
    return log.length > 0;
  });
  expect(log[0]).toMatchObject({ event: 'heartbeat-failed', code: 'WK_STORAGE' });
  expect(log[0]?.message).toContain('may be read or written by others');
  expect(JSON.stringify(log)).not.toContain(SECRET);
  expect(endpoint.asked).toEqual([]);
  const good = secretFile(endpoint.url);
  const { heartbeat: other } = beating(good, 5);
  const asked = (url: string) =>
    waitFor(() => {
      other.look(well, performance.now());
      return endpoint.asked.some((one) => one.url === url);
    });
  await asked(`/${SECRET}`);
  writeFileSync(good, `${endpoint.url}/new\n`);
  await asked(`/${SECRET}/new`);
  heartbeat.end();
  other.end();
});

it('has one under way at a time', async () => {
  const endpoint = await Endpoint.open();
  const { heartbeat } = beating(endpoint.urlFile, 1);
  const answers: (() => void)[] = [];
  endpoint.answer = (response) => void answers.push(() => response.end());
  await waitFor(() => {
    heartbeat.look(well, performance.now());
    return answers.length === 1;
  });
  for (let i = 0; i < 100; i += 1) heartbeat.look(well, performance.now() + i * 1000);
  answers[0]?.();
  await waitFor(() => {
    heartbeat.look(well, performance.now() + 200_000);
    return answers.length === 2;
  });
  expect(endpoint.asked).toHaveLength(2);
  heartbeat.end();
});
