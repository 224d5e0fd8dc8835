import { statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readText } from '../docs/documents.js';
import { manifestsOf } from '../docs/manifests.js';
import { disposer } from '../support/cleanup.js';
import { CAN_MAKE_PODS, PodSandbox } from '../support/pod.js';
import { NEWEST_MAJOR, PostgresServer } from '../support/postgres.js';
import { waitEqual, writeWal } from '../support/receiving.js';
import { freePort } from '../support/server-config.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

it.skipIf(!CAN_MAKE_PODS || !NEWEST_MAJOR)(
  'the pod of kubernetes.yaml receives with a read-only root, and takes a rotated Secret (unshare)',
  async () => {
    const { configMap, secret, set, pod } = manifestsOf(readText('docs/examples/kubernetes.yaml'));
    const server = keep(await PostgresServer.create({ major: 18, auth: 'scram-sha-256' }));
    await server.sql("CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'first one'");
    await server.sql('CREATE TABLE t (id int)');
    const [closed, port, page] = [await freePort(), await freePort(), await freePort()];
    const here = (text: string) =>
      text
        .replace(/host=shop-rw .*/, `host=127.0.0.1 port=${server.port} user=replicator`)
        .replace(/host=ledger-rw .*/, `host=127.0.0.1 port=${closed} user=replicator`)
        .replace('0.0.0.0:8481', `127.0.0.1:${port}`)
        .replace('127.0.0.1:8480', `127.0.0.1:${page}`);
    const config = here(configMap.data['walkeep.yaml'] as string);
    expect(config).not.toContain('-rw');
    const claims = set.spec.volumeClaimTemplates.map(({ metadata }) => metadata.name);
    const sandbox = new PodSandbox(pod, claims);
    sandbox.project('config', { 'walkeep.yaml': config });
    sandbox.project('secrets', { ...secret.stringData, shop: 'first one' });

    for (const init of pod.initContainers) {
      const made = sandbox.run(init, init.command ?? []);
      expect({ code: await made.exit, output: made.output() }).toEqual({ code: 0, output: '' });
    }
    const [container] = pod.containers;
    if (!container) throw new Error('there is no container');
    const { args = [], livenessProbe, readinessProbe } = container;
    // The image's entry point stands before the arguments.
    const serving = sandbox.run(container, ['walkeep', ...args]);
    const inside = async (...command: string[]) => {
      const process = sandbox.exec(serving, command);
      return { code: await process.exit, output: process.output() };
    };
    const probe = (path = '') => fetch(`http://127.0.0.1:${port}${path}`).then((r) => r.status);
    try {
      await waitFor(() => serving.output().includes('"event":"ready"'));
      expect(await probe(livenessProbe?.httpGet.path)).toBe(200);
      // One of the servers does not answer: that is no reason to take the pod away.
      await waitFor(async () => (await probe(readinessProbe?.httpGet.path)) === 200);
      const state = async (name: string) => {
        const status = await inside(
          'walkeep',
          'status',
          '--json',
          '-c',
          '/etc/walkeep/walkeep.yaml',
          name,
        );
        return JSON.parse(status.output) as { state: string; receiver?: { connections: number } };
      };
      await waitFor(async () => (await state('shop')).state === 'streaming');

      // Commits wait for it.
      await server.configure({ synchronous_standby_names: 'walkeep' });
      await server.sql('INSERT INTO t VALUES (1)');
      const directory = join(sandbox.volume('archive'), 'shop');
      expect(statSync(directory)).toMatchObject({ uid: pod.securityContext.runAsUser });
      await writeWal(server);
      await waitEqual(directory, server);

      expect(await (await fetch(`http://127.0.0.1:${page}/`)).text()).toContain('ledger');

      for (const path of ['/', '/tmp', '/opt/walkeep', '/etc', '/etc/walkeep', '/run', '/var']) {
        const { code, output } = await inside('touch', join(path, 'x'));
        expect(code, path).not.toBe(0);
        expect(output, path).toMatch(/Read-only file system|Permission denied/);
      }

      // The Secret changes; a connection that is made after that has the new password.
      const { receiver } = await state('shop');
      await server.sql("ALTER ROLE replicator PASSWORD 'another one'");
      sandbox.project('secrets', { ...secret.stringData, shop: 'another one' });
      for (const pid of await server.walSenderPids()) {
        await server.sql('SELECT pg_terminate_backend($1)', [pid]);
      }
      await waitFor(async () => {
        const now = await state('shop');
        const connections = receiver?.connections ?? 0;
        return now.state === 'streaming' && (now.receiver?.connections ?? 0) > connections;
      });
      await server.sql('INSERT INTO t VALUES (2)');

      // The ConfigMap changes, and is taken when somebody says so.
      const reload = ['walkeep', 'ctl', 'reload', '-c', '/etc/walkeep/walkeep.yaml'];
      sandbox.project('config', { 'walkeep.yaml': config.replace('slot: walkeep', 'slto: x') });
      expect(await inside(...reload)).toMatchObject({ code: 1 });
      sandbox.project('config', { 'walkeep.yaml': config.replace('  ledger:', '  books:') });
      expect(await inside(...reload)).toEqual({
        code: 0,
        output: 'started: books\nstopped: ledger\nunchanged: shop\n',
      });
      await server.configure({ synchronous_standby_names: '' });
      serving.kill('SIGTERM');
      expect(await serving.exit).toBe(0);
      expect(serving.output()).not.toMatch(/first one|another one/);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${serving.output()}`, { cause: error });
    } finally {
      serving.kill('SIGKILL');
    }
  },
);
