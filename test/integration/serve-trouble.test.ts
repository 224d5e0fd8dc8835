import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { SmallDisk } from '../chaos/small-disk.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { PostgresServer } from '../support/postgres.js';
import { childrenOf, isStopped, signal } from '../support/processes.js';
import { archiveDirectory, receive, waitEqual, writeWal } from '../support/receiving.js';
import { entryOf, scraped } from '../support/scraped.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const serverOf = (options: { fresh?: boolean } = {}) =>
  PostgresServer.create({ major: 18, ...options }).then((server) => {
    keep({ [Symbol.asyncDispose]: () => server.destroy() });
    return server;
  });

it('calls no receiver well while a process that does nothing holds its lock', async () => {
  const server = await serverOf();
  const directory = archiveDirectory();
  const holder = receive(directory, server.conninfo(), ['-S', 'walkeep', '--ensure-slot']);
  keep(holder);
  await holder.waitForOutput(/starting log streaming/);
  signal(holder.pid, 'SIGSTOP');
  await waitFor(() => isStopped(holder.pid));
  const { serving, metric } = await scraped(keep, { shop: entryOf(server.port, directory) });
  const { ended } = await waitFor(async () => {
    const status = await serving.status('shop');
    return status.ended && status;
  });
  expect(ended?.code).toBe('WK_LOCKED');
  expect(await metric('up', 'shop')).toBe(0);
  expect(await metric('rpo_seconds', 'shop')).toBeGreaterThan(0);
  const status = runCli(['status', '--socket', serving.socket, 'shop']);
  expect((await status.exit).code).toBe(1);
  expect(status.stdout).toContain('is in use by another receiver');
  // One that is dead keeps nobody out.
  await holder.stop('SIGKILL');
  await serving.ctl('resume', 'shop');
  await serving.waitState('shop', 'streaming');
  expect(await metric('up', 'shop')).toBe(1);
});

it('goes on with the new leader by itself, and misses nothing of the old one', async () => {
  const primary = await serverOf();
  const standby = await primary.createStandby();
  keep({ [Symbol.asyncDispose]: () => standby.destroy() });
  const directory = archiveDirectory();
  const { serving } = await scraped(keep, {
    shop: {
      ...entryOf(`${primary.port},${standby.port}`, directory, '127.0.0.1,127.0.0.1'),
      members: { slots: 'walkeep' },
    },
  });
  const { pid } = await serving.waitState('shop', 'streaming');
  await waitFor(async () => {
    const { members = {} } = (await serving.status('shop')).receiver ?? {};
    const all = Object.values(members);
    return all.length === 2 && all.every(({ covers }) => covers === true);
  });
  const end = await writeWal(primary, 1_500_000);
  await waitFor(async () => (await standby.currentLsn()) >= end);
  await primary.kill9();
  expect(await standby.promote()).toBe(2);
  await waitFor(async () => {
    const { state, receiver } = await serving.status('shop');
    return state === 'streaming' && receiver?.position?.timeline === 2;
  });
  await writeWal(standby, 1_500_000);
  await waitEqual(directory, standby, { timeline: 2, others: [primary] });
  expect(existsSync(join(directory, '00000002.history'))).toBe(true);
  expect(await serving.status('shop')).toMatchObject({ pid, restarts: 0 });
});

it('answers while a server hangs, and while its receiver begins anew', async () => {
  const [hangs, well] = await Promise.all([serverOf(), serverOf({ fresh: true })]);
  const { serving, get, metric } = await scraped(keep, {
    hangs: entryOf(hangs.port, archiveDirectory()),
    well: entryOf(well.port, archiveDirectory()),
  });
  for (const name of ['hangs', 'well']) await serving.waitState(name, 'streaming');
  const processes = [hangs.pid, ...childrenOf(hangs.pid)];
  for (const pid of processes) signal(pid, 'SIGSTOP');
  try {
    signal(await serving.pidOf('hangs'), 'SIGKILL');
    await waitFor(async () => (await serving.status('hangs')).restarts > 0);
    await waitFor(async () => {
      const { state } = await serving.status('hangs');
      return state === 'connecting' || state === 'disconnected';
    });
    expect((await get('/livez')).status).toBe(200);
    expect(await metric('up', 'hangs')).toBe(0);
    expect(await metric('rpo_seconds', 'hangs')).toBeGreaterThan(0);
    expect(await metric('up', 'well')).toBe(1);
    await waitFor(async () => (await metric('rpo_seconds', 'well')) === 0);
  } finally {
    for (const pid of processes) signal(pid, 'SIGCONT');
  }
  await serving.waitState('hangs', 'streaming');
  await waitFor(async () => (await metric('rpo_seconds', 'hangs')) === 0);
});

it('waits on a full disk, says so, and goes on when there is space', async (context) => {
  const { disk, why } = SmallDisk.create(0.0625);
  using _ = disk;
  if (why) context.skip(`no disk can be made full here: ${why}`);
  const [server, other] = await Promise.all([serverOf(), serverOf({ fresh: true })]);
  const { serving, metric } = await scraped(keep, {
    full: entryOf(server.port, disk.directory),
    other: entryOf(other.port, archiveDirectory()),
  });
  const { pid } = await serving.waitState('full', 'streaming');
  await serving.waitState('other', 'streaming');
  disk.fill(0);
  await writeWal(server, 3_000_000);
  // Also what it cannot take is known of.
  await waitFor(async () => (await metric('unprotected_bytes', 'full')) > 1_000_000);
  await waitFor(() => /No space left on device|disk is full/i.test(serving.run.stderr));
  expect(await metric('rpo_seconds', 'full')).toBeGreaterThan(0);
  await waitFor(async () => (await metric('rpo_seconds', 'other')) === 0);
  disk.free();
  await waitEqual(disk.directory, server);
  await waitFor(async () => (await metric('rpo_seconds', 'full')) === 0);
  expect(await serving.status('full')).toMatchObject({ pid, restarts: 0 });
  await serving.run.stop('SIGTERM');
});
