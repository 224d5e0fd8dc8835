import { CorruptObjectError, StoreUncertainError } from '../errors.js';
import { bytesOf } from './content.js';
import type { GetOptions, ObjectStore } from './store.js';

/**
 * Tries of a body that breaks off, before that counts. A store repeats what it was asked for, but not
 * what it has begun to give: who reads does, and a few lost connections in a row fail nothing.
 */
export const MOST_BROKEN = 5;
/** The same of one that comes damaged. */
const MOST_DAMAGED = 2;

/**
 * What `use` makes of all bytes of a small object; undefined if there is none. A body that breaks off,
 * or was changed on its way, is asked for again: nothing is called damaged that is whole where it lies.
 * @param use decodes and parses, too: where no digest is known nothing else sees damage. Throws
 *   CorruptObjectError for what it cannot be
 * @throws as ObjectStore.get and `use`; RangeError beyond `limit` bytes
 */
export async function readWhole<T>(
  store: ObjectStore,
  key: string,
  use: (bytes: Buffer) => T | Promise<T>,
  { limit, ...options }: GetOptions & { limit?: number } = {},
): Promise<T | undefined> {
  for (let broken = 0, damaged = 0; ; ) {
    const got = await store.get(key, options);
    if (!got) return undefined;
    try {
      return await use(await bytesOf(got.body, limit));
    } catch (e) {
      options.signal?.throwIfAborted();
      if (e instanceof StoreUncertainError) broken += 1;
      else if (e instanceof CorruptObjectError) damaged += 1;
      else throw e;
      if (broken === MOST_BROKEN || damaged === MOST_DAMAGED) throw e;
    }
  }
}
