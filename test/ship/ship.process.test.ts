import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import zlib, { gunzipSync } from 'node:zlib';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, test } from 'vitest';
import { readShipProgress } from '../../src/archive/shipping/read-ship-progress.js';
import { Identities } from '../../src/codec/age/identities.js';
import { decodeBytes } from '../../src/codec/stages.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { edit, sampleArchive } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { RandomKills } from '../support/kill-times.js';
import { packageRoot, scratchDir } from '../support/scratch.js';
import { tellOfThreads } from '../support/threads.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

/** An empty store in a directory. */
async function newStore(): Promise<string> {
  const directory = join(scratchDir('store'), 'archive');
  await (await openFileStore(directory, { init: true })).close();
  return directory;
}

const walOf = (store: string) => join(store, 'systems', '77', 'wal', '00000001');

function stored(store: string): string[] {
  try {
    return readdirSync(walOf(store)).sort();
  } catch {
    return [];
  }
}

/** Names of whole segments that the store has not, or not the same. */
function lacking(directory: string, store: string, names: readonly string[]): string[] {
  const there = stored(store);
  return names.filter((name) => {
    if (!there.includes(name)) return true;
    const bytes = gunzipSync(readFileSync(join(walOf(store), name)));
    return !bytes.equals(readFileSync(join(directory, name)));
  });
}

const ship = (...args: string[]) => keep(runCli(['ship', '-Z', 'gzip:1', ...args]));

/** Puts files there one after the other, as a receiver gives them their names. */
async function receiveInto(
  directory: string,
  from: string,
  names: readonly string[],
  seen: (n: number) => Promise<void>,
) {
  for (const [n, name] of names.entries()) {
    copyFileSync(join(from, name), join(directory, `${name}.partial`));
    renameSync(join(directory, `${name}.partial`), join(directory, name));
    await seen(n);
  }
}

test('once: ships what is there, says so with its exit code, and prints events', async () => {
  const { directory, names } = sampleArchive(4);
  const store = await newStore();
  const cli = ship('--once', '--json', directory, store);
  expect(await cli.exit).toEqual({ code: 0, signal: null });
  expect(lacking(directory, store, names.slice(0, 3))).toEqual([]);
  const events = cli.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(
    events
      .filter(({ type }) => type === 'shipped')
      .map(({ name }) => name)
      .sort(),
  ).toEqual(names.map((name) => name.slice(0, 24)));
  expect(events.at(-1)).toMatchObject({ type: 'progress', segments: 0, bytes: 0 });
  // Nothing is left to do.
  const again = ship('--once', '-v', directory, `file://${store}`);
  expect(await again.exit).toEqual({ code: 0, signal: null });
  expect(again.stderr).not.toMatch(/shipped/);
});

test('exit codes: usage, a place that is away, an alarm', async () => {
  const { directory, names } = sampleArchive(3);
  const store = await newStore();
  expect((await ship(directory).exit).code).toBe(1);
  expect((await ship('--once', '/does/not/exist', store).exit).code).toBe(1);
  const away = ship('--once', directory, join(scratchDir('none'), 'x'));
  expect((await away.exit).code).toBe(2);
  expect(away.stderr).toMatch(/cannot be used as a store/);
  edit(join(directory, names[0]!), (bytes) => {
    bytes[200_000]! ^= 1;
    return bytes;
  });
  const damaged = ship('--once', directory, store);
  expect((await damaged.exit).code).toBe(3);
  expect(damaged.stderr).toMatch(new RegExp(names[0]!));
  const other = sampleArchive(3, { systemId: 78n }).directory;
  const foreign = ship('--once', other, store);
  expect((await foreign.exit).code).toBe(3);
  expect(foreign.stderr).toMatch(/archive of another cluster/);
});

test('follows a directory until it is stopped', async () => {
  const { directory: from, names } = sampleArchive(6);
  const directory = scratchDir('wal');
  const store = await newStore();
  const cli = ship(directory, store);
  await receiveInto(directory, from, names.slice(0, 5), async (n) => {
    await waitFor(() => stored(store).length > n);
  });
  expect(await cli.stop('SIGTERM')).toEqual({ code: 0, signal: null });
  expect(lacking(directory, store, names.slice(0, 5))).toEqual([]);
  expect(await readShipProgress(directory)).toMatchObject([
    { place: store, running: false, state: 'ok', lag: { segments: 0 } },
  ]);
});

test('a second one of the same is refused', async () => {
  const { directory } = sampleArchive(3);
  const store = await newStore();
  const first = ship('-v', directory, store);
  await first.waitForOutput(/shipping system/);
  const second = ship(directory, store);
  expect((await second.exit).code).toBe(1);
  expect(second.stderr).toMatch(/another process ships/);
  expect((await readShipProgress(directory))[0]?.running).toBe(true);
});

test('kill -9 at any time: what is stored is whole, and all gets there', async () => {
  const { directory: from, names } = sampleArchive(40);
  const directory = scratchDir('wal');
  const store = await newStore();
  const whole = names.slice(0, -1);
  const kills = new RandomKills();
  let received = false;
  const receiving = receiveInto(directory, from, whole, async (n) => {
    await waitFor(() => stored(store).length >= n - 5);
  }).finally(() => {
    received = true;
  });
  while (!received || kills.killed < 2) await kills.kill(ship('-j', '3', directory, store));
  await receiving;
  expect((await ship('--once', directory, store).exit).code).toBe(0);
  expect(lacking(directory, store, whole)).toEqual([]);
  expect(readdirSync(join(store, 'systems', '77')).sort()).not.toContain('conflict');
});

test('keeps so much here, and never what a place lacks', async () => {
  const { directory, names } = sampleArchive(12);
  const store = await newStore();
  const old = new Date(Date.now() - 3 * 86_400_000);
  for (const name of names) utimesSync(join(directory, name), old, old);
  // Another place, which has not had all: nobody ships there now.
  const other = await newStore();
  const aside = scratchDir('aside');
  const move = (from: string, to: string) => {
    for (const name of names.slice(6)) renameSync(join(from, name), join(to, name));
  };
  move(directory, aside);
  expect((await ship('--once', directory, other).exit).code).toBe(0);
  move(aside, directory);
  const cli = ship('-v', '--keep-local', '2d', directory, store);
  await cli.waitForOutput(new RegExp(`removed ${names[5]}`));
  await cli.stop('SIGTERM');
  expect(readdirSync(directory).filter((name) => name.startsWith('0'))).toEqual(names.slice(6));
  rmSync(join(directory, '.walkeep-ship'), { recursive: true });
  const both = ship('-v', '--keep-local', '2d', directory, store, other);
  await both.waitForOutput(new RegExp(`removed ${names[7]}`));
  await both.stop('SIGTERM');
  // What a receiver starts from stays.
  expect(readdirSync(directory).filter((name) => name.startsWith('0'))).toEqual(names.slice(8));
});

test('from place to place', async () => {
  const { directory, names } = sampleArchive(6);
  const [one, other] = [await newStore(), await newStore()];
  const env = { XDG_STATE_HOME: scratchDir('states') };
  expect((await ship('--once', directory, one).exit).code).toBe(0);
  for (const expected of [names.length, 0]) {
    const cli = keep(runCli(['ship', '--once', '-v', '-Z', 'gzip:1', one, other], { env }));
    expect((await cli.exit).code).toBe(0);
    expect(cli.stderr.match(/shipped, /g) ?? []).toHaveLength(expected);
  }
  expect(lacking(directory, other, names.slice(0, -1))).toEqual([]);
  // Also by another process without what this one knows: nothing is sent again.
  const again = keep(runCli(['ship', '--once', '-v', one, other]));
  expect((await again.exit).code).toBe(0);
  expect(again.stderr).not.toMatch(/shipped, /);
  expect(again.stderr.match(/is there already/g)).toHaveLength(names.length);
  // What is damaged there does not go further.
  const third = await newStore();
  edit(join(walOf(one), names[1]!), (bytes) => {
    bytes[bytes.length >> 1]! ^= 1;
    return bytes;
  });
  const damaged = ship('--once', '--state', scratchDir('state'), one, third);
  expect((await damaged.exit).code).toBe(3);
  expect(stored(third)).toEqual([names[0], ...names.slice(2, -1)]);
});

/** What Node.js has in its thread pool needs no thread of ours. */
const nativeZstd = 'createZstdCompress' in zlib;

test.each([
  ['lz4', false],
  ['lz4', true],
  ['zstd', false],
  ['zstd', true],
] as const)('%s, encrypted %s: compressed in a thread', async (method, encrypted) => {
  const { directory, names } = sampleArchive(3);
  const store = await newStore();
  const out = join(scratchDir('threads'), 'threads');
  const secret = await generateX25519Identity();
  const recipient = encrypted ? ['--recipient', await identityToRecipient(secret)] : [];
  const args = ['ship', '--once', '-Z', method, ...recipient, directory, store];
  const run = keep(runCli(args, { env: { NODE_OPTIONS: tellOfThreads(out) } }));
  expect({ ...(await run.exit), stderr: run.stderr }).toMatchObject({ code: 0 });
  const identities = await Identities.parse(secret);
  for (const name of stored(store)) {
    const bytes = readFileSync(join(walOf(store), name));
    const { content, stages } = await decodeBytes(bytes, { name, identities });
    expect(stages).toEqual(encrypted ? [method, 'age'] : [method]);
    expect(readFileSync(join(directory, name)).equals(content)).toBe(true);
  }
  expect(stored(store)).toEqual(names.slice(0, stored(store).length));
  expect(stored(store).length).toBeGreaterThan(1);
  const started = method === 'zstd' && nativeZstd ? [] : ['dist/codec/worker.js'];
  const seen = existsSync(out) ? [relative(packageRoot, readFileSync(out, 'utf8'))] : [];
  expect(seen).toEqual(started);
});
