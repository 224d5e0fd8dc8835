import type { BackupReader, Piece } from '../backups/reader.js';

/** Frames beyond one for each backup of a chain. */
const MORE = 4;

/**
 * Frames of the backups of a chain, by whoever asks first: neighbours in a tar share one. The files of
 * all backups come in much the same order, so that one frame of each is what is needed next.
 */
export class FrameCache {
  readonly readers: readonly BackupReader[];
  readonly #signal: AbortSignal | undefined;
  readonly #most: number;
  /** The least recently used first. */
  readonly #kept = new Map<string, Promise<Uint8Array>>();
  /** Frames that were read, for tests. */
  reads = 0;

  /** @param readers of the backups of the chain, the full one first */
  constructor(readers: readonly BackupReader[], signal?: AbortSignal, most?: number) {
    this.readers = readers;
    this.#signal = signal;
    this.#most = most ?? readers.length + MORE;
  }

  reader(backup: number): BackupReader {
    return this.readers[backup] as BackupReader;
  }

  /** What is in it is not to be changed. @throws as `BackupReader.read` */
  async get(backup: number, piece: Piece, n: number): Promise<Uint8Array> {
    const keys = piece.frames.map(({ at }) => `${backup}/${piece.volume}/${at}`);
    const key = keys[n] as string;
    const known = this.#kept.get(key);
    if (known) {
      this.#keep(key, known);
      return known;
    }
    const all = this.#read(backup, piece);
    for (const [i, one] of keys.entries()) {
      const content = all.then((contents) => contents[i] as Uint8Array);
      content.catch(() => this.#kept.delete(one));
      this.#keep(one, content);
    }
    const wanted = this.#kept.get(key) ?? all.then((contents) => contents[n] as Uint8Array);
    return wanted;
  }

  #keep(key: string, content: Promise<Uint8Array>): void {
    this.#kept.delete(key);
    this.#kept.set(key, content);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= this.#most) break;
      this.#kept.delete(oldest);
    }
  }

  async #read(backup: number, piece: Piece): Promise<Uint8Array[]> {
    this.#signal?.throwIfAborted();
    const contents: Uint8Array[] = [];
    for await (const { content } of this.reader(backup).read(piece, this.#signal)) {
      this.reads++;
      contents.push(content);
    }
    return contents;
  }
}
