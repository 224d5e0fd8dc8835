import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readText } from '../docs/documents.js';
import { metricsIn } from '../serve/metrics/full-status.js';
import { Endpoint } from '../serve/notify/endpoint.js';
import { PostgresServer } from '../support/postgres.js';
import { Prometheus, prometheus } from '../support/prometheus.js';
import { archiveDirectory } from '../support/receiving.js';
import { freePort } from '../support/server-config.js';
import { type ServerEntry, Serving } from '../support/serving.js';
import { waitFor } from '../support/wait.js';

/** How long nothing happens. */
const IDLE = Number(process.env.WALKEEP_IDLE_SECONDS ?? 6) * 1000;
/** The rule that is to fire has no time to lose here. */
const rules = readText('docs/examples/alerts.yaml').replace(
  /(- alert: WalkeepRecoveryPoint\n.*\n {8}for: )\S+/,
  '$11s',
);

describe('alerts of serve', () => {
  let server: PostgresServer;
  let serving: Serving;
  let watching: Prometheus | undefined;
  let endpoint: Endpoint;
  let port: number;
  let servers: Record<string, ServerEntry>;

  const scrape = async () => (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const metric = async (name: string, of: string): Promise<number> => {
    const line = (await scrape())
      .split('\n')
      .find((one) => one.startsWith(`walkeep_${name}{server="${of}"`));
    return Number(line?.split(' ')[1]);
  };
  const webhooks = () => endpoint.asked.filter(({ method }) => method === 'POST');
  const heartbeats = () => endpoint.asked.filter(({ method }) => method === 'GET');

  beforeAll(async () => {
    expect(rules).toContain('for: 1s');
    server = await PostgresServer.create({ major: 18 });
    await server.sql('CREATE TABLE t (id int)');
    const entry = (slot: string): ServerEntry => ({
      connection: `host=127.0.0.1 port=${server.port} user=postgres`,
      ...{ directory: archiveDirectory(), slot, ensure_slot: true },
    });
    servers = { shop: { ...entry('walkeep'), synchronous: true }, lazy: entry('lazy') };
    port = await freePort();
    endpoint = await Endpoint.start();
    serving = await Serving.start(servers, {
      metrics: { listen: `127.0.0.1:${port}` },
      notify: {
        heartbeat: { url_file: endpoint.urlFile, every: '1s' },
        webhook: { url_file: endpoint.urlFile },
      },
    });
    for (const name of Object.keys(servers)) await serving.waitState(name, 'streaming');
    if (prometheus) watching = await Prometheus.start(`127.0.0.1:${port}`, rules);
  });

  afterAll(async () => {
    await watching?.stop();
    await serving.run.stop('SIGKILL');
    await server.destroy();
    await endpoint.close();
  });

  it('brings to disk soon what no commit waits for', async () => {
    await server.sql('INSERT INTO t VALUES (1)');
    await waitFor(async () => (await metric('sync_duration_seconds_count', 'lazy')) > 0);
    await waitFor(async () => (await metric('rpo_seconds', 'lazy')) === 0);
  });

  it(
    'says nothing of servers that do nothing',
    async () => {
      await waitFor(async () => (await metric('rpo_seconds', 'shop')) === 0);
      if (watching) {
        await waitFor(
          async () => (await watching?.value('walkeep_rpo_seconds{server="shop"}')) === 0,
        );
      }
      const pids = [await serving.pidOf('shop'), await serving.pidOf('lazy')];
      const began = performance.now();
      const seen = { samples: 0, zero: 0, most: 0 };
      const wrong: unknown[] = [];
      await waitFor(
        async () => {
          for (const { name, troubles = [], restarts } of await serving.all()) {
            if (troubles.length > 0 || restarts > 0) wrong.push({ name, troubles, restarts });
          }
          const alerts = (await watching?.alerts()) ?? [];
          wrong.push(...alerts.filter(({ state }) => state === 'firing'));
          const rpo = await metric('rpo_seconds', 'shop');
          seen.samples += 1;
          seen.zero += rpo === 0 ? 1 : 0;
          seen.most = Math.max(seen.most, rpo);
          return performance.now() - began > IDLE && rpo === 0;
        },
        { intervalMs: 500, timeoutMs: IDLE + 120_000 },
      );
      expect(wrong).toEqual([]);
      expect([await serving.pidOf('shop'), await serving.pidOf('lazy')]).toEqual(pids);
      expect(webhooks()).toEqual([]);
      await waitFor(() => heartbeats().length > 0);
      if (process.env.WALKEEP_IDLE_SECONDS) console.log('recovery point while idle:', seen);
    },
    IDLE + 180_000,
  );

  it(`tells that the line is cut (Prometheus: ${prometheus ?? 'missing, skipped'})`, async () => {
    const pid = await serving.pidOf('shop');
    serving.write({ ...servers, shop: { ...servers.shop, rpo: '2s' } });
    expect((await serving.ctl('reload')).code).toBe(0);
    const cut = performance.now();
    await server.stop('immediate');
    await waitFor(async () => (await metric('rpo_seconds', 'shop')) > 2);
    const rose = performance.now() - cut;
    await waitFor(async () => (await metric('trouble', 'shop",kind="rpo')) === 1);
    const [message] = await waitFor(() => webhooks().length > 0 && webhooks());
    expect(JSON.parse(message?.body ?? '')).toMatchObject({
      ...{ version: 1, event: 'begin', id: 'shop:rpo', server: 'shop', kind: 'rpo' },
    });
    const fires = async () =>
      (await watching?.alerts())?.some(
        ({ state, labels: { alertname, server: of } }) =>
          state === 'firing' && alertname === 'WalkeepRecoveryPoint' && of === 'shop',
      );
    if (watching) await waitFor(fires);
    // The receiver tries again; another would do no better.
    expect(await serving.pidOf('shop')).toBe(pid);
    expect(serving.run.stderr).not.toContain(endpoint.url);
    if (process.env.WALKEEP_IDLE_SECONDS) console.log('ms until the metric rose:', rose);
    await server.start();
    const before = heartbeats().length;
    await waitFor(() => heartbeats().length > before);
  });

  it('has the metrics that rules and dashboards read, in what is really scraped', async () => {
    const there = [...metricsIn(await scrape()).keys()];
    const used = new Set(rules.match(/\bwalkeep_[a-z_]+/g));
    const ofNothingHere = /store|verify|backup|member|diverged|slot|gaps|free/;
    for (const name of used) if (!ofNothingHere.test(name)) expect(there).toContain(name);
  });
});
