import fs from 'node:fs';
import { join } from 'node:path';
import { accessError, onArchive } from './access.js';
import type { LedgerState } from './ledger.js';

/** LEDGER_FILE of storage/ledger.ts, which is not loaded where there is none. */
const LEDGER_FILE = '.walkeep-ledger';

/** What the archive's ledger says; undefined if it has none. @throws ArchiveAccessError, StorageError */
export async function ledgerOf(directory: string): Promise<LedgerState | undefined> {
  const path = join(directory, LEDGER_FILE);
  const there = onArchive('stat file', path, () => fs.lstatSync(path, { throwIfNoEntry: false }));
  if (!there) return undefined;
  const { readLedger } = await import('./ledger.js');
  return readLedger(directory).catch((e) => {
    throw accessError('read file', path, e);
  });
}
