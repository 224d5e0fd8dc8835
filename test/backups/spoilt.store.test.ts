import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { listBackups } from '../../src/backups/list-backups.js';
import { type BackupRecord, parseBackupRecord } from '../../src/base/backup-record.js';
import { expirePlace } from '../../src/expire/expire.js';
import { restoreBackup } from '../../src/restore/restore.js';
import { contentOf } from '../../src/store/content.js';
import type { ObjectStore } from '../../src/store/store.js';
import { Random } from '../simulation/random.js';
import { bytesOf, environmentOf, openStore } from '../store/s3/stores.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli } from '../support/cli.js';
import { type Fault, FaultProxy } from '../support/fault-proxy.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { scratchDir, serverUser } from '../support/scratch.js';
import { backupOf } from '../support/taken-backup.js';
import { delay, waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

const rgw = sharedRgw();
/** Runs of each command with each kind of fault; WALKEEP_SPOILT=200 for more of them. */
const RUNS = Number(process.env.WALKEEP_SPOILT ?? 1);
const SEED = Number(process.env.WALKEEP_SPOILT_SEED ?? Date.now() % 1_000_000);
const KINDS: readonly Fault[] = ['slow-down', 'reset-after-send', 'truncate', 'stall'];
const MAJOR: Major = MAJORS.includes(15) ? 15 : (MAJORS[0] as Major);
const VERIFY = '/usr/lib/postgresql/15/bin/pg_verifybackup';
/** What a client waits for; one that is killed meanwhile waits for longer. */
const SHORT_STALL = 300;
const LONG_STALL = 60_000;

vi.setConfig({ testTimeout: 120_000 + 120_000 * RUNS });

const keep = disposer();
const random = new Random(SEED);
const env = rgw ? environmentOf(rgw.owner) : {};
Object.assign(process.env, env);

/** A gateway behind a proxy that spoils requests from a random one on. */
class Spoiler {
  /** Requests of a whole run. */
  whole = 60;
  readonly proxy: FaultProxy;
  readonly #bucket: string;

  private constructor(proxy: FaultProxy, bucket: string) {
    this.proxy = proxy;
    this.#bucket = bucket;
  }

  static async before(bucket: string): Promise<Spoiler> {
    const target = rgw!.facts.http;
    const proxy = keep(await FaultProxy.listen({ target, script: () => undefined }));
    return new Spoiler(proxy, bucket);
  }

  at(prefix: string): string {
    return `s3://${this.#bucket}/${prefix}?endpoint=${this.proxy.url}`;
  }

  /**
   * Some requests are spoilt, and it gets over that; or all are from then on, and it is killed.
   * @param inside runs it in this process
   * @returns true if it came to its end
   */
  async run(kind: Fault, inside: () => Promise<unknown>, outside: () => CliRun): Promise<boolean> {
    const killed = random.chance(0.6);
    const first = this.proxy.seen.length + random.below(this.whole);
    const most = killed ? Number.POSITIVE_INFINITY : 1 + random.below(4);
    const begun = this.proxy.seen.length;
    let spoilt = 0;
    this.proxy.options.stallMs = killed ? LONG_STALL : SHORT_STALL;
    this.proxy.options.script = () =>
      this.proxy.seen.length >= first && spoilt++ < most ? kind : undefined;
    let done = true;
    // What stalls is waited for: no second request comes.
    const after = kind === 'stall' ? 1 : 1 + random.below(3);
    if (killed) done = await this.#killed(outside(), () => spoilt, after);
    else await inside();
    this.proxy.options.script = () => undefined;
    this.proxy.cut();
    // What was on its way to the gateway has been done.
    await waitFor(() => this.proxy.seen.every(({ ms }) => ms > 0), { what: 'the last request' });
    const asked = this.proxy.seen.length - begun;
    if (done) this.whole = Math.max(5, Math.round((this.whole + asked) / 2));
    return done;
  }

  async #killed(run: CliRun, spoilt: () => number, after: number): Promise<boolean> {
    while (run.running && spoilt() < after) await Promise.race([delay(2), run.exit]);
    const { code, signal } = await run.stop('SIGKILL');
    // Too few were spoilt to be killed for, or so many that it failed.
    if (signal === null && spoilt() === 0) expect(code, run.stderr).toBe(0);
    return code === 0;
  }
}

interface Stored {
  complete: BackupRecord[];
  begun: string[];
}

/** The backups below a prefix: what is one is whole, byte for byte. */
async function storedBackups(store: ObjectStore, prefix: string, known: Set<string>) {
  const found: Stored = { complete: [], begun: [] };
  const sizes = new Map<string, number>();
  for await (const { key, size } of store.list(prefix)) sizes.set(key, size);
  const below = [...sizes.keys()].filter((key) => key.includes('/backups/'));
  for (const at of new Set(below.map((key) => key.split('/').slice(0, -1).join('/')))) {
    const id = /\/backups\/([^/]+)$/.exec(at)?.[1];
    if (id === undefined) continue;
    const text = await bytesOf(store, `${at}/backup.json`);
    if (!text) {
      found.begun.push(id);
      continue;
    }
    const record = parseBackupRecord(text);
    found.complete.push(record);
    for (const { name, size, sha256 } of record.objects) {
      expect(sizes.get(`${at}/${name}`), `${id}/${name}`).toBe(size);
      if (known.has(id)) continue;
      const bytes = (await bytesOf(store, `${at}/${name}`)) as Buffer;
      expect(createHash('sha256').update(bytes).digest('hex'), `${id}/${name}`).toBe(sha256);
    }
    known.add(id);
  }
  found.complete.sort((a, b) => (a.end.lsn < b.end.lsn ? -1 : 1));
  found.begun.sort();
  return found;
}

/** A server whose WAL is shipped into a bucket. */
async function shipping() {
  const bucket = await rgw!.createBucket();
  const place = `s3://${bucket}/shop?endpoint=${rgw!.facts.http}`;
  const server = keep(await PostgresServer.create({ major: MAJOR }));
  const archive = archiveDirectory();
  const receiver = keep(receive(archive, server.conninfo()));
  await receiver.waitForOutput(/starting log streaming/);
  const shipper = keep(runCli(['ship', '-v', archive, place], { env }));
  await workload(server, { transactions: 3, switchEvery: 1 });
  await shipper.waitForOutput(/shipped/);
  const store = openStore(rgw!, bucket, {});
  return { server, bucket, place, store, shipper };
}

const backup = (server: PostgresServer, place: string): CliRun =>
  keep(runCli(['backup', '--json', '-w', '-d', server.conninfo(), place], { env }));

async function succeeds(run: CliRun): Promise<CliRun> {
  expect(await run.exit, run.stderr + run.stdout).toEqual({ code: 0, signal: null });
  return run;
}

const rounds = KINDS.flatMap((kind) => Array.from({ length: RUNS }, () => kind));

afterEach(({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(`seed ${SEED}\n`);
});

describe.skipIf(!rgw)(`requests of a store are spoilt whenever it may be, seed ${SEED}`, () => {
  test('a backup is there as a whole or not at all, and the next one cleans up', async () => {
    const { server, bucket, place, store } = await shipping();
    const spoiler = await Spoiler.before(bucket);
    const known = new Set<string>();
    let complete = 0;
    for (const [round, kind] of rounds.entries()) {
      const through = spoiler.at('shop');
      const done = await spoiler.run(
        kind,
        () => backupOf(server, through),
        () => backup(server, through),
      );
      const found = await storedBackups(store, 'shop/', known);
      if (done) expect(found.complete, kind).toHaveLength(complete + 1);
      complete = found.complete.length;
      if (!random.chance(0.3) && round < rounds.length - 1) continue;
      const next = await succeeds(backup(server, place));
      const { cleaned } = JSON.parse(next.stdout.trim().split('\n').at(-1) as string);
      expect(cleaned.sort()).toEqual(found.begun);
      const after = await storedBackups(store, 'shop/', known);
      expect([after.complete.length, after.begun]).toEqual([complete + 1, []]);
      complete += 1;
      if (complete < 20) continue;
      // A gateway that keeps its objects in memory has no room for all of them.
      await expirePlace(place, { redundancy: 2 });
      const left = await storedBackups(store, 'shop/', known);
      expect(left.begun).toEqual([]);
      // Of one that was killed when it had come to its end the lease stays for a quarter of an hour.
      complete = left.complete.length;
      expect(complete).toBeGreaterThanOrEqual(2);
    }
  });

  test('a restore cannot be started before it is whole, and the next one makes it so', async () => {
    const { server, bucket, place, store } = await shipping();
    const { record } = await backupOf(server, place);
    const manifest = join(scratchDir('manifest', { forServer: true }), 'backup_manifest');
    const key = `shop/systems/${record.systemId}/backups/${record.id}/backup_manifest`;
    writeFileSync(manifest, (await bytesOf(store, key)) as Buffer);
    const expectWhole = (dataDir: string) => {
      if (MAJOR > 16 || !existsSync(VERIFY)) return;
      // One that was killed when it had come to its end has not let go of the directory.
      const locks = readdirSync(dataDir).filter((name) => name.startsWith('.walkeep-lock'));
      for (const name of locks) rmSync(join(dataDir, name));
      const args = ['-n', '-m', manifest, '-i', '.walkeep-restore', dataDir];
      execFileSync(VERIFY, args, { ...serverUser, cwd: '/', env: {} });
    };
    const spoiler = await Spoiler.before(bucket);
    for (const kind of rounds) {
      const dataDir = join(scratchDir('half', { forServer: true }), 'data');
      const through = spoiler.at('shop');
      // The server has no credentials: nobody starts it.
      const restore = (from: string) =>
        keep(runCli(['restore', '--no-try-fetch', from, dataDir], { env }));
      const done = await spoiler.run(
        kind,
        () => restoreBackup({ places: [through], dataDir, tryFetch: false }),
        () => restore(through),
      );
      // Without it no server starts.
      const startable = existsSync(join(dataDir, 'global/pg_control'));
      if (done) expect(startable, kind).toBe(true);
      if (startable) expectWhole(dataDir);
      const next = restore(place);
      const { code } = await next.exit;
      if (startable && code === 3) expect(next.stderr).toMatch(/is not empty/);
      else expect(code, next.stderr).toBe(0);
      expectWhole(dataDir);
      rmSync(dataDir, { recursive: true });
    }
  });

  test('an expire leaves whole backups only, and the next one removes the rest', async () => {
    const { server, bucket, place, store, shipper } = await shipping();
    for (let n = 0; n < 3; n++) {
      // By a process that is gone: what is left of the backup is then known to be nobody's.
      await succeeds(backup(server, place));
      await workload(server, { transactions: 2, switchEvery: 1 });
    }
    await shipper.stop();
    const newest = (await storedBackups(store, 'shop/', new Set())).complete.at(-1)?.id;
    const objects = new Map<string, Buffer>();
    for await (const { key } of store.list('shop/')) {
      objects.set(key.slice('shop/'.length), (await bytesOf(store, key)) as Buffer);
    }
    const spoiler = await Spoiler.before(bucket);
    spoiler.whole = 40;
    for (const [round, kind] of rounds.entries()) {
      const prefix = `copy${round}`;
      for (const [name, bytes] of objects) {
        await store.create(`${prefix}/${name}`, contentOf(bytes));
      }
      const through = spoiler.at(prefix);
      const direct = `s3://${bucket}/${prefix}?endpoint=${rgw!.facts.http}`;
      const args = ['expire', '--redundancy', '1'];
      const done = await spoiler.run(
        kind,
        () => expirePlace(through, { redundancy: 1 }),
        () => keep(runCli([...args, through], { env })),
      );
      const { complete } = await storedBackups(store, `${prefix}/`, new Set());
      expect(complete.at(-1)?.id).toBe(newest);
      if (done) expect(complete).toHaveLength(1);
      const listed = (await listBackups(direct)).backups.filter(({ record }) => record);
      for (const { id, state } of listed) expect([id, state]).toEqual([id, 'complete']);
      await succeeds(keep(runCli([...args, direct], { env })));
      const after = await storedBackups(store, `${prefix}/`, new Set());
      expect([after.complete.map(({ id }) => id), after.begun]).toEqual([[newest], []]);
      const left: string[] = [];
      for await (const { key } of store.list(`${prefix}/`)) left.push(key);
      await store.remove(left);
    }
  });
});
