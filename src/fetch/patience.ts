import { setTimeout as sleep } from 'node:timers/promises';
import { WalkeepError } from '../errors.js';
import type { FetchOptions, FetchResult } from './fetch.js';

/** Milliseconds between the tries of a standby: together as long as a short outage, not longer. */
const RETRIES: readonly number[] = [100, 200, 400, 800, 1500];

/** Milliseconds between two looks for a file that is waited for. */
const POLL = 250;

/** Longest wait in seconds: PostgreSQL cannot be promoted meanwhile. */
export const MOST_WAIT = 300;

/** How long to try. */
export interface Patience {
  standby: boolean;
  /** Seconds to wait for a segment that is not there yet. */
  wait: number;
}

/** As `fetchFile`, or why a standby is told that there is nothing though that is not known. */
export type PatientResult = FetchResult | { found: false; reason: string; unknown: WalkeepError };

/**
 * Calls `fetch` again while a segment is waited for, and on a standby while what failed may pass:
 * an answer other than "not there" would end a healthy hot standby.
 * @throws what `fetch` throws: on a standby only what does not pass
 */
export async function fetchPatiently(
  fetch: (options: FetchOptions) => Promise<FetchResult>,
  options: FetchOptions,
  { standby, wait }: Patience,
): Promise<PatientResult> {
  const retries = standby ? [...RETRIES] : [];
  const end = performance.now() + Math.min(wait, MOST_WAIT) * 1000;
  for (;;) {
    try {
      const result = await fetch(options);
      const waits = !options.name.endsWith('.history') && performance.now() < end;
      if (result.found || !waits) return result;
      await sleep(POLL);
    } catch (error) {
      if (!standby || !(error instanceof WalkeepError && error.retryable)) throw error;
      const pause = retries.shift();
      if (pause === undefined) return { found: false, reason: error.message, unknown: error };
      await sleep(pause);
    }
  }
}
