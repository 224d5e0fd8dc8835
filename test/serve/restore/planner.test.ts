import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { PlanAnswer, PlanRequest } from '../../../src/serve/restore/messages.js';
import { Planner, type PlannerLimits, type Planning } from '../../../src/serve/restore/planner.js';
import { planOf } from './works.js';

/** Processes that answer when they are told to. */
class Scripted {
  readonly begun: { request: PlanRequest; end(answer?: PlanAnswer): void }[] = [];
  killed = 0;

  readonly launch = (request: PlanRequest): Planning => {
    let end: (answer?: PlanAnswer) => void = () => {};
    const answer = new Promise<PlanAnswer | undefined>((resolve) => {
      end = resolve;
    });
    this.begun.push({ request, end });
    return {
      answer,
      kill: () => {
        this.killed += 1;
        end();
      },
    };
  };
}

const request = (to: string): PlanRequest => ({ to, before: false, places: [] });
const planned: PlanAnswer = { state: 'planned', plannedAt: '', plan: planOf() };
const failed: PlanAnswer = { state: 'failed', error: { code: 'WK_STORAGE', message: 'no' } };

let scripted: Scripted;
const planner = (limits: Partial<PlannerLimits> = {}) => new Planner(scripted.launch, limits);
const settled = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  scripted = new Scripted();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('a planner', () => {
  it('makes one plan of the same request, and gives it again for a while', async () => {
    const one = planner({ fresh: 5000 });
    const answers = [one.plan(request('0/1')), one.plan(request('0/1'))];
    await vi.advanceTimersByTimeAsync(8000);
    answers.push(one.plan(request('0/1')));
    scripted.begun[0]?.end(planned);
    expect(await Promise.all(answers)).toEqual([planned, planned, planned]);
    await vi.advanceTimersByTimeAsync(4000);
    expect(await one.plan(request('0/1'))).toBe(planned);
    expect(scripted.begun).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(2000);
    void one.plan(request('0/1'));
    expect(scripted.begun).toHaveLength(2);
  });

  it('gives no answer for another state of the archive, nor one that failed', async () => {
    const one = planner();
    void one.plan(request('0/1'), 'now');
    void one.plan(request('0/1'), 'then');
    expect(scripted.begun).toHaveLength(2);
    for (const { end } of scripted.begun) end(failed);
    await settled();
    void one.plan(request('0/1'), 'now');
    expect(scripted.begun).toHaveLength(3);
  });

  it('has few processes at a time, and few who wait', async () => {
    const one = planner({ most: 2, waiting: 2 });
    const answers = ['0/1', '0/2', '0/3', '0/4', '0/5'].map((to) => one.plan(request(to)));
    expect(await answers[4]).toMatchObject({ error: { message: 'too many plans are asked for' } });
    expect(scripted.begun).toHaveLength(2);
    scripted.begun[0]?.end(planned);
    await settled();
    expect(scripted.begun.map((b) => b.request.to)).toEqual(['0/1', '0/2', '0/3']);
    // Who comes now does not get before who waits.
    const late = one.plan(request('0/6'));
    expect(scripted.begun).toHaveLength(3);
    for (let i = 1; i < 5; i++) {
      scripted.begun[i]?.end(planned);
      await settled();
    }
    expect(await late).toBe(planned);
    expect(scripted.begun.map((b) => b.request.to)).toEqual(['0/1', '0/2', '0/3', '0/4', '0/6']);
  });

  it('ends one that takes too long, also of the time that it waited', async () => {
    const one = planner({ most: 1, patience: 20_000 });
    const first = one.plan(request('0/1'));
    await vi.advanceTimersByTimeAsync(15_000);
    const second = one.plan(request('0/2'));
    await vi.advanceTimersByTimeAsync(5000);
    expect(await first).toMatchObject({
      error: { message: 'the archive did not answer within 20 seconds' },
    });
    expect(scripted.begun).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(15_000);
    expect(await second).toMatchObject({ state: 'failed' });
    expect(scripted.killed).toBe(2);
  });

  it('says so where a process ends without an answer, or does not begin', async () => {
    const one = planner();
    const answer = one.plan(request('0/1'));
    scripted.begun[0]?.end();
    expect(await answer).toMatchObject({ state: 'failed' });
    const broken = new Planner(() => {
      throw new Error('no memory');
    });
    expect(await broken.plan(request('0/1'))).toMatchObject({ error: { message: 'no memory' } });
    expect(await broken.plan(request('0/2'))).toMatchObject({ error: { message: 'no memory' } });
    expect(await broken.plan(request('0/3'))).toMatchObject({ error: { message: 'no memory' } });
  });

  it('ends its processes with itself', async () => {
    const one = planner({ most: 1 });
    const answers = [one.plan(request('0/1')), one.plan(request('0/2'))];
    await one.end();
    for (const answer of await Promise.all(answers)) {
      expect(answer).toMatchObject({ error: { message: '"walkeep serve" is being ended' } });
    }
    expect(scripted.begun).toHaveLength(1);
  });
});
