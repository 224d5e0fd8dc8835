import fs from 'node:fs';
import { join } from 'node:path';
import { accessError, isGone, onArchive } from './access.js';
import type { LedgerState } from './ledger.js';

/** LEDGER_FILE of storage/ledger.ts, which is not loaded where there is none. */
const LEDGER_FILE = '.walkeep-ledger';

/** Looks at a ledger that is replaced whenever it is about to be read. */
const MOST_LOOKS = 20;

/** What the archive's ledger says; undefined if it has none. @throws ArchiveAccessError, StorageError */
export async function ledgerOf(directory: string): Promise<LedgerState | undefined> {
  const path = join(directory, LEDGER_FILE);
  const isThere = () =>
    onArchive('stat file', path, () => fs.lstatSync(path, { throwIfNoEntry: false })) !== undefined;
  for (let looks = 1; isThere(); looks++) {
    const { readLedger } = await import('./ledger.js');
    try {
      return await readLedger(directory);
    } catch (e) {
      if (!isGone(e) || looks === MOST_LOOKS) throw accessError('read file', path, e);
    }
  }
  return undefined;
}
