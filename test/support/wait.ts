/** Resolves after `ms`. Only for the polling below: a test waits for a condition, not for time. */
export const delay = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Polls `condition` until it gives something truthy and returns that.
 * An exception of the condition counts as "not yet" and is shown if the time runs out.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: { timeoutMs?: number; intervalMs?: number; what?: string } = {},
): Promise<NonNullable<Exclude<T, false | 0 | ''>>> {
  const { timeoutMs = 60_000, intervalMs = 10, what = condition.toString() } = options;
  const end = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value as NonNullable<Exclude<T, false | 0 | ''>>;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= end) {
      throw new Error(`gave up after ${timeoutMs} ms waiting for ${what}`, { cause: last });
    }
    await delay(intervalMs);
  }
}
