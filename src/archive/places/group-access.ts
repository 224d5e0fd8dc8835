import { stat } from 'node:fs/promises';
import { join } from 'node:path';

/** S_IRGRP. */
export const GROUP_READ = 0o040;

/**
 * Whether what is stored in a directory is to be readable for its group: as the receiver's files are,
 * which its ledger tells.
 */
export async function isForGroup(directory: string): Promise<boolean> {
  const { LEDGER_FILE } = await import('../ledger.js');
  const ledger = await stat(join(directory, LEDGER_FILE)).catch(() => undefined);
  return ledger !== undefined && (ledger.mode & GROUP_READ) !== 0;
}
