import { LONGEST_TIMER } from '../delay.js';
import { SinkError } from '../errors.js';

/** Milliseconds that a sink has in all once a stop was asked for. */
const STOP_GRACE = 5000;
/** Milliseconds that `close` has even when all of that is used up. */
const CLOSE_GRACE = 1000;

/** Calls the methods of a caller's sink, each with a limit of time, and types what they throw. */
export class SinkCalls {
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

  /** @param timeout milliseconds for one call, 0 for none */
  constructor(timeout: number, signal: AbortSignal) {
    this.timeout = timeout;
    this.signal = signal;
    if (signal.aborted) this.onAbort();
    else signal.addEventListener('abort', this.onAbort, { once: true });
  }

  release(): void {
    this.signal.removeEventListener('abort', this.onAbort);
  }

  /** Runs a method of the sink; what it throws becomes a SinkError. */
  async run<T>(what: string, method: () => T | Promise<T>): Promise<T> {
    try {
      return await this.intime(method(), what === 'close' ? CLOSE_GRACE : 0);
    } catch (cause) {
      if (cause instanceof SinkError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new SinkError(`the sink failed to ${what}: ${reason}`, { cause });
    }
  }

  private async intime<T>(running: T | Promise<T>, atLeast: number): Promise<T> {
    if (!(running instanceof Object && 'then' in running)) return running;
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
            ? `the sink took nothing for ${this.timeout / 1000} seconds`
            : 'the sink did not come to an end after the stop';
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
