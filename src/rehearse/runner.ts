import { UsageError } from '../errors.js';
import type { Owner } from '../restore/file-system.js';
import { namedOwner } from '../restore/owner.js';

/**
 * Whom the server runs as, which it does for root not at all; undefined: as this process's user.
 * @throws UsageError
 */
export async function runnerOf(given: string | undefined): Promise<Owner | undefined> {
  const self = process.getuid?.();
  if (self !== 0) {
    if (given === undefined || (await namedOwner(given)).uid === self) return undefined;
    throw new UsageError(`only root can run a server as "${given}"`);
  }
  if (given !== undefined) return namedOwner(given);
  try {
    return await namedOwner('postgres');
  } catch {
    return namedOwner('nobody');
  }
}
