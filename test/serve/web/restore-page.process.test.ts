import { AxeBuilder } from '@axe-core/playwright';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BuilderAnswer } from '../../../src/serve/restore/builder.js';
import { Web } from '../../../src/serve/web/web.js';
import { CHROMIUM, launchBrowser } from '../../support/browser.js';
import { answersOf, FAILED, PLANNED, REFUSED } from '../restore/answers.js';
import { planOf } from '../restore/works.js';
import { ScriptedFacts, serverOf } from './facts.js';

/** Takes longer than any machine needs. */
const PATIENCE = 120_000;
const NARROW = 360;
const EVIL = `"><script>window.hit=1</script><img src=x onerror="window.hit=2">\u202e\u0000'`;
/** As texts for a browser: types of a page are not known here. */
const WIDTH = 'document.documentElement.scrollWidth';
const CLIPBOARD = 'navigator.clipboard.readText()';

const INVALID: BuilderAnswer = { state: 'invalid', faults: [{ field: 'to', message: 'is bad' }] };
const LONG: BuilderAnswer = {
  ...{ ...PLANNED, plan: planOf({ warnings: ['x'.repeat(400)] }) },
  ...{ command: `walkeep restore ${'/a'.repeat(300)}`, needs: ['y'.repeat(400)] },
};

describe.skipIf(CHROMIUM === undefined)(
  'the restore page in Chromium',
  { timeout: PATIENCE },
  () => {
    let browser: Browser;
    const facts = new ScriptedFacts([serverOf(Date.now())]);
    const web = new Web(facts, facts.memory);
    let path: string;
    let origin: string;

    beforeAll(async () => {
      browser = await launchBrowser();
      await (await web.change({ listen: { host: '127.0.0.1', port: 0 } })).commit();
      origin = `http://127.0.0.1:${web.port}`;
      path = `${origin}/server/${serverOf(0).name}/restore`;
    }, PATIENCE);

    afterAll(async () => {
      await browser?.close();
      await web.close();
    });

    async function opened(options: Parameters<Browser['newContext']>[0] = {}) {
      const context = await browser.newContext(options);
      context.setDefaultTimeout(PATIENCE);
      const page = await context.newPage();
      const said: string[] = [];
      page.on('pageerror', (error) => said.push(String(error)));
      return { context, page, said };
    }

    it('is accessible and fits whatever the answer is', async () => {
      const { context, page, said } = await opened({ viewport: { width: NARROW, height: 800 } });
      for (const answer of [PLANNED, REFUSED, FAILED, INVALID, LONG]) {
        facts.restorable = answer;
        await page.goto(path);
        expect([answer.state, await page.evaluate(WIDTH)]).toEqual([answer.state, NARROW]);
        if (answer === LONG) continue;
        const { violations } = await new AxeBuilder({ page }).analyze();
        expect(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])).toEqual([]);
      }
      expect(said).toEqual([]);
      await context.close();
    });

    it('copies the command as it stands there', async () => {
      const { context, page } = await opened({
        permissions: ['clipboard-read', 'clipboard-write'],
      });
      facts.restorable = PLANNED;
      await page.goto(path);
      await page.getByRole('button', { name: 'Copy' }).click();
      await page.getByRole('button', { name: 'Copied' }).waitFor();
      expect(await page.evaluate(CLIPBOARD)).toBe(PLANNED.command);
      await context.close();
    });

    it('is asked by its form, without script and by the keyboard', async () => {
      const { context, page } = await opened({ javaScriptEnabled: false });
      facts.restorable = REFUSED;
      await page.goto(path);
      await page.getByLabel('Target', { exact: true }).fill('xid:5');
      await page.getByLabel('stop just before it').check();
      await page.getByLabel('at the target').selectOption('promote');
      await page.getByLabel('Target', { exact: true }).press('Enter');
      await page.waitForURL(/to=xid/);
      const asked = new URL(page.url()).searchParams;
      expect([asked.get('to'), asked.get('before'), asked.get('action')]).toEqual([
        ...['xid:5', 'on', 'promote'],
      ]);
      expect(await page.getByLabel('Target', { exact: true }).inputValue()).toBe('xid:5');
      expect(await page.getByRole('button', { name: 'Copy' }).count()).toBe(0);
      await page.getByRole('link', { name: /The last before/ }).click();
      await page.waitForURL(/to=0%2F4000000/);
      await context.close();
    });

    it('is asked from the page of the server', async () => {
      const { context, page } = await opened();
      facts.restorable = PLANNED;
      await page.goto(`${origin}/server/${serverOf(0).name}`);
      await page.getByLabel('Time in UTC').fill('2026-08-01T12:00:00');
      await page.getByRole('button', { name: 'Show how' }).click();
      await page.waitForURL(/restore\?to=2026-08-01T12/);
      expect(await page.locator('#command').textContent()).toBe(PLANNED.command);
      await context.close();
    });

    it('runs nothing of what it shows', async () => {
      const { context, page } = await opened();
      const query = new URLSearchParams({ to: EVIL, pgdata: EVIL, timeline: EVIL, backup: EVIL });
      for (const answer of answersOf(EVIL)) {
        facts.restorable = answer;
        await page.goto(`${path}?${query}`);
        expect(await page.evaluate('window.hit')).toBeUndefined();
        expect(await page.locator('img').count()).toBe(0);
      }
      await context.close();
    });
  },
);
