import { describe, expect, it } from 'vitest';
import type { BuilderAnswer } from '../../../src/serve/restore/builder.js';
import { Memory } from '../../../src/serve/web/memory.js';
import type { WebFacts } from '../../../src/serve/web/page.js';
import { restoreData, restorePage } from '../../../src/serve/web/restore-page.js';
import { answersOf, FAILED, PLANNED, REFUSED } from '../restore/answers.js';
import { workOf } from '../restore/works.js';
import { serverOf } from './facts.js';

const work = workOf('/srv/wal', [{ name: 'minio' }]);
const HOSTILE = '"><script>alert(1)</script>\u202e';

function page(answer: BuilderAnswer, query = '', name = 'shop') {
  const now = Date.parse('2026-08-01T13:00:00Z');
  const server = { ...serverOf(now), name };
  const facts: WebFacts = {
    servers: () => [server],
    configIsGood: () => true,
    work: () => work,
    restore: async () => answer,
  };
  const request = { facts, memory: new Memory(), server, query: new URLSearchParams(query), now };
  return { html: restorePage(request).then(({ body }) => `${body}`), data: restoreData(request) };
}

describe('the restore page', () => {
  it('has the command as it is to be copied, and what is lost', async () => {
    const html = await page(PLANNED).html;
    expect(html).toContain('>walkeep restore --to=&#39;0/5000028&#39; \\\n  /srv/wal /data</pre>');
    expect(html).toContain(
      '3 commits behind it, the last of 2026-08-01 12:30:00.000000 UTC, 30 min',
    );
    expect(html).toContain('transaction 770 at 0/4FFFF00');
    expect(html).not.toContain('style=');
  });

  it('keeps what was asked in the form', async () => {
    const html = await page(PLANNED, 'to=xid:5&before=on&from=minio&action=promote&timeline=7')
      .html;
    expect(html).toContain(
      'name="to" size="34" maxlength="200" placeholder="latest" value="xid:5"',
    );
    expect(html).toContain('value="on" checked');
    expect(html).toContain('value="minio" checked');
    expect(html).not.toContain('value="directory" checked');
    expect(html).toContain('<option value="promote" selected>');
    expect(html).toContain('<option selected>7</option>');
  });

  it('says why it cannot be, and links to what can', async () => {
    const { html: shown } = page(REFUSED);
    const html = await shown;
    expect(html).toContain('WAL is missing');
    expect(html).toContain('/server/shop/restore?to=0%2F4000000&amp;timeline=1&amp;from=directory');
    expect(html).toContain('timeline=2');
    expect(html).not.toContain('id="command"');
  });

  it('is of another status where nothing is known', async () => {
    expect((await page(FAILED).data).status).toBe(503);
    const invalid: BuilderAnswer = {
      state: 'invalid',
      faults: [{ field: 'to', message: 'is bad' }],
    };
    const { html, data } = page(invalid, 'to=x');
    expect((await data).status).toBe(400);
    expect(await html).toMatch(/aria-invalid="true"[\s\S]*to is bad/);
  });

  it('shows whatever was asked and found as text', async () => {
    const fields = ['to', 'pgdata', 'timeline', 'backup', 'action'];
    const query = new URLSearchParams(fields.map((field): [string, string] => [field, HOSTILE]));
    for (const answer of answersOf(HOSTILE)) {
      const html = await page(answer, `${query}`, HOSTILE).html;
      expect(html).not.toContain('<script');
      expect(html).not.toContain('\u202e');
    }
  });
});
