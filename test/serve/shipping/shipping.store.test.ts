import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeBytes } from '../../../src/codec/stages.js';
import type { StoreStatus } from '../../../src/serve/status.js';
import { openFileStore } from '../../../src/store/file/file-store.js';
import type { ObjectStore } from '../../../src/store/store.js';
import { bytesOf, openStore } from '../../store/s3/stores.js';
import { runCli } from '../../support/cli.js';
import { FaultProxy } from '../../support/fault-proxy.js';
import { PASSWORD, PostgresServer } from '../../support/postgres.js';
import { isRunning, signal } from '../../support/processes.js';
import { archiveDirectory, content, writeWal } from '../../support/receiving.js';
import { sharedRgw } from '../../support/rgw-setup.js';
import type { Keys } from '../../support/s3-request.js';
import { scratchDir } from '../../support/scratch.js';
import { Serving } from '../../support/serving.js';
import { waitFor } from '../../support/wait.js';

const rgw = sharedRgw();
const PATIENT = { timeoutMs: 150_000 };
/** For tests that wait more than once, each time for what a store repeats after a while. */
const LONG = { timeout: 900_000 };

describe('stores of serve', LONG, () => {
  const dir = scratchDir('stores');
  const directory = archiveDirectory();
  const files = { id: join(dir, 'id'), key: join(dir, 'key'), password: join(dir, 'password') };
  let server: PostgresServer;
  let serving: Serving;
  let proxy: FaultProxy | undefined;
  let user: (Keys & { user: string }) | undefined;
  /** By their names: opens them past the proxy. */
  const stores = new Map<string, () => Promise<ObjectStore>>();

  const secret = (file: string, text: string) => writeFileSync(file, `${text}\n`, { mode: 0o600 });

  beforeAll(async () => {
    mkdirSync(join(dir, 'vault', 'shop'), { recursive: true });
    secret(files.password, PASSWORD);
    server = await PostgresServer.create({ major: 18, auth: 'scram-sha-256', segmentSizeMb: 1 });
    await server.sql('CREATE TABLE t (id int, filler text)');
    const places: Record<string, object> = { vault: { place: join(dir, 'vault') } };
    const vault = join(dir, 'vault', 'shop');
    await (await openFileStore(vault, { init: true })).close();
    stores.set('vault', () => openFileStore(vault, { init: false }));
    if (rgw) {
      const bucket = await rgw.createBucket();
      user = await rgw.createUser();
      await rgw.allow(bucket, user.user, ['GetObject', 'PutObject', 'ListBucket']);
      secret(files.id, user.accessKeyId);
      secret(files.key, user.secretAccessKey);
      proxy = await FaultProxy.listen({ target: rgw.facts.http });
      const keys = { access_key_file: files.id, secret_key_file: files.key, compress: 'gzip:1' };
      // Not both by the proxy: what the gateway refuses before it has all of it is lost there.
      for (const [name, endpoint] of [
        ['minio', rgw.facts.http],
        ['far', proxy.url],
      ] as const) {
        places[name] = { place: `s3://${bucket}/${name}?endpoint=${endpoint}`, ...keys };
        const place = `${bucket}/${name}/shop`;
        stores.set(name, async () => openStore(rgw, place, { keys: user as Keys }));
      }
    }
    const shop = {
      connection: `host=127.0.0.1 port=${server.port} user=postgres`,
      ...{ password_file: files.password, directory, slot: 'walkeep', ensure_slot: true },
      stores: Object.fromEntries(Object.keys(places).map((name) => [name, { prefix: 'shop' }])),
    };
    serving = await Serving.start({ shop }, { stores: places });
    await serving.waitState('shop', 'streaming');
  });

  afterAll(async () => {
    await serving?.run.stop('SIGKILL');
    await proxy?.close();
    await server?.destroy();
  });

  const complete = () => readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));

  async function storeStatus(name: string): Promise<StoreStatus> {
    const { stores = [] } = await serving.status('shop');
    const found = stores.find((store) => store.name === name);
    if (!found) throw new Error(`there is no ${name}`);
    return found;
  }

  const waitStore = (name: string, is: (status: StoreStatus) => boolean, what: string) =>
    waitFor(
      async () => {
        const status = await storeStatus(name);
        if (!is(status)) throw new Error(JSON.stringify(status));
        return status;
      },
      { ...PATIENT, what: `${name}: ${what}` },
    );

  /** Completes segments, and waits until they are in the directory. */
  async function completeSegments(): Promise<void> {
    const before = complete().length;
    await writeWal(server, 3_000_000);
    await waitFor(() => complete().length > before, PATIENT);
  }

  /** What is missing of the complete segments, or has other bytes. */
  async function differences(name: string): Promise<string[]> {
    const store = await (stores.get(name) as () => Promise<ObjectStore>)();
    try {
      const keys: string[] = [];
      for await (const { key } of store.list('systems/')) keys.push(key);
      const wrong: string[] = [];
      for (const file of complete()) {
        const key = keys.find((one) => one.endsWith(`/wal/00000001/${file}`));
        const stored = key === undefined ? undefined : await bytesOf(store, key);
        const decoded = stored && (await decodeBytes(stored, { name: file }));
        const here = content(join(directory, file));
        if (!decoded || !here.equals(decoded.content)) wrong.push(file);
      }
      return wrong;
    } finally {
      await store.close();
    }
  }

  async function waitAllThere(name: string): Promise<void> {
    await waitFor(
      async () => {
        const wrong = await differences(name);
        if (wrong.length > 0) throw new Error(`not there: ${wrong}`);
        return true;
      },
      { ...PATIENT, intervalMs: 200, what: `all to be in ${name}` },
    );
    await waitStore(name, (s) => s.state === 'shipping' && s.rpoSeconds === 0, 'all is there');
  }

  it('ships to each store, by a process of its own that goes after the receiver', async () => {
    await completeSegments();
    for (const name of stores.keys()) await waitAllThere(name);
    // Another segment may have been completed since.
    const isEmpty = (s: StoreStatus) => s.queueSegments === 0;
    const wait = (name: string) => waitStore(name, isEmpty, 'all to be shipped');
    const statuses = await Promise.all([...stores.keys()].map(wait));
    const pids = statuses.map(({ pid }) => pid as number);
    expect(new Set([...pids, await serving.pidOf('shop')]).size).toBe(stores.size + 1);
    for (const pid of pids) {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      expect(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16], 'niceness').toBe('10');
      const seen = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      if (user) expect(seen).not.toContain(user.secretAccessKey);
    }
    for (const { totals, shippedLsn } of statuses) {
      expect(totals.segments).toBeGreaterThan(0);
      expect(shippedLsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
    }
    // Where the progress of several processes is kept, others see all of it.
    const list = runCli(['list', '--json', '-D', directory]);
    expect(await list.exit).toMatchObject({ code: 0 });
    const shipping = list.stdout.split('\n').filter((line) => line.includes('"type":"shipping"'));
    expect(shipping).toHaveLength(stores.size);
  });

  it('begins another process when one is killed', async () => {
    const { pid } = await storeStatus('vault');
    const receiver = await serving.pidOf('shop');
    signal(pid as number, 'SIGKILL');
    await waitStore('vault', (s) => s.pid !== undefined && s.pid !== pid, 'another process');
    await completeSegments();
    await waitAllThere('vault');
    expect(await serving.pidOf('shop')).toBe(receiver);
    await waitFor(() => serving.events('ship-restart').length > 0, PATIENT);
    expect(serving.events('ship-restart')).toMatchObject([{ server: 'shop', code: 'WK_PROCESS' }]);
  });

  describe.skipIf(!rgw)('an object store', () => {
    it('is away: that is told, nothing else waits, and it gets all when it is back', async () => {
      const { pid, totals } = await storeStatus('far');
      const receiver = await serving.pidOf('shop');
      (proxy as FaultProxy).away = true;
      proxy?.cut();
      await completeSegments();
      const away = await waitStore(
        'far',
        ({ state, error, queueSegments = 0, rpoSeconds }) =>
          state === 'away' &&
          error?.code === 'WK_STORE_UNCERTAIN' &&
          queueSegments > 0 &&
          rpoSeconds > 0,
        'to be away',
      );
      expect(away.queueBytes).toBe((away.queueSegments as number) * server.segmentSize);
      await waitStore('far', (s) => s.rpoSeconds > away.rpoSeconds, 'its recovery point to rise');
      await completeSegments();
      await waitAllThere('vault');
      expect(await serving.pidOf('shop')).toBe(receiver);
      (proxy as FaultProxy).away = false;
      await waitAllThere('far');
      const after = await storeStatus('far');
      expect(after.pid).toBe(pid);
      expect(after.error).toBeUndefined();
      expect(after.totals.failures).toBeGreaterThan(totals.failures);
      await waitFor(() => serving.events('ship-away').length > 0, PATIENT);
    });

    it('takes other keys from their files, and the same process goes on', async () => {
      const { user: name, accessKeyId } = user as Keys & { user: string };
      const { pid } = await storeStatus('minio');
      const keys: Keys = { accessKeyId: `${name}second`, secretAccessKey: 'second/secret+key' };
      await rgw?.addKeys(name, keys);
      await rgw?.removeKeys(name, accessKeyId);
      await completeSegments();
      // The gateway may close the connection before its answer was read.
      const isRefused = ({ state, error }: StoreStatus) =>
        state === 'away' && error?.code === 'WK_STORE_ACCESS';
      await waitStore('minio', isRefused, 'to be refused');
      user = { user: name, ...keys };
      secret(files.id, keys.accessKeyId);
      secret(files.key, keys.secretAccessKey);
      await waitAllThere('minio');
      expect((await storeStatus('minio')).pid).toBe(pid);
      expect(serving.run.stderr).not.toContain(keys.secretAccessKey);
    });
  });

  it('leaves no process behind when it is killed, and goes on when it is begun again', async () => {
    const statuses = await Promise.all([...stores.keys()].map(storeStatus));
    const pids = [...statuses.map(({ pid }) => pid as number), await serving.pidOf('shop')];
    signal(serving.run.pid as number, 'SIGKILL');
    await waitFor(() => !pids.some(isRunning), { ...PATIENT, what: 'all processes to end' });
    await serving.restart();
    await serving.waitState('shop', 'streaming');
    await completeSegments();
    for (const name of stores.keys()) await waitAllThere(name);
    await serving.run.stop('SIGTERM');
  });
});
