/** A place on the axis of times. */
export interface Tick {
  /** 0 to 1. */
  x: number;
  label: string;
  /** Is left out where there is little room. */
  minor: boolean;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Milliseconds between ticks that a person reads without counting. */
const STEPS = [
  ...[
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
  ],
  ...[HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR],
  ...[DAY, 2 * DAY, 5 * DAY, 10 * DAY],
];
/** Months between ticks, where days are too short. */
const MONTHS = [1, 2, 3, 6, 12, 24, 60, 120];

const NAMES = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');

/** Ticks in UTC from one time to another, at most `most` of them; the ends are left free. */
export function ticksOf(from: number, to: number, most = 8): Tick[] {
  const span = to - from;
  if (!(span > 0)) return [];
  const step = STEPS.find((ms) => span / ms <= most);
  const times = step === undefined ? byMonths(from, to, most) : byTime(from, to, step);
  let day = '';
  return times
    .map((at) => ({ at, x: (at - from) / span }))
    .filter(({ x }) => x >= 0.03 && x <= 0.95)
    .map(({ at, x }, i): Tick => {
      const label = labelOf(at, step, day);
      day = dayOf(at);
      return { x, label, minor: i % 2 === 1 };
    });
}

function byTime(from: number, to: number, step: number): number[] {
  const times: number[] = [];
  if (step > DAY) {
    // From the first of each month on: the same days, whatever the range begins with.
    const days = step / DAY;
    for (let at = Math.ceil(from / DAY) * DAY; at <= to; at += DAY) {
      const date = new Date(at).getUTCDate();
      if ((date - 1) % days === 0 && date + days / 2 <= 31) times.push(at);
    }
    return times;
  }
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) times.push(at);
  return times;
}

function byMonths(from: number, to: number, most: number): number[] {
  const months = (to - from) / (30.4 * DAY);
  const step = MONTHS.find((n) => months / n <= most) ?? Math.ceil(months / most / 12) * 12;
  const start = new Date(from);
  const times: number[] = [];
  let month = start.getUTCFullYear() * 12 + start.getUTCMonth();
  month = Math.ceil(month / step) * step;
  for (;;) {
    const at = Date.UTC(Math.floor(month / 12), month % 12, 1);
    if (at > to) return times;
    if (at >= from) times.push(at);
    month += step;
  }
}

function dayOf(at: number): string {
  const date = new Date(at);
  return `${date.getUTCDate()} ${NAMES[date.getUTCMonth()]}`;
}

function labelOf(at: number, step: number | undefined, day: string): string {
  const date = new Date(at);
  const month = date.getUTCMonth();
  if (step === undefined) {
    return month === 0 ? `${date.getUTCFullYear()}` : `${NAMES[month]} ${date.getUTCFullYear()}`;
  }
  if (step >= DAY || at % DAY === 0) return dayOf(at);
  const two = (n: number) => `${n}`.padStart(2, '0');
  const minute = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
  const time = step < MINUTE ? `${minute}:${two(date.getUTCSeconds())}` : minute;
  // Of which day it is, is said once.
  return day === '' ? `${dayOf(at)} ${time}` : time;
}
