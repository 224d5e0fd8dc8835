import { CorruptObjectError, StoreUncertainError } from '../errors.js';
import { bytesOf } from './content.js';
import type { GetOptions, Got, ObjectStore } from './store.js';

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

/**
 * The bytes of an object that may be long: where a body breaks off, the next one goes on.
 * @param get gives what begins at a byte; `broken`: why it is asked for again
 * @throws what it throws; StoreUncertainError
 */
export async function* resumedBody(
  get: (start: number, broken: unknown) => Promise<Got>,
): AsyncGenerator<Uint8Array> {
  let at = 0;
  let broken: unknown;
  for (let tries = 1; ; tries++) {
    const got = await get(at, broken);
    try {
      for await (const piece of got.body) {
        at += piece.length;
        yield piece;
      }
      return;
    } catch (e) {
      if (!(e instanceof StoreUncertainError) || tries === MOST_BROKEN) throw e;
      broken = e;
    }
  }
}

/** What is asked for to go on there. */
export function rangeFrom(start: number): GetOptions['range'] {
  return start === 0 ? undefined : { start, end: Number.MAX_SAFE_INTEGER };
}
