/** Milliseconds; Node.js takes a longer delay for none at all. */
export const LONGEST_TIMER = 2 ** 31 - 1;

/** Resolves after `ms`, or at once when the signal aborts. */
export function abortableDelay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, LONGEST_TIMER));
    signal.addEventListener('abort', done, { once: true });
  });
}
