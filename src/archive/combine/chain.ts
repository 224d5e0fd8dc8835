import type { BackupRecord } from '../../base/backup-record.js';
import type { Geometry } from '../../base/incremental.js';
import { parseBackupLabel } from '../../base/label.js';
import { CorruptObjectError } from '../../errors.js';
import { formatLsn } from '../../lsn.js';
import { controlGeometry } from '../../server/control-file.js';
import type { BackupArea } from '../backups/area.js';
import { BackupReader } from '../backups/reader.js';
import type { ArchiveKeys } from '../places/open-archive.js';

/** A backup of a chain, and where it is. */
export interface ChainLink {
  record: BackupRecord;
  area: BackupArea;
}

/** A full backup and the incremental ones up to the last, each based on the one before. */
export interface Chain {
  /** The full one first. */
  links: readonly ChainLink[];
  readers: readonly BackupReader[];
  geometry: Geometry;
  /** Pages have checksums. */
  checksums: boolean;
}

/**
 * Opens the backups of a chain, and proves that each begins where the one before it does: the server
 * made it from all changes since then, and from no others.
 * @throws CorruptObjectError; EncryptedError, and what the places throw
 */
export async function openChain(
  links: readonly ChainLink[],
  keys: ArchiveKeys = {},
  signal?: AbortSignal,
): Promise<Chain> {
  const readers = links.map(({ area, record }) => new BackupReader(area, record, keys));
  for (const [i, reader] of readers.entries()) {
    await requireFollows(reader, readers[i - 1], signal);
  }
  const last = readers.at(-1) as BackupReader;
  const found = controlGeometry(await last.object(CONTROL, signal));
  if (!found) throw new CorruptObjectError(`"${last.key(CONTROL)}" is no pg_control`);
  const { checksums, ...geometry } = found;
  return { links, readers, geometry, checksums };
}

const LABEL = 'backup_label';
const CONTROL = 'pg_control';

/** @param before of the backup that it is based on; undefined: it is a full one */
async function requireFollows(
  reader: BackupReader,
  before: BackupReader | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { id, systemId } = reader.record;
  const key = reader.key(LABEL);
  const wrong = (why: string): CorruptObjectError =>
    new CorruptObjectError(`backup ${id} is no part of its chain: ${why}`, {
      key,
      hint: 'Restore an earlier backup, and take a full one.',
    });
  const { incrementalFrom: from } = parseBackupLabel(await reader.object(LABEL, signal), key);
  if (before === undefined) {
    if (from) throw wrong('it is an incremental one, and says of none that it is based on it');
    return;
  }
  const { record } = before;
  const { start } = record;
  if (!from) throw wrong(`it is a full one, and its record says that it is based on ${record.id}`);
  if (from.lsn !== start.lsn || from.timeline !== start.timeline) {
    const point = (at: { lsn: typeof from.lsn; timeline: number }) =>
      `${formatLsn(at.lsn)} on timeline ${at.timeline}`;
    throw wrong(`it is based on ${point(from)}, and ${record.id} begins at ${point(start)}`);
  }
  if (systemId !== record.systemId) throw wrong(`${record.id} is of another cluster`);
}
