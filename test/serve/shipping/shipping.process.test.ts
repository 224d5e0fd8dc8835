import { spawn } from 'node:child_process';
import { afterEach, expect, it } from 'vitest';
import type { LaunchShipper } from '../../../src/serve/shipping/child.js';
import { Shipping } from '../../../src/serve/shipping/shipping.js';
import type { LogEntry, StoreStatus } from '../../../src/serve/status.js';
import { signal } from '../../support/processes.js';
import { killAtEnd } from '../../support/scratch.js';
import { waitFor } from '../../support/wait.js';
import { news, type Played, stage, workOf } from './stage.js';

const open: Shipping[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((shipping) => shipping.end()));
});

async function shipping(stores: Record<string, object> = { minio: {} }) {
  const played = stage();
  const part = new Shipping(played.tell, played.launch);
  open.push(part);
  await part.apply([workOf('shop', stores)]);
  await count(played.children, Object.keys(stores).length);
  const status = (name = 'minio'): StoreStatus =>
    part.status('shop').stores?.find((store) => store.name === name) as StoreStatus;
  return { ...played, part, status };
}

function count(children: Played[], number: number): Promise<unknown> {
  return waitFor(() => children.length === number, { what: `${number} processes` });
}

const told = (log: readonly LogEntry[], event: string): number =>
  log.filter((entry) => entry.event === event).length;

it('ships to each store of each server by a process of its own, with its keys only', async () => {
  const { children, part, status } = await shipping({
    minio: { accessKeyFile: '/id', secretKeyFile: '/key', compress: 'zstd:3', identityFile: '/i' },
    vault: { retention: { at: '* * * * *', redundancy: 2 } },
  });
  expect(children.map(({ start }) => start)).toEqual([
    {
      ...{ name: 'minio', place: 's3://minio/shop', directory: '/shop', recipients: [] },
      ...{ accessKeyFile: '/id', secretKeyFile: '/key', compression: { method: 'zstd', level: 3 } },
    },
    { name: 'vault', place: 's3://vault/shop', directory: '/shop', recipients: [] },
  ]);
  children[1]?.say(news({ age: 0, queueSegments: 0, queueBytes: 0, shippedLsn: '0/3000000' }));
  expect(status('minio')).toMatchObject({
    state: 'starting',
    totals: { segments: 0, failures: 0 },
  });
  expect(status('vault')).toMatchObject({
    ...{ state: 'shipping', queueSegments: 0, queueBytes: 0, rpoSeconds: 0 },
    shippedLsn: '0/3000000',
  });
  expect(part.status('other')).toEqual({});
});

it('is at 0 only while the process says so, and rises from then on', async () => {
  const { children, log, status } = await shipping();
  const [first] = children;
  expect(status().rpoSeconds).toBeGreaterThan(0);
  first?.say(news({ age: 0, segments: 3 }));
  expect(status().rpoSeconds).toBe(0);
  first?.say(news({ age: 90_000, segments: 3, failures: 2, state: 'away', queueSegments: 2 }));
  expect(status()).toMatchObject({ state: 'away', totals: { segments: 3, failures: 2 } });
  const before = status().rpoSeconds;
  expect(before).toBeGreaterThanOrEqual(90);
  first?.say(news({ age: 0, segments: 5, failures: 2 }));
  first?.end({ how: 'SIGKILL' });
  await waitFor(() => told(log, 'ship-restart') === 1);
  expect(status()).toMatchObject({
    totals: { segments: 5, failures: 3 },
    error: { code: 'WK_PROCESS' },
  });
  await count(children, 2);
  // Nobody says now that all is there.
  await waitFor(() => status().rpoSeconds > 0);
  children[1]?.say(news({ age: 0, segments: 1 }));
  expect(status()).toMatchObject({ rpoSeconds: 0, totals: { segments: 6, failures: 3 } });
  expect(status().error).toBeUndefined();
});

it('counts what a process says at its end', async () => {
  const { children, log, status } = await shipping();
  children[0]?.say(news({ segments: 3 }));
  const snapshot = { state: 'shipping' as const, segments: 5, failures: 1 };
  children[0]?.say({ kind: 'end', snapshot, log: [] });
  children[0]?.end({ how: 'exit code 0' });
  await waitFor(() => told(log, 'ship-restart') === 1);
  expect(status()).toMatchObject({ totals: { segments: 5, failures: 2 } });
});

it('counts what a process did once, also while the next one has said nothing', async () => {
  const { children, log, part, status } = await shipping();
  const totals = { segments: 3, failures: 2 };
  children[0]?.say(news({ segments: 3, failures: 2, queueSegments: 1 }));
  for (let ends = 1; ends < 4; ends++) {
    children.at(-1)?.end({ how: 'SIGKILL' });
    await waitFor(() => told(log, 'ship-restart') === ends);
    part.resume('shop');
    await count(children, ends + 1);
    expect(status()).toMatchObject({
      totals: { ...totals, failures: 2 + ends },
      queueSegments: 1,
    });
  }
});

it.each(['WK_STORE_CONFLICT', 'WK_SYSTEM_IDENTIFIER', 'WK_STORE_UNSUPPORTED', 'WK_USAGE'])(
  'holds a store that ended with %s until somebody resumes it',
  async (code) => {
    const { children, log, part, status } = await shipping();
    const error = { code, message: 'so it is', hint: 'Look.' };
    children[0]?.end({ how: 'exit code 1', error });
    await waitFor(() => status().state === 'held');
    expect(status()).toMatchObject({ error, totals: { failures: 1 } });
    expect(log).toMatchObject([
      {
        ...{ level: 'error', event: 'ship-held', server: 'shop', code },
        message: 'store minio: so it is; nothing more is shipped',
        hint: 'Look. Then: walkeep ctl resume -c FILE shop',
      },
    ]);
    // A reload is no sign that somebody has looked.
    await part.apply([workOf('shop', { minio: {} })]);
    expect(status().state).toBe('held');
    part.resume('shop');
    await count(children, 2);
    children[1]?.say(news({ age: 0 }));
    expect(status()).toMatchObject({ state: 'shipping' });
    expect(status().error).toBeUndefined();
  },
);

it('lets a process go on that is away or holds a file back, and has it try at once on request', async () => {
  const { children, part, status } = await shipping();
  const error = { code: 'WK_CORRUPT_WAL', message: 'damaged' };
  children[0]?.say(news({ state: 'held', error, age: 5000 }));
  expect(status()).toMatchObject({ state: 'held', error });
  expect(children[0]?.stopped).toBe(false);
  part.resume('shop');
  await count(children, 2);
  expect(children[0]?.stopped).toBe(true);
  children[1]?.say(news({ age: 0 }));
  part.resume('shop');
  expect(children[1]?.stopped).toBe(false);
  expect(status()).toMatchObject({ state: 'shipping', totals: { failures: 0 } });
});

it('touches only what changed, and begins nothing before all that changes has ended', async () => {
  const { children, part } = await shipping({ a: {}, b: {}, c: {} });
  const ended: boolean[] = [];
  const watch = (task: Played): void => void task.ended.then(() => ended.push(true));
  for (const child of children) watch(child);
  await part.apply([
    workOf('shop', {
      a: { identityFile: '/new', retention: { at: '* * * * *' } },
      b: { compress: 'none' },
    }),
    workOf('ledger', { d: {} }),
  ]);
  expect(ended).toHaveLength(2);
  await count(children, 5);
  expect(children.map(({ stopped }) => stopped)).toEqual([false, true, true, false, false]);
  expect(part.status('shop').stores?.map(({ name }) => name)).toEqual(['a', 'b']);
  expect(part.status('ledger').stores?.map(({ name }) => name)).toEqual(['d']);
});

it('ends, also while it waits to begin again', async () => {
  const { children, log, part } = await shipping();
  const ended: unknown[] = [];
  children[0]?.end({ how: 'SIGKILL' });
  await waitFor(() => told(log, 'ship-restart') === 1);
  await part.end();
  for (const child of children) void child.ended.then((end) => ended.push(end));
  await waitFor(() => ended.length === children.length);
});

it('tells of a program that cannot be begun, and tries again', async () => {
  const played = stage();
  let failures = 0;
  const launch: LaunchShipper = (task, hear) => {
    failures += 1;
    if (failures === 1) throw new Error('no memory');
    return played.launch(task, hear);
  };
  const part = new Shipping(played.tell, launch);
  open.push(part);
  await part.apply([workOf('shop', { minio: {} })]);
  await waitFor(() => told(played.log, 'ship-restart') === 1);
  expect(part.status('shop').stores?.[0]?.error).toMatchObject({ message: 'no memory' });
  part.resume('shop');
  await count(played.children, 1);
});

it('ends a process that a signal stopped, and tells of one that is silent', async () => {
  const played = stage();
  const sleeper = spawn('sleep', ['600']);
  killAtEnd(sleeper);
  const { ShippedStore } = await import('../../../src/serve/shipping/shipped-store.js');
  const task = { name: 'minio', place: 's3://b', directory: '/shop', recipients: [] };
  const { launch, tell, children, log } = played;
  const store = new ShippedStore({ server: 'shop', task, launch, tell });
  try {
    await count(children, 1);
    const [child] = children as [Played];
    child.pid = sleeper.pid;
    child.say(news({ age: 0 }));
    await store.look(performance.now());
    expect(store.status.state).toBe('shipping');
    await store.look(performance.now() + 60_000);
    expect(store.status).toMatchObject({ state: 'away', error: { code: 'WK_PROCESS' } });
    child.say(news({ age: 0 }));
    expect(store.status.state).toBe('shipping');
    expect(log.map(({ event }) => event)).toEqual(['ship-silent', 'ship-heard']);
    store.resume();
    expect(child.stopped).toBe(false);
    signal(sleeper.pid as number, 'SIGSTOP');
    await waitFor(async () => {
      await store.look(performance.now() + 60_000);
      return child.killed;
    });
  } finally {
    sleeper.kill('SIGKILL');
    await store.end();
  }
});

it('tells of a process that a disk holds after it was killed, and waits no longer', async () => {
  const { launch, tell, children, log } = stage();
  const { ShippedStore } = await import('../../../src/serve/shipping/shipped-store.js');
  const task = { name: 'minio', place: 's3://b', directory: '/shop', recipients: [] };
  const store = new ShippedStore({ server: 'shop', task, launch, tell });
  await count(children, 1);
  const [child] = children as [Played];
  child.stop = () => child.end({ how: 'SIGKILL', isLeft: true });
  await store.end();
  expect(log).toMatchObject([{ level: 'error', event: 'left', server: 'shop' }]);
  expect(log[0]?.message).toContain('store minio: the process was killed and is not gone');
});

it('ends a process that hangs for who resumes it', async () => {
  const { launch, tell, children } = stage();
  const { ShippedStore } = await import('../../../src/serve/shipping/shipped-store.js');
  const task = { name: 'minio', place: 's3://b', directory: '/shop', recipients: [] };
  const store = new ShippedStore({ server: 'shop', task, launch, tell });
  try {
    await count(children, 1);
    const [child] = children as [Played];
    child.pid = process.pid;
    child.say(news({ age: 0 }));
    await store.look(performance.now() + 60_000);
    expect(store.status.state).toBe('away');
    store.resume();
    expect(child.stopped).toBe(true);
    await count(children, 2);
  } finally {
    await store.end();
  }
});
