import { Cron } from 'croner';

const MINUTE = 60_000;
/** Times that are remembered as dealt with: of a schedule that comes each minute, two days. */
const MOST = 2880;

/** What was done about the times of a schedule: milliseconds of the wall clock. */
export interface Watched {
  /** The clock up to which it was looked at. */
  seen: number;
  /** Times for which something was done: the clock may be put back, and come to them again. */
  dealt: readonly number[];
}

/** A schedule as cron has it, in UTC. It knows no clock: whoever asks says what time it is. */
export class Schedule {
  readonly #cron: Cron;

  constructor(text: string) {
    this.#cron = new Cron(text, { timezone: 'UTC', mode: '5-part', paused: true });
  }

  /** The first time behind `moment`. */
  after(moment: number): number | undefined {
    return this.#cron.nextRun(new Date(moment))?.getTime();
  }

  /** The last time that is not behind `moment`. */
  until(moment: number): number | undefined {
    const minute = Math.floor(moment / MINUTE) * MINUTE;
    if (this.after(minute - 1) === minute) return minute;
    return this.#cron.previousRuns(1, new Date(minute))[0]?.getTime();
  }

  /**
   * The last time up to now that nothing was done about. All before it are done with it: what was
   * missed often is done once. A clock that was put back makes nothing due, and what it comes to for
   * the second time is not due again; so no time is lost to a clock that was wrong for a while.
   */
  due({ seen, dealt }: Watched, now: number): number | undefined {
    let last = now > seen ? this.until(now) : undefined;
    while (last !== undefined && last > seen) {
      if (!dealt.includes(last)) return last;
      last = this.until(last - 1);
    }
    return undefined;
  }
}

/** Nothing is due at `now`. */
export function looked({ dealt }: Watched, now: number): Watched {
  return { seen: now, dealt };
}

/** Something was done about the time that was due. */
export function dealtWith({ dealt }: Watched, due: number, now: number): Watched {
  return { seen: now, dealt: [...dealt, due].slice(-MOST) };
}
