interface Timer {
  run: () => void;
  /** Undefined: once. */
  every?: number;
  at: number;
}

/** Time that passes only when told to; stands in for the global timers while installed. */
export class VirtualClock {
  now = 0;
  private timers = new Set<Timer>();

  advance(ms: number): void {
    const until = this.now + ms;
    for (;;) {
      let next: Timer | undefined;
      for (const t of this.timers) if (t.at <= until && (!next || t.at < next.at)) next = t;
      if (!next) break;
      this.now = Math.max(this.now, next.at);
      if (next.every === undefined) this.timers.delete(next);
      else next.at += next.every;
      next.run();
    }
    this.now = Math.max(this.now, until);
  }

  /** A process died: nothing of it runs again. */
  clear(): void {
    this.timers.clear();
  }

  /** Replaces performance.now and the timers; the function returned puts them back. */
  install(): () => void {
    const { setInterval, clearInterval, setTimeout, clearTimeout } = globalThis;
    const now = Object.getOwnPropertyDescriptor(performance, 'now');
    Object.defineProperty(performance, 'now', { value: () => this.now, configurable: true });
    const add = (timer: Timer) => {
      this.timers.add(timer);
      return timer;
    };
    const remove = (timer: Timer) => {
      this.timers.delete(timer);
    };
    globalThis.setInterval = ((run: () => void, every: number) =>
      add({ run, every, at: this.now + every })) as unknown as typeof setInterval;
    globalThis.setTimeout = ((run: () => void, after: number) =>
      add({ run, at: this.now + after })) as unknown as typeof setTimeout;
    globalThis.clearInterval = remove as unknown as typeof clearInterval;
    globalThis.clearTimeout = remove as unknown as typeof clearTimeout;
    return () => {
      Object.assign(globalThis, { setInterval, clearInterval, setTimeout, clearTimeout });
      if (now) Object.defineProperty(performance, 'now', now);
      else Reflect.deleteProperty(performance, 'now');
    };
  }
}
