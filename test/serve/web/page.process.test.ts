import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ServerStatus } from '../../../src/serve/status.js';
import { Web } from '../../../src/serve/web/web.js';
import { CHROMIUM, launchBrowser } from '../../support/browser.js';
import { scratchDir } from '../../support/scratch.js';
import { waitFor } from '../../support/wait.js';
import { dead, empty, ScriptedFacts, serverOf, withGaps } from './facts.js';

/** Where pictures of all pages go, for whoever wants to look at them; then all are judged, too. */
const PICTURES = process.env.WALKEEP_PAGE_PICTURES;
/** Takes longer than any machine needs. */
const PATIENCE = 120_000;
const NOW = Date.now();
const EVIL = `"><script>window.hit=1</script><img src=x onerror="window.hit=2">\u202e\u0000'`;

const SCENES: Readonly<Record<string, ServerStatus[]>> = {
  one: [serverOf(NOW)],
  gaps: [withGaps(NOW)],
  dead: [dead(NOW)],
  empty: [empty(NOW)],
  twenty: Array.from({ length: 20 }, (_, i) => {
    const name = `server-${i + 1}`;
    return [serverOf, withGaps, serverOf, dead, empty][i % 5]?.(NOW, { name }) as ServerStatus;
  }),
};

const PAINTED = `performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0`;

/** Scenes and pages that together have all there is. */
const JUDGED: readonly string[] = ['gaps server', 'dead all', 'empty all'];

/** As text for a browser: types of a page are not known here. */
const WIDTH = 'document.documentElement.scrollWidth';

describe.skipIf(CHROMIUM === undefined)('the page in Chromium', () => {
  let browser: Browser;
  let facts: ScriptedFacts;
  let web: Web;
  let origin: string;

  beforeAll(async () => {
    browser = await launchBrowser();
    facts = new ScriptedFacts(SCENES.one as ServerStatus[]);
    web = new Web(facts, facts.memory);
    await (await web.change({ listen: { host: '127.0.0.1', port: 0 } })).commit();
    origin = `http://127.0.0.1:${web.port}`;
  });

  afterAll(async () => {
    await browser?.close();
    await web?.close();
  });

  /** A page, and what its console said, which is nothing when all is well. */
  async function opened(options: Parameters<Browser['newContext']>[0] = {}) {
    const context: BrowserContext = await browser.newContext(options);
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    const said: string[] = [];
    page.on('console', (message) => {
      // A browser on a slow machine may lose a connection and ask again; a status is told as such.
      if (!message.text().startsWith('Failed to load resource: net::')) said.push(message.text());
    });
    page.on('pageerror', (error) => said.push(String(error)));
    return { page, said, close: () => context.close() };
  }

  const picture = async (page: Page, name: string) => {
    if (PICTURES === undefined) return;
    mkdirSync(PICTURES, { recursive: true });
    await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true });
  };

  for (const [width, colorScheme] of [
    [1280, 'light'],
    [1280, 'dark'],
    [360, 'light'],
    [360, 'dark'],
  ] as const) {
    it(`fits and is accessible at ${width} px, ${colorScheme}`, async () => {
      const { page, said, close } = await opened({ viewport: { width, height: 800 }, colorScheme });
      for (const [name, servers] of Object.entries(SCENES)) {
        // The page before may just begin to watch: of a server that is gone it would be told 404.
        await page.goto('about:blank');
        facts.all = servers;
        facts.memory.sample(servers, NOW - 5000);
        facts.memory.sample(servers, NOW);
        const [first] = servers;
        for (const [kind, path] of [
          ['all', '/'],
          ['server', `/server/${first?.name}`],
        ]) {
          await page.goto(`${origin}${path}`);
          expect(await page.evaluate(WIDTH)).toBe(width);
          await picture(page, `${name}-${kind}-${width}-${colorScheme}`);
          // It takes seconds: what is wide or narrow, or twenty times, is the same to it.
          if (!PICTURES && (width < 1280 || !JUDGED.includes(`${name} ${kind}`))) continue;
          const { violations } = await new AxeBuilder({ page }).analyze();
          expect(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])).toEqual(
            [],
          );
        }
      }
      expect(said).toEqual([]);
      await close();
    });
  }

  it('draws the red range as wide as the gap is, and each at least two pixels', async () => {
    const server = withGaps(NOW);
    facts.all = [server];
    const { page, close } = await opened({ viewport: { width: 360, height: 800 } });
    await page.goto(origin);
    const boxes = await page.evaluate<{ x: number; width: number }[]>(
      `[...document.querySelectorAll('.bar .seg.gap')].map((seg) => {
        const [box, bar] = [seg.getBBox(), seg.ownerSVGElement.getBoundingClientRect()];
        return { x: box.x / bar.width, width: box.width };
      })`,
    );
    expect(boxes.length).toBe(2);
    for (const { width } of boxes) expect(width).toBeGreaterThanOrEqual(2);
    expect(boxes[0]?.x).toBeCloseTo(3.5 / 13.5, 2);
    expect(boxes[1]?.x).toBeCloseTo(11.5 / 13.5, 2);
    await close();
  });

  it('runs nothing of hostile names and texts', async () => {
    const error = { code: EVIL, message: EVIL, hint: EVIL };
    const evil = withGaps(NOW, {
      ...{ name: EVIL, state: 'held', ended: error },
      receiver: {
        ...{ state: 'disconnected', segments: 0, connections: 0, error },
        members: { [EVIL]: { covers: null, message: EVIL } },
      },
    });
    facts.all = [evil];
    facts.note({ level: 'error', event: EVIL, message: EVIL, server: EVIL, hint: EVIL });
    const { page, said, close } = await opened();
    for (const path of ['/', `/server/${encodeURIComponent(EVIL)}`]) {
      await page.goto(`${origin}${path}`);
      expect(await page.evaluate('window.hit')).toBeUndefined();
      expect(await page.locator('img, main script').count()).toBe(0);
      expect(await page.locator('h1').count()).toBe(1);
    }
    // What comes later is as inert.
    facts.all = [{ ...evil, ended: { ...error, message: `${EVIL}<b id="late">later</b>` } }];
    await page.locator('#troubles', { hasText: 'later' }).waitFor();
    expect(await page.locator('#late').count()).toBe(0);
    expect(await page.evaluate('window.hit')).toBeUndefined();
    expect(said).toEqual([]);
    await close();
  });

  it('shows what happens without being loaded again, and keeps where somebody is', async () => {
    facts.all = [serverOf(NOW), serverOf(NOW, { name: 'ledger' })];
    const { page, said, close } = await opened();
    await page.goto(origin);
    await page.evaluate('window.mark = 1');
    await page.locator('#s-shop h2 a').focus();
    facts.all = [withGaps(NOW), serverOf(NOW, { name: 'ledger' })];
    await page.locator('#s-shop .seg.gap').first().waitFor();
    await page.locator('#alarms', { hasText: 'Needs attention: shop' }).waitFor();
    expect(await page.evaluate('document.activeElement.textContent')).toBe('shop');
    expect(await page.evaluate('window.mark')).toBe(1);
    // Another server is another page.
    facts.all = [serverOf(NOW), serverOf(NOW, { name: 'more' })];
    await page.locator('#s-more').waitFor();
    expect(await page.evaluate('window.mark')).toBeUndefined();
    expect(said).toEqual([]);
    await close();
  });

  it('is walked through by keyboard', async () => {
    facts.all = [serverOf(NOW), withGaps(NOW, { name: 'ledger' })];
    const { page, close } = await opened();
    await page.goto(origin);
    const focused = () =>
      page.evaluate<string>('document.activeElement.textContent.trim().slice(0, 40)');
    const seen: string[] = [];
    for (let i = 0; i < 5; i += 1) {
      await page.keyboard.press('Tab');
      seen.push(await focused());
    }
    expect(seen).toEqual(['Skip to the content', 'Servers', 'ledger', 'shop', 'ledger']);
    await page.locator('#s-ledger h2 a').focus();
    await page.keyboard.press('Enter');
    await page.waitForURL('**/server/ledger');
    // Wide tables are scrolled by keyboard, too.
    const stops = await page.evaluate<number[]>(
      `[...document.querySelectorAll('.scroll')].map((one) => one.tabIndex)`,
    );
    expect(new Set(stops)).toEqual(new Set([0]));
    await close();
  });

  it('says all there is without script', async () => {
    facts.all = [withGaps(NOW), dead(NOW, { name: 'orders' })];
    const { page, said, close } = await opened({ javaScriptEnabled: false });
    await page.goto(origin);
    expect(await page.locator('.bar').count()).toBe(2);
    expect(await page.locator('.bar').first().getAttribute('aria-label')).toMatch(
      /WAL is missing: .* \(timeline 2, 19\/0 to 19\/3000000\)/,
    );
    expect(await page.locator('.stamp a').innerText()).toBe('Load again');
    expect(await page.locator('noscript meta').getAttribute('http-equiv')).toBe('refresh');
    await page.locator('#s-shop h2 a').click();
    expect(await page.locator('h1').innerText()).toBe('shop');
    expect(await page.locator('#windows tbody tr').count()).toBe(5);
    expect(said).toEqual([]);
    await close();
  });

  it('asks for the token, and opens by it', async () => {
    const dir = scratchDir('token');
    const tokenFile = join(dir, 'token');
    writeFileSync(tokenFile, 'a-token-of-more-than-sixteen\n', { mode: 0o600 });
    const locked = new Web(facts, facts.memory);
    await (await locked.change({ listen: { host: '127.0.0.1', port: 0 }, tokenFile })).commit();
    facts.all = [serverOf(NOW)];
    const { page, close } = await opened();
    await page.goto(`http://127.0.0.1:${locked.port}/server/shop`);
    await page.getByLabel('Token').fill('wrong');
    await page.keyboard.press('Enter');
    await page.locator('[role=alert]', { hasText: 'not the token' }).waitFor();
    await waitFor(async () => {
      const answered = page.waitForResponse((response) => response.url().endsWith('/login'));
      await page.getByLabel('Token').fill('a-token-of-more-than-sixteen');
      await page.keyboard.press('Enter');
      // Until the wait after a wrong one is over it is not looked at.
      return (await answered).status() === 303;
    });
    await page.locator('h1', { hasText: 'shop' }).waitFor();
    expect(new URL(page.url()).pathname).toBe('/server/shop');
    // Events need it, too, and have it.
    facts.all = [withGaps(NOW)];
    await page.locator('.seg.gap').first().waitFor();
    await close();
    await locked.close();
  });

  it('is there soon', async () => {
    facts.all = SCENES.twenty as ServerStatus[];
    const { page, close } = await opened();
    const paints: number[] = [];
    const answers: number[] = [];
    for (let i = 0; i < 5; i += 1) {
      const begun = performance.now();
      await (await fetch(origin)).text();
      answers.push(Math.round(performance.now() - begun));
      await page.goto(origin);
      const paint = await waitFor(() => page.evaluate<number>(PAINTED));
      paints.push(Math.round(paint));
    }
    console.log('20 servers: ms to the answer', answers, 'to the first contentful paint', paints);
    expect(paints.length).toBe(5);
    await close();
  });
});
