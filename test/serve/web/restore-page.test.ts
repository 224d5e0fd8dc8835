import { describe, expect, it } from 'vitest';
import type { BuilderAnswer } from '../../../src/serve/restore/builder.js';
import { Memory } from '../../../src/serve/web/memory.js';
import type { WebFacts } from '../../../src/serve/web/page.js';
import { restoreData, restorePage } from '../../../src/serve/web/restore-page.js';
import { planOf, QUERY, workOf } from '../restore/works.js';
import { serverOf } from './facts.js';

const work = workOf('/srv/wal', [{ name: 'minio' }]);
const PLANNED: BuilderAnswer = {
  ...{ state: 'planned', plannedAt: '2026-08-01T13:00:00.000Z', plan: planOf(), query: QUERY },
  ...{ command: "walkeep restore --to='0/5000028' \\\n  /srv/wal /data", needs: ['much'] },
  steps: ['start it'],
};
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
    const html = await page({
      ...{ state: 'refused', plannedAt: '2026-08-01T13:00:00.000Z', query: QUERY, warnings: [] },
      error: { code: 'WK_UNREACHABLE', message: 'WAL is missing', hint: 'Use another.' },
      before: {
        to: '0/4000000',
        timeline: 1,
        lsn: '0/4000028',
        time: '2026-08-01T10:00:00.000000Z',
      },
      timelines: [2],
    }).html;
    expect(html).toContain('WAL is missing');
    expect(html).toContain('/server/shop/restore?to=0%2F4000000&amp;timeline=1&amp;from=directory');
    expect(html).toContain('timeline=2');
    expect(html).not.toContain('id="command"');
  });

  it('is of another status where nothing is known', async () => {
    const failed: BuilderAnswer = {
      state: 'failed',
      error: { code: 'WK_TIMEOUT', message: 'late' },
    };
    expect((await page(failed).data).status).toBe(503);
    const invalid: BuilderAnswer = {
      state: 'invalid',
      faults: [{ field: 'to', message: 'is bad' }],
    };
    const { html, data } = page(invalid, 'to=x');
    expect((await data).status).toBe(400);
    expect(await html).toMatch(/aria-invalid="true"[\s\S]*to is bad/);
  });

  it('shows whatever was asked and found as text', async () => {
    const text = HOSTILE;
    const commit = { lsn: text, time: text, xid: 1 };
    const { backup } = planOf();
    const plan = planOf({
      backup: {
        ...backup,
        id: text,
        place: text,
        endedAt: text,
        tablespaces: [text],
        chain: [text, text],
      },
      ...{
        last: commit,
        next: commit,
        warnings: [text],
        timelines: [{ timeline: 1, until: text }],
      },
      lost: {
        commits: 1,
        last: commit,
        isTorn: true,
        segments: 1,
        beside: [{ timeline: 2, from: text, last: commit }],
      },
    });
    const query = new URLSearchParams({
      to: text,
      pgdata: text,
      timeline: text,
      backup: text,
      action: text,
    });
    const answers: BuilderAnswer[] = [
      { ...PLANNED, plan, command: text, needs: [text], steps: [text] },
      {
        ...{ state: 'refused', plannedAt: text, query: { ...QUERY, to: text, from: [text] } },
        error: { code: text, message: text, hint: text, detail: text },
        after: { to: text, backup: text, timeline: 1, lsn: text, time: text },
        ...{ timelines: [1], warnings: [text] },
      },
      { state: 'failed', error: { code: text, message: text, hint: text, detail: text } },
      { state: 'invalid', faults: [{ field: undefined, message: text }] },
    ];
    for (const answer of answers) {
      const html = await page(answer, `${query}`, text).html;
      expect(html).not.toContain('<script');
      expect(html).not.toContain('\u202e');
    }
  });
});
