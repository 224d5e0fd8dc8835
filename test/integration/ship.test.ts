import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { openFileStore } from '../../src/store/file/file-store.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { RandomKills } from '../support/kill-times.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { childrenOf, isRunning, signal } from '../support/processes.js';
import { archiveDirectory, content, receive, waitEqual, writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

const keep = disposer();
const NEWEST = MAJORS.at(-1)!;

async function newStore(): Promise<string> {
  const directory = join(scratchDir('store'), 'archive');
  await (await openFileStore(directory, { init: true })).close();
  return directory;
}

/** All objects of the one system, by their keys below it. */
function objects(store: string): Map<string, Buffer> {
  const systems = join(store, 'systems');
  const [system = ''] = readdirSync(systems);
  const root = join(systems, system);
  return new Map(
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name !== 'system.json')
      .map((entry) => {
        const path = join(entry.parentPath, entry.name);
        const bytes = readFileSync(path);
        const plain = bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes;
        return [path.slice(root.length + 1), plain];
      }),
  );
}

const segments = (directory: string, partial = false) =>
  readdirSync(directory).filter((name) =>
    (partial ? /^[0-9A-F]{24}(\.gz|\.lz4)?\.partial$/ : /^[0-9A-F]{24}(\.gz|\.lz4)?$/).test(name),
  );

/** What of a directory's files is not in the store, or is something else there. */
function lacking(directory: string, store: string): string[] {
  const there = objects(store);
  const problems: string[] = [];
  for (const name of segments(directory)) {
    const base = name.slice(0, 24);
    const found = there.get(`wal/${base.slice(0, 8)}/${base}`);
    if (!found?.equals(content(join(directory, name)))) problems.push(name);
  }
  for (const name of readdirSync(directory).filter((one) => one.endsWith('.history'))) {
    const found = there.get(`history/${name}`);
    if (!found?.equals(readFileSync(join(directory, name)))) problems.push(name);
  }
  for (const key of there.keys()) if (key.startsWith('conflict/')) problems.push(key);
  return problems;
}

/** The same of the unfinished segments: each to where it goes. */
function lackingPartials(directory: string, store: string): string[] {
  const there = [...objects(store)];
  return segments(directory, true).filter((name) => {
    const base = name.slice(0, 24);
    const prefix = `partial/${base.slice(0, 8)}/${base}/`;
    const found = there.filter(([key]) => key.startsWith(prefix)).at(-1)?.[1];
    if (!found) return true;
    const bytes = content(join(directory, name));
    const rest = bytes.subarray(found.length);
    return !bytes.subarray(0, found.length).equals(found) || rest.some((byte) => byte !== 0);
  });
}

test.each([[[]], [['-Z', 'gzip']], [['-Z', 'lz4']]])(
  'receive --store ships all, and the rest when it is stopped %j',
  async (compression) => {
    const server = keep(await PostgresServer.create({ major: NEWEST, archive: true }));
    const directory = archiveDirectory();
    const stores = [await newStore(), await newStore()];
    const args = [...stores.flatMap((store) => ['--store', store]), '--store-compress=gzip:1'];
    const run = keep(receive(directory, server.conninfo(), ['-s', '1', ...compression, ...args]));
    await run.waitForOutput(/starting log streaming/);
    await workload(server, { transactions: 30, switchEvery: 6 });
    await writeWal(server, 300_000);
    await waitEqual(directory, server);
    expect(await run.stop('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(segments(directory).length).toBeGreaterThan(4);
    for (const store of stores) {
      expect(lacking(directory, store)).toEqual([]);
      expect(lackingPartials(directory, store)).toEqual([]);
    }
  },
);

test('a ship that dies is started again; a receiver that dies lets it ship the rest', async () => {
  const server = keep(await PostgresServer.create({ major: NEWEST, archive: true }));
  const directory = archiveDirectory();
  const store = await newStore();
  const args = ['--store', store, '--store-compress=gzip:1'];
  const run = keep(receive(directory, server.conninfo(), args));
  await run.waitForOutput(/starting log streaming/);
  await workload(server, { transactions: 5, switchEvery: 2 });
  await waitFor(() => segments(directory).length > 0 && lacking(directory, store).length === 0);
  const child = await waitFor(() => childrenOf(run.pid)[0]);
  signal(child, 'SIGKILL');
  await run.waitForOutput(/"walkeep ship" ended with SIGKILL/);
  await workload(server, { transactions: 5, switchEvery: 2 });
  await waitEqual(directory, server);
  await waitFor(() => lacking(directory, store).length === 0);
  const again = await waitFor(() => childrenOf(run.pid)[0]);
  await writeWal(server, 300_000);
  await waitEqual(directory, server);
  await run.stop('SIGKILL');
  await waitFor(() => !isRunning(again));
  expect(lacking(directory, store)).toEqual([]);
  expect(lackingPartials(directory, store)).toEqual([]);
});

test('a store that is away delays no WAL', async () => {
  const server = keep(await PostgresServer.create({ major: NEWEST, archive: true }));
  const directory = archiveDirectory();
  const store = join(scratchDir('store'), 'archive');
  const args = ['--store', store, '--store-compress=gzip:1'];
  const run = keep(receive(directory, server.conninfo(), args));
  await run.waitForOutput(/cannot be used as a store/);
  await workload(server, { transactions: 5, switchEvery: 2 });
  await writeWal(server, 300_000);
  await waitEqual(directory, server);
  // It comes back.
  await (await openFileStore(store, { init: true })).close();
  await waitFor(() => lacking(directory, store).length === 0);
  await run.stop('SIGTERM');
  expect(lackingPartials(directory, store)).toEqual([]);
});

test('kill -9 of the shipper under load, over a promotion', async () => {
  const primary = keep(await PostgresServer.create({ major: NEWEST, archive: true }));
  const standby = keep(await primary.createStandby());
  const directory = archiveDirectory();
  const store = await newStore();
  const run = keep(receive(directory, standby.conninfo(), ['-s', '1']));
  await run.waitForOutput(/starting log streaming/);
  const kills = new RandomKills();
  let written = false;
  const writing = (async () => {
    await workload(primary, { transactions: 20, switchEvery: 4 });
    await writeWal(primary, 300_000);
    await waitEqual(directory, primary);
    await standby.promote();
    await workload(standby, { transactions: 20, switchEvery: 4 });
    await writeWal(standby, 300_000);
    await waitEqual(directory, standby, { timeline: 2, others: [primary] });
  })().finally(() => {
    written = true;
  });
  while (!written || kills.killed < 3) {
    await kills.kill(keep(runCli(['ship', '-Z', 'gzip:1', directory, store])));
  }
  await writing;
  await run.stop('SIGTERM');
  const last = keep(runCli(['ship', '--once', '-Z', 'gzip:1', directory, store]));
  expect((await last.exit).code).toBe(0);
  expect(lacking(directory, store)).toEqual([]);
  expect(lackingPartials(directory, store)).toEqual([]);
  expect([...objects(store).keys()]).toContain('history/00000002.history');
});
