import { INDEX_COMPRESSION } from '../../base/base-index.js';
import { AGE_MAGIC } from '../../codec/age/age.js';
import type { Identities } from '../../codec/age/identities.js';
import type { Recipients } from '../../codec/age/recipients.js';
import { encodeBytes } from '../../codec/stages.js';
import { CorruptObjectError, EncryptedError } from '../../errors.js';
import { contentOf } from '../../store/content.js';
import { readWhole } from '../../store/read-whole.js';
import type { BackupArea } from '../backups/area.js';
import { plainOf } from './facts.js';
import { JOINED, parseStoredIndex } from './format.js';

/**
 * Bytes of the 32 as they are stored, at most: of larger ones opening many is not what it costs. A
 * listing tells, nothing has to be read.
 */
const MOST_STORED = 4 << 20;
/** Bytes of a joined object, not compressed, at most: who reads it has it in memory. */
const MOST = 64 << 20;

export interface JoinOptions {
  /** What opens objects that are encrypted. */
  identities?: (() => Promise<Identities | undefined>) | undefined;
  recipients?: Recipients | undefined;
  signal?: AbortSignal | undefined;
}

/** @param sizes of the objects of one joined one; undefined for those that are not there */
export function isToBeJoined(sizes: readonly (number | undefined)[]): boolean {
  const stored = sizes.reduce((sum: number, size) => sum + (size ?? Number.NaN), 0);
  return sizes.length === JOINED && stored <= MOST_STORED;
}

/**
 * Stores 32 objects of the index once more, as one. It is made where all of them can be read, and never
 * readable to more than they are.
 * @param keys of the 32, in the order of their segments
 * @returns false if somebody else has made it; undefined if it was not to be made
 * @throws what a store throws, the signal's reason
 */
export async function joinGroups(
  { store }: BackupArea,
  key: string,
  keys: readonly string[],
  { identities = async () => undefined, recipients, signal }: JoinOptions,
): Promise<boolean | undefined> {
  const parts: Buffer[] = [];
  let length = 0;
  for (const one of keys) {
    try {
      const use = async (stored: Buffer): Promise<Buffer | undefined> => {
        const isSealed = AGE_MAGIC.equals(stored.subarray(0, AGE_MAGIC.length));
        if (isSealed && !recipients) return undefined;
        const plain = await plainOf(stored, one, await identities());
        parseStoredIndex(plain, one);
        return plain;
      };
      const plain = await readWhole(store, one, use, { signal });
      if (!plain) return undefined;
      parts.push(plain);
      length += plain.length;
    } catch (e) {
      if (e instanceof EncryptedError || e instanceof CorruptObjectError) return undefined;
      throw e;
    }
    if (length > MOST) return undefined;
  }
  const bytes = await encodeBytes(Buffer.concat(parts), { codec: INDEX_COMPRESSION, recipients });
  return (await store.create(key, contentOf(bytes), { signal })).created;
}
