import { parseRecipients } from '../../codec/age/recipients.js';
import { openBackupArea } from '../backups/area.js';
import { type ArchiveOptions, identitiesOf, openArchive } from '../places/open-archive.js';
import { readArchive } from '../read-catalog.js';
import { type UpdatedIndex, type UpdateIndexOptions, updateIndex } from './update.js';

export interface UpdatePlaceOptions extends Omit<UpdateIndexOptions, 'recipients'> {
  /** What opens WAL that is encrypted, and which cluster is meant. */
  keys?: ArchiveOptions | undefined;
  /** Public keys of age, to whom the index is encrypted. */
  recipients?: readonly string[] | undefined;
}

/**
 * The same for the archive at a place: a directory or a store.
 * @throws UsageError for what is no place or no recipient; what `updateIndex` throws
 */
export async function updateIndexAt(
  place: string,
  { keys = {}, recipients = [], ...options }: UpdatePlaceOptions = {},
): Promise<UpdatedIndex> {
  const sealed =
    recipients.length > 0 ? { recipients: await parseRecipients([...recipients]) } : {};
  const archive = await openArchive(place, keys);
  try {
    const catalog = await readArchive(archive);
    const { signal } = options;
    const systemId = keys.systemId ?? catalog.systemId;
    const area = await openBackupArea(place, { systemId, writable: true, signal });
    try {
      const identities = identitiesOf(keys);
      return await updateIndex(catalog, area, { ...options, ...sealed, identities });
    } finally {
      await area.close();
    }
  } finally {
    await archive.close();
  }
}
