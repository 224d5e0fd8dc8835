import { readShipProgress, type ShipStatus } from '../archive/shipping/read-ship-progress.js';
import { WalkeepError } from '../errors.js';
import { formatLsn } from '../lsn.js';
import { formatBinaryBytes, formatSeconds } from '../units.js';
import { type CheckResult, judge } from './result.js';

/** Seconds that a place may be behind: as long as a large backlog, or a night's job, takes. */
const BEHIND = 600;

/** Of each place that the directory is shipped to: how far it is, and what keeps it. */
export async function checkShipping(directory: string): Promise<CheckResult[]> {
  try {
    return (await readShipProgress(directory)).flatMap(checkPlace);
  } catch (error) {
    if (!(error instanceof WalkeepError)) throw error;
    return [judge('shipping').fail(error.message, error.hint ?? 'Look at what it names.')];
  }
}

function checkPlace(status: ShipStatus): CheckResult[] {
  const { ok, warn, fail } = judge('shipping');
  const { place, state, trouble, held, running, directory, lag } = status;
  const where = `${place}: ${howFar(status)}`;
  const results = held.map(({ name, message }) =>
    fail(`${place}: ${name} is not shipped: ${message}`, 'Put a good copy in its place.'),
  );
  if (state === 'stopped' && trouble) {
    results.push(fail(`${where}; given up: ${trouble.message}`, trouble.hint ?? START));
  } else if (state === 'retrying' && trouble) {
    const hint = trouble.hint ?? 'See that the place can be reached; it is tried again.';
    results.push(warn(`${where}; away since ${trouble.since}: ${trouble.message}`, hint));
  } else if (lag.segments > 0 && lag.seconds > BEHIND) {
    const hint = running ? 'See what slows it down; more --jobs may help.' : START;
    results.push(
      warn(
        `${where}${running ? '' : '; nobody ships'}`,
        `${hint} If the place is not used any more, remove "${directory}".`,
      ),
    );
  } else if (held.length === 0) results.push(ok(where));
  return results;
}

const START = 'Start "walkeep ship", or "walkeep receive --store".';

function howFar({ position, lag }: ShipStatus): string {
  const at = position
    ? `up to ${formatLsn(position.lsn)} on timeline ${position.timeline}`
    : 'nothing yet';
  if (lag.segments === 0) return `${at}, all that is complete`;
  return `${at}, behind by ${formatBinaryBytes(lag.bytes)}, ${formatSeconds(lag.seconds)}`;
}
