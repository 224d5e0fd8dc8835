import { LONGEST_TIMER } from '../delay.js';
import { SinkError } from '../errors.js';

/** Milliseconds that the caller's methods have in all once a stop was asked for. */
const STOP_GRACE = 5000;
/** Milliseconds that `close` has even when all of that is used up. */
const CLOSE_GRACE = 1000;

/** What is the caller's, and how it is said what it was called for. */
const CALLEES = {
  sink: { name: 'the sink', joint: 'to' },
  onSegment: { name: 'onSegment', joint: 'for' },
} as const;

/** Calls what is the caller's, with limits of time, and types what that throws. */
export class SinkCalls {
  private readonly callee: (typeof CALLEES)[keyof typeof CALLEES];
  private readonly timeout: number;
  private readonly signal: AbortSignal;
  /** When a stop that was asked for must be over. */
  private stopBy = Number.POSITIVE_INFINITY;
  /** Calls under way, told when their limit has moved. */
  private readonly underWay = new Set<() => void>();
  private readonly onAbort = (): void => {
    this.stopBy = performance.now() + STOP_GRACE;
    for (const rearm of this.underWay) rearm();
  };

  /**
   * @param timeout milliseconds for one call, 0 for none
   * @param signal from its abort on all calls have a few seconds together
   */
  constructor(callee: keyof typeof CALLEES, timeout: number, signal: AbortSignal) {
    this.callee = CALLEES[callee];
    this.timeout = timeout;
    this.signal = signal;
    if (signal.aborted) this.onAbort();
    else signal.addEventListener('abort', this.onAbort, { once: true });
  }

  release(): void {
    this.signal.removeEventListener('abort', this.onAbort);
  }

  /** Calls a method, for `what`; what it throws becomes a SinkError. */
  async run<T>(what: string, method: () => T | Promise<T>): Promise<T> {
    try {
      return await this.intime(what, method());
    } catch (cause) {
      if (cause instanceof SinkError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      const { name, joint } = this.callee;
      throw new SinkError(`${name} failed ${joint} ${what}: ${reason}`, { cause });
    }
  }

  private async intime<T>(what: string, running: T | Promise<T>): Promise<T> {
    if (!(running instanceof Object && 'then' in running)) return running;
    const { name, joint } = this.callee;
    const atLeast = what === 'close' ? CLOSE_GRACE : 0;
    const began = performance.now();
    let timer: NodeJS.Timeout | undefined;
    let arm = (): void => {};
    const late = new Promise<never>((_, reject) => {
      arm = () => {
        clearTimeout(timer);
        const limit = this.timeout === 0 ? Number.POSITIVE_INFINITY : began + this.timeout;
        const end = Math.min(limit, Math.max(this.stopBy, began + atLeast));
        if (end === Number.POSITIVE_INFINITY) return;
        const message =
          end === limit
            ? `${name} took nothing for ${this.timeout / 1000} seconds, called ${joint} ${what}`
            : `${name} did not come to an end after the stop, called ${joint} ${what}`;
        const wait = Math.min(Math.max(0, end - performance.now()), LONGEST_TIMER);
        timer = setTimeout(() => reject(new SinkError(message)), wait);
      };
      arm();
    });
    this.underWay.add(arm);
    try {
      return await Promise.race([running, late]);
    } finally {
      clearTimeout(timer);
      this.underWay.delete(arm);
    }
  }
}
