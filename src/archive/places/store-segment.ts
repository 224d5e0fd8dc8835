import type { Identities } from '../../codec/age/identities.js';
import { CorruptObjectError, StorageError } from '../../errors.js';
import { rangeFrom, resumedBody } from '../../store/read-whole.js';
import type { Got, ObjectStore } from '../../store/store.js';
import type { SegmentRead, TakeBytes } from '../segment-reader.js';
import type { StoredSegment } from '../segment-source.js';

/** Where an object of a segment is. */
export interface SegmentObject {
  store: ObjectStore;
  key: string;
  /** What the file is called in the archive. */
  name: string;
  partial: boolean;
  /** Bytes, where they are known. */
  size?: number | undefined;
  /** What opens it if it is encrypted. */
  identities: () => Promise<Identities | undefined>;
  /** Its answer, if it was asked for already: read first. */
  got?: Got | undefined;
}

/** A segment in a store. It never changes, and nothing of its name says how it is compressed. */
export class StoreSegment implements StoredSegment {
  readonly name: string;
  readonly path: string;
  readonly compression = 'none';
  readonly partial: boolean;
  readonly inStore = true;
  readonly #store: ObjectStore;
  readonly #key: string;
  readonly #identities: SegmentObject['identities'];
  #size: number | undefined;
  #got: Got | undefined;

  constructor({ store, key, name, partial, size, identities, got }: SegmentObject) {
    this.name = name;
    this.path = pathOf(store, key);
    this.partial = partial;
    this.#store = store;
    this.#key = key;
    this.#identities = identities;
    this.#size = size ?? got?.size;
    this.#got = got;
  }

  async read(limit: number, take: TakeBytes): Promise<SegmentRead> {
    let bytes = 0;
    try {
      for await (const piece of this.#plain()) {
        const wanted = piece.subarray(0, Math.max(0, limit - bytes));
        bytes += piece.length;
        if (wanted.length > 0 && !take(wanted)) {
          return { bytes, end: 'stopped', trailingGarbage: false };
        }
        if (bytes > limit) break;
      }
    } catch (e) {
      if (!(e instanceof CorruptObjectError)) throw e;
      return { bytes, end: 'damaged', problem: e.message, trailingGarbage: false };
    }
    return { bytes: Math.min(bytes, limit + 1), end: 'complete', trailingGarbage: false };
  }

  async *bytes(limit: number): AsyncGenerator<Uint8Array> {
    let left = limit;
    for await (const piece of this.#plain()) {
      yield piece.length > left ? piece.subarray(0, left) : piece;
      left -= piece.length;
      if (left <= 0) return;
    }
  }

  /** All of it is content: nobody writes to it. */
  async contentEnd(): Promise<number> {
    return Number.POSITIVE_INFINITY;
  }

  async size(): Promise<number> {
    this.#size ??= (await this.#store.head(this.#key))?.size;
    if (this.#size === undefined) throw gone(this.path);
    return this.#size;
  }

  async discard(): Promise<void> {
    const body = this.#got?.body[Symbol.asyncIterator]();
    this.#got = undefined;
    await body?.return?.();
  }

  /** @throws CorruptObjectError, EncryptedError */
  async *#plain(): AsyncGenerator<Uint8Array> {
    const { decodeStored } = await import('../../codec/stages.js');
    const identities = await this.#identities();
    yield* decodeStored(this.#body(), { name: this.path, identities });
  }

  /** The bytes as they are stored, over broken connections. */
  #body(): AsyncGenerator<Uint8Array> {
    return resumedBody(async (start) => {
      const got = this.#got ?? (await this.#store.get(this.#key, { range: rangeFrom(start) }));
      this.#got = undefined;
      if (!got) throw gone(this.path);
      return got;
    });
  }
}

/** What an object is called in messages. */
export function pathOf({ place }: ObjectStore, key: string): string {
  const [base = place] = place.split('?');
  return `${base.replace(/\/$/, '')}/${key}`;
}

/** An object that is not there (any more), see `isGone`. */
export function gone(path: string): StorageError {
  const cause = Object.assign(new Error('no such object'), { code: 'ENOENT', path });
  return new StorageError(`could not read object "${path}": there is none`, { path, cause });
}
