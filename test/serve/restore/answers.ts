import type { BuilderAnswer } from '../../../src/serve/restore/builder.js';
import { planOf, QUERY } from './works.js';

const AT = '2026-08-01T13:00:00.000Z';

export const PLANNED: Extract<BuilderAnswer, { state: 'planned' }> = {
  ...{ state: 'planned', plannedAt: AT, plan: planOf(), query: QUERY },
  ...{ command: "walkeep restore --to='0/5000028' \\\n  /srv/wal /data", needs: ['much'] },
  steps: ['start it'],
};

export const REFUSED: Extract<BuilderAnswer, { state: 'refused' }> = {
  ...{ state: 'refused', plannedAt: AT, query: QUERY, warnings: ['a timeline is passed by'] },
  error: { code: 'WK_UNREACHABLE', message: 'WAL is missing', hint: 'Use another.' },
  before: { to: '0/4000000', timeline: 1, lsn: '0/4000028', time: '2026-08-01T10:00:00.000000Z' },
  timelines: [2],
};

export const FAILED: Extract<BuilderAnswer, { state: 'failed' }> = {
  ...{ state: 'failed', error: { code: 'WK_TIMEOUT', message: 'late', hint: 'Ask again.' } },
};

/** All answers with the same text wherever one can be. */
export function answersOf(text: string): BuilderAnswer[] {
  const commit = { lsn: text, time: text, xid: 1 };
  const { backup } = planOf();
  const plan = planOf({
    backup: {
      ...{ ...backup, id: text, place: text, endedAt: text },
      ...{ tablespaces: [text], chain: [text, text] },
    },
    ...{ last: commit, next: commit, warnings: [text] },
    timelines: [{ timeline: 1, until: text }],
    lost: {
      ...{ commits: 1, last: commit, isTorn: true, segments: 1 },
      beside: [{ timeline: 2, from: text, last: commit }],
    },
  });
  return [
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
}
