interface Timer {
  run: () => void;
  every: number;
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
      next.at += next.every;
      next.run();
    }
    this.now = Math.max(this.now, until);
  }

  /** A process died: nothing of it runs again. */
  clear(): void {
    this.timers.clear();
  }

  /** Replaces performance.now and the intervals; the function returned puts them back. */
  install(): () => void {
    const { setInterval, clearInterval } = globalThis;
    const now = Object.getOwnPropertyDescriptor(performance, 'now');
    Object.defineProperty(performance, 'now', { value: () => this.now, configurable: true });
    globalThis.setInterval = ((run: () => void, every: number) => {
      const timer = { run, every, at: this.now + every };
      this.timers.add(timer);
      return timer;
    }) as unknown as typeof setInterval;
    globalThis.clearInterval = ((timer: Timer) => {
      this.timers.delete(timer);
    }) as unknown as typeof clearInterval;
    return () => {
      globalThis.setInterval = setInterval;
      globalThis.clearInterval = clearInterval;
      if (now) Object.defineProperty(performance, 'now', now);
      else Reflect.deleteProperty(performance, 'now');
    };
  }
}
