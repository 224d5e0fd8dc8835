import type { BackupArea } from '../archive/backups/area.js';
import { openChain } from '../archive/combine/chain.js';
import { openCombined } from '../archive/combine/file.js';
import { FrameCache } from '../archive/combine/frames.js';
import { planChain } from '../archive/combine/plan.js';
import type { ArchiveKeys } from '../archive/places/open-archive.js';
import type { BackupRecord } from '../base/backup-record.js';
import { CorruptObjectError, EncryptedError } from '../errors.js';

/**
 * Combines a chain of backups as far as that can fail: each backup of it was compared with its manifest
 * already, so that what is left is where each block of each file comes from. Of all that is read: the
 * indexes, the manifests and what of the incremental ones is about their blocks.
 * @param records the full backup first
 * @returns why it cannot be restored
 * @throws what the place throws, if it cannot be told; the signal's reason
 */
export async function chainProblem(
  area: BackupArea,
  records: readonly BackupRecord[],
  keys: ArchiveKeys | undefined,
  signal: AbortSignal | undefined,
): Promise<CorruptObjectError | undefined> {
  try {
    const links = records.map((record) => ({ record, area }));
    const chain = await openChain(links, keys, signal);
    const frames = new FrameCache(chain.readers, signal);
    for (const file of await planChain(chain, signal)) {
      await openCombined({ ...file, map: undefined }, { ...chain, frames });
    }
    return undefined;
  } catch (e) {
    if (e instanceof CorruptObjectError) return e;
    // What is closed to whoever verifies is said of each backup.
    if (e instanceof EncryptedError) return undefined;
    throw e;
  }
}
