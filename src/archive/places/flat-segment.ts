import { rangeFrom, resumedBody } from '../../store/read-whole.js';
import type { Got, ObjectStore } from '../../store/store.js';
import type { Compression } from '../../wal/file-name.js';
import type { SegmentRead, TakeBytes } from '../segment-reader.js';
import type { StoredSegment } from '../segment-source.js';
import { gone, pathOf } from './store-segment.js';

export interface FlatFile {
  store: ObjectStore;
  /** Bare name, which is the key. */
  name: string;
  compression: Compression;
  partial: boolean;
  /** Bytes, where they are known. */
  size?: number | undefined;
}

/**
 * A segment file in a receiver's directory that a store serves. As there the name says how it is
 * compressed, and one that is unfinished, or renamed while it is read, is nothing unusual.
 */
export class FlatSegment implements StoredSegment {
  readonly name: string;
  readonly path: string;
  readonly compression: Compression;
  readonly partial: boolean;
  readonly inStore = true;
  readonly #store: ObjectStore;
  #size: number | undefined;

  constructor({ store, name, compression, partial, size }: FlatFile) {
    this.name = name;
    this.path = pathOf(store, name);
    this.compression = compression;
    this.partial = partial;
    this.#store = store;
    this.#size = size;
  }

  /** Bound: it is handed on by itself where only the first page is wanted. */
  readonly read = async (limit: number, take: TakeBytes): Promise<SegmentRead> => {
    let bytes = 0;
    let stopped = false;
    const { end, problem, trailingGarbage } = await this.#decompress(async (chunk) => {
      const wanted = chunk.subarray(0, Math.max(0, limit - bytes));
      bytes += chunk.length;
      stopped = wanted.length > 0 && !take(wanted);
      return stopped || bytes > limit;
    });
    return {
      bytes: Math.min(bytes, stopped ? limit : limit + 1),
      end: stopped ? 'stopped' : end === 'limit' ? 'complete' : end,
      trailingGarbage: !stopped && trailingGarbage,
      ...(problem === undefined ? {} : { problem }),
    };
  };

  async *bytes(limit: number): AsyncGenerator<Uint8Array> {
    const { pulled } = await import('../../codec/pulled.js');
    let left = limit;
    for await (const piece of pulled((deliver) => this.#decompress(deliver))) {
      yield piece.length > left ? piece.subarray(0, left) : piece;
      left -= piece.length;
      if (left <= 0) return;
    }
  }

  async contentEnd(): Promise<number> {
    const { lengthWithoutZeros } = await import('../../wal/zeros.js');
    let at = 0;
    let end = 0;
    for await (const piece of this.#body()) {
      const length = lengthWithoutZeros(piece);
      if (length > 0) end = at + length;
      at += piece.length;
    }
    return end;
  }

  async size(): Promise<number> {
    this.#size ??= (await this.#store.head(this.name))?.size;
    if (this.#size === undefined) throw gone(this.path);
    return this.#size;
  }

  async discard(): Promise<void> {}

  async #decompress(deliver: (chunk: Uint8Array) => Promise<boolean>) {
    const [{ decompressorOf }, { StreamReader }] = await Promise.all([
      import('../../codec/codecs.js'),
      import('../../codec/stream-reader.js'),
    ]);
    const reader = new StreamReader(this.#body());
    try {
      const { decompress } = await decompressorOf(this.compression);
      return await decompress({ reader }, deliver);
    } finally {
      await reader.close();
    }
  }

  /** The bytes as they are there. Where a connection broke they go on, if the file is the same. */
  #body(): AsyncGenerator<Uint8Array> {
    let first: Got | undefined;
    return resumedBody(async (start, broken) => {
      const got = await this.#store.get(this.name, { range: rangeFrom(start) });
      if (!got) throw gone(this.path);
      // What has the name by now may be another file, whose bytes do not go on in what was read.
      if (start > 0 && !(first && isSame(first, got))) throw broken;
      first = got;
      return got;
    });
  }
}

function isSame(a: Got, b: Got): boolean {
  return a.size === b.size && a.modified.getTime() === b.modified.getTime();
}
