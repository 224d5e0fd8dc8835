import { expect, it } from 'vitest';
import { Budget } from '../../../src/serve/observer/budget.js';

it('takes a tenth of the time in the long run, however much there is to do', () => {
  const budget = new Budget(0);
  let worked = 0;
  for (let now = 0; now < 600_000; now += 10) {
    if (!budget.allows(now, true)) continue;
    budget.spend(now, 150);
    worked += 150;
  }
  expect(worked).toBeLessThan(66_000);
  expect(worked).toBeGreaterThan(54_000);
});

it('lets who did little look at once, also though others only look again', () => {
  const budget = new Budget(0);
  while (budget.allows(0, false)) budget.spend(0, 100);
  expect(budget.allows(0, true)).toBe(true);
});

it('owes at most ten seconds of waiting', () => {
  const budget = new Budget(0);
  budget.spend(0, 1_000_000);
  expect(budget.allows(9000, true)).toBe(false);
  expect(budget.allows(10_100, true)).toBe(true);
});
