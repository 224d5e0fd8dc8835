import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHROMIUM, launchBrowser } from '../../support/browser.js';
import { runCli } from '../../support/cli.js';
import { commitArchive } from '../../support/commit-archive.js';
import { archiveDirectory } from '../../support/receiving.js';
import { scratchDir } from '../../support/scratch.js';
import { freePort } from '../../support/server-config.js';
import { Serving } from '../../support/serving.js';
import { waitFor } from '../../support/wait.js';

const TOKEN = 'a-token-of-more-than-sixteen';
const OTHER = 'another-token-that-is-as-long';

describe('serve with a page', () => {
  const tokenFile = join(scratchDir('token'), 'token');
  let serving: Serving;
  let more: { web?: object };
  let port: number;
  /** Nobody is there: what the page says of it is known. */
  let servers: Parameters<Serving['write']>[0];

  beforeAll(async () => {
    port = await freePort();
    const nobody = `host=127.0.0.1 port=${await freePort()} user=x`;
    servers = {
      shop: { connection: nobody, directory: archiveDirectory() },
    };
    more = { web: { listen: `127.0.0.1:${port}` } };
    serving = await Serving.start(servers, more);
  });

  afterAll(() => serving?.run.stop('SIGKILL'));

  const get = (path: string, token?: string) =>
    fetch(`http://127.0.0.1:${port}${path}`, {
      headers: { accept: 'text/html', ...(token ? { authorization: `Bearer ${token}` } : {}) },
    });
  const reload = async (web: object | undefined) => {
    more.web = web as object;
    serving.write(servers);
    return serving.ctl('reload');
  };

  it('tells of a server that is not there', async () => {
    await waitFor(async () => (await (await get('/')).text()).includes('Not connected'));
    const health = await get('/health/shop');
    expect(health.status).toBe(503);
    expect(await health.text()).toMatch(/^(disconnected|connecting)/);
    // When it was looked at.
    const page = await waitFor(async () => {
      const text = await (await get('/server/shop')).text();
      return text.includes('The archive is empty') && text;
    });
    expect(page).not.toContain('undefined');
    const { servers: all } = (await (await get('/status.json')).json()) as { servers: object[] };
    expect(all).toMatchObject([{ name: 'shop', rpoLimitSeconds: 30 }]);
  });

  it.skipIf(CHROMIUM === undefined)(
    'shows a gap where "list --json" has it, on an open page',
    async () => {
      const { directory, names } = commitArchive();
      const kept = { connection: (servers.shop as { connection: string }).connection, directory };
      servers = { ...servers, kept };
      expect(await reload(more.web)).toMatchObject({ code: 0 });
      await waitFor(async () => (await serving.status('kept')).archive?.segments === names.length);
      const browser = await launchBrowser();
      const page = await browser.newPage();
      page.setDefaultTimeout(120_000);
      await page.goto(`http://127.0.0.1:${port}/server/kept`);
      await page.locator('#timelines td').first().waitFor();
      await page.evaluate('window.mark = 1');
      renameSync(join(directory, names[4] as string), join(scratchDir('gone'), 'segment'));
      const gone = performance.now();
      await page.locator('.bar .seg.gap').waitFor();
      console.log(
        `ms from a lost segment to red on the page: ${Math.round(performance.now() - gone)}`,
      );
      expect(await page.evaluate('window.mark')).toBe(1);
      const run = runCli(['list', '--json', directory]);
      await run.exit;
      const objects = run.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      const [gap] = objects.filter(({ type }) => type === 'gap');
      const row = await page.locator('#windows tr', { hasText: 'missing' }).innerText();
      expect(row).toContain(`${gap.from} to ${gap.to}`);
      const { gaps = [] } = (await serving.status('kept')).archive ?? {};
      const time = (iso = '') => `${iso.slice(0, 19).replace('T', ' ')} UTC`;
      expect(await page.locator('.bar .seg.gap title').textContent()).toContain(
        `${time(gaps[0]?.after)} – ${time(gaps[0]?.before)}`,
      );
      await browser.close();
    },
  );

  it('asks for a token from when one is configured, and for another when that is', async () => {
    const web = { listen: `127.0.0.1:${port}`, token_file: tokenFile };
    // With a fault nothing changes.
    expect((await reload(web)).code).not.toBe(0);
    expect((await get('/')).status).toBe(200);
    writeFileSync(tokenFile, `${TOKEN}\n`, { mode: 0o600 });
    expect(await reload(web)).toMatchObject({ code: 0 });
    expect((await get('/')).status).toBe(401);
    expect((await get('/', TOKEN)).status).toBe(200);
    writeFileSync(tokenFile, `${OTHER}\n`);
    expect(await reload(web)).toMatchObject({ code: 0 });
    expect((await get('/', OTHER)).status).toBe(200);
    expect((await get('/', TOKEN)).status).toBe(401);
    expect(serving.run.stderr).not.toMatch(/token-(of|that)/);
  });

  it('answers elsewhere after a reload, and nowhere', async () => {
    const before = port;
    port = await freePort();
    expect(await reload({ listen: `127.0.0.1:${port}` })).toMatchObject({ code: 0 });
    expect((await get('/')).status).toBe(200);
    await expect(fetch(`http://127.0.0.1:${before}/`)).rejects.toThrow();
    expect(await reload(undefined)).toMatchObject({ code: 0 });
    await expect(get('/')).rejects.toThrow();
  });

  it('does not start where everybody could read it', async () => {
    const file = join(scratchDir('open'), 'walkeep.yaml');
    const web = { listen: `0.0.0.0:${port}` };
    writeFileSync(file, JSON.stringify({ version: 1, web, servers }));
    const run = runCli(['serve', '-c', file]);
    expect((await run.exit).code).toBe(1);
    expect(run.stderr).toContain('web.listen: is no loopback address');
  });
});
