/** When an unasked status reply is due; times in milliseconds of one monotonic clock. */
export class StatusSchedule {
  readonly interval: number;
  private last: number | undefined;

  /** @param interval milliseconds between replies; 0: none unless asked for. */
  constructor(interval: number) {
    this.interval = interval;
  }

  /** True at the very start and whenever `interval` has passed since the last reply. */
  due(now: number): boolean {
    return this.interval > 0 && (this.last === undefined || now - this.last >= this.interval);
  }

  sent(now: number): void {
    this.last = now;
  }

  /** Milliseconds since the last reply; Infinity before the first. */
  sinceLast(now: number): number {
    return this.last === undefined ? Number.POSITIVE_INFINITY : now - this.last;
  }
}
