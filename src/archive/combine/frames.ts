import type { Frame } from '../../base/base-index.js';
import type { BackupReader } from '../backups/reader.js';

/** Frames, and volumes, beyond one for each backup of a chain. */
const MORE = 4;

/**
 * Frames of the backups of a chain, by whoever asks first: neighbours in a tar share one. The files of
 * all backups come in much the same order, so that one frame of each is what is needed next. Of an
 * encrypted backup the volume is kept too, as it is stored but for the encryption: it can only be read
 * whole, and may hold any number of frames.
 */
export class FrameCache {
  readonly readers: readonly BackupReader[];
  readonly #signal: AbortSignal | undefined;
  readonly #frames: Latest<Uint8Array>;
  readonly #volumes: Latest<Buffer>;
  /** Frames that were read, for tests. */
  reads = 0;

  /** @param readers of the backups of the chain, the full one first */
  constructor(
    readers: readonly BackupReader[],
    signal?: AbortSignal,
    most = readers.length + MORE,
  ) {
    this.readers = readers;
    this.#signal = signal;
    this.#frames = new Latest(most);
    this.#volumes = new Latest(most);
  }

  reader(backup: number): BackupReader {
    return this.readers[backup] as BackupReader;
  }

  /** What is in it is not to be changed. @throws as `BackupReader.read` */
  get(backup: number, volume: string, frame: Frame): Promise<Uint8Array> {
    return this.#frames.get(`${backup}/${volume}/${frame.at}`, () =>
      this.#read(backup, volume, frame),
    );
  }

  async #read(backup: number, volume: string, frame: Frame): Promise<Uint8Array> {
    this.#signal?.throwIfAborted();
    const reader = this.reader(backup);
    const plain = reader.record.encrypted
      ? await this.#volumes.get(`${backup}/${volume}`, () => reader.object(volume, this.#signal))
      : undefined;
    this.reads++;
    return reader.frame(volume, frame, plain, this.#signal);
  }
}

/** What was asked for last. */
class Latest<T> {
  readonly #most: number;
  /** The least recently used first. */
  readonly #kept = new Map<string, Promise<T>>();

  constructor(most: number) {
    this.#most = most;
  }

  get(key: string, read: () => Promise<T>): Promise<T> {
    const known = this.#kept.get(key);
    const content = known ?? read();
    if (!known) content.catch(() => this.#kept.delete(key));
    this.#kept.delete(key);
    this.#kept.set(key, content);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= this.#most) break;
      this.#kept.delete(oldest);
    }
    return content;
  }
}
