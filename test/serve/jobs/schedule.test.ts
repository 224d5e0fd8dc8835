import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dealtWith, looked, Schedule, type Watched } from '../../../src/serve/jobs/schedule.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const at = (text: string): number => Date.parse(`${text}Z`);

/** Minutes and hours, days and weekdays, as people write them. */
const schedules = fc
  .tuple(
    fc.oneof(fc.constantFrom('*', '*/5', '*/20', '7-9'), fc.nat(59).map(String)),
    fc.oneof(fc.constantFrom('*', '*/3', '1,13'), fc.nat(23).map(String)),
    fc.constantFrom('*', '*', '*', '1', '28-31'),
    fc.constantFrom('*', '*', '2', 'jan-jun'),
    fc.constantFrom('*', '*', 'sun', 'mon-fri'),
  )
  .map((parts) => parts.join(' '));
const moments = fc.integer({ min: at('2024-01-01'), max: at('2031-01-01') });

/** A job that lives through some times of the clock, and what it did. */
class Life {
  readonly runs: { due: number; now: number }[] = [];
  readonly #schedule: Schedule;
  watched: Watched;

  constructor(text: string, now: number) {
    this.#schedule = new Schedule(text);
    this.watched = { seen: now, dealt: [] };
  }

  look(now: number): void {
    const due = this.#schedule.due(this.watched, now);
    if (due === undefined) this.watched = looked(this.watched, now);
    else {
      this.runs.push({ due, now });
      this.watched = dealtWith(this.watched, due, now);
    }
  }

  /** All times in (from, to]. */
  times(from: number, to: number): number[] {
    const found: number[] = [];
    for (let next = this.#schedule.after(from); next !== undefined && next <= to; ) {
      found.push(next);
      next = this.#schedule.after(next);
    }
    return found;
  }
}

describe('a schedule', () => {
  it('says what comes and what was, at the minute itself, too', () => {
    const daily = new Schedule('30 1 * * *');
    const time = at('2026-03-29T01:30:00');
    expect(daily.after(time - 1)).toBe(time);
    expect(daily.after(time)).toBe(time + 24 * HOUR);
    expect(daily.until(time)).toBe(time);
    expect(daily.until(time + 59_999)).toBe(time);
    expect(daily.until(time - 1)).toBe(time - 24 * HOUR);
    expect(new Schedule('0 0 29 2 *').until(at('2027-01-01T00:00:00'))).toBe(
      at('2024-02-29T00:00'),
    );
  });

  it('agrees with itself in both directions', () => {
    fc.assert(
      fc.property(schedules, moments, (text, moment) => {
        const schedule = new Schedule(text);
        const next = schedule.after(moment);
        if (next === undefined) return;
        expect(next).toBeGreaterThan(moment);
        expect(next % MINUTE).toBe(0);
        expect(schedule.until(next)).toBe(next);
        const before = schedule.until(next - 1);
        expect(before === undefined || before <= moment).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('begins each time once, where it is looked at often', () => {
    fc.assert(
      fc.property(schedules, moments, (text, start) => {
        const life = new Life(text, start);
        const end = start + 3 * HOUR;
        for (let now = start; now <= end; now += MINUTE) life.look(now);
        expect(life.runs.map(({ due }) => due)).toEqual(life.times(start, end));
      }),
      { numRuns: 20 },
    );
  });

  it('begins once what was missed, however often it was', () => {
    fc.assert(
      fc.property(schedules, moments, fc.nat(50 * HOUR), (text, start, asleep) => {
        const life = new Life(text, start);
        life.look(start + asleep);
        life.look(start + asleep);
        const last = life.times(start, start + asleep).at(-1);
        expect(life.runs.map(({ due }) => due)).toEqual(last === undefined ? [] : [last]);
      }),
      { numRuns: 100 },
    );
  });

  it('runs no time twice, and leaves none out, wherever the clock goes', () => {
    const leaps = fc.array(
      fc.oneof(
        { weight: 3, arbitrary: fc.integer({ min: 1000, max: 10 * MINUTE }) },
        { weight: 1, arbitrary: fc.integer({ min: -6 * HOUR, max: 6 * HOUR }) },
      ),
      { minLength: 1, maxLength: 120 },
    );
    fc.assert(
      fc.property(schedules, moments, leaps, (text, start, steps) => {
        const life = new Life(text, start);
        let now = start;
        for (const step of steps) {
          const before = now;
          now += step;
          const done = life.runs.length;
          life.look(now);
          const begun = life.runs.slice(done).map(({ due }) => due);
          const passed = life.times(before, now);
          const known = life.runs.slice(0, done).map(({ due }) => due);
          const open = passed.filter((time) => !known.includes(time));
          // What passed and was not run before is run, or is older than what is run now.
          expect(begun).toEqual(open.slice(-1));
        }
        const all = life.runs.map(({ due }) => due);
        expect(new Set(all).size).toBe(all.length);
      }),
      { numRuns: 100 },
    );
  });

  it('is not kept waiting by a clock that was far ahead', () => {
    const start = at('2026-05-01T12:30:00');
    const life = new Life('0 * * * *', start);
    life.look(at('2099-01-01T00:00:30'));
    life.look(start + 1000);
    for (let now = start; now <= start + 2 * HOUR; now += MINUTE) life.look(now);
    expect(life.runs.slice(1).map(({ due }) => due)).toEqual([
      at('2026-05-01T13:00:00'),
      at('2026-05-01T14:00:00'),
    ]);
  });

  it('goes by UTC, where no hour is left out or comes twice', () => {
    const life = new Life('30 2 * * *', at('2026-03-28T00:00:00'));
    for (let now = at('2026-03-28T00:00:00'); now < at('2026-03-31T00:00:00'); now += MINUTE) {
      life.look(now);
    }
    expect(life.runs).toHaveLength(3);
  });
});
