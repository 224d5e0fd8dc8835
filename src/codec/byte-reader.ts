import { storageError } from '../files/durable.js';
import { type FileSystem, nodeFileSystem, OPEN_READ } from '../files/file-system.js';

import type { ByteSource } from './format.js';

const CHUNK = 256 * 1024;

/** Reads a file from front to back in pieces of the size that its format asks for. */
export class ByteReader implements ByteSource {
  /** Offset of the next byte. */
  position = 0;
  readonly #path: string;
  readonly #fs: FileSystem;
  readonly #fd: number;
  #buffer: Uint8Array = new Uint8Array(0);

  private constructor(path: string, fs: FileSystem, fd: number) {
    this.#path = path;
    this.#fs = fs;
    this.#fd = fd;
  }

  /** @throws StorageError if the file cannot be opened */
  static async open(path: string, fs: FileSystem = nodeFileSystem): Promise<ByteReader> {
    const fd = await fs.open(path, OPEN_READ, 0).catch((e) => {
      throw storageError('open file', path, e);
    });
    return new ByteReader(path, fs, fd);
  }

  /**
   * The next `length` bytes, valid until the next call, or undefined (and no step forward) if the
   * file has fewer. @throws StorageError
   */
  async read(length: number): Promise<Uint8Array | undefined> {
    if (this.#buffer.length < length) await this.#fill(length);
    if (this.#buffer.length < length) return undefined;
    const bytes = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    this.position += length;
    return bytes;
  }

  /** All that is left up to `length` bytes, valid until the next call; empty at the end. */
  async readUpTo(length: number): Promise<Uint8Array> {
    if (this.#buffer.length === 0) await this.#fill(1);
    return (await this.read(Math.min(length, this.#buffer.length))) as Uint8Array;
  }

  /** True if no byte is left. What was read last stays valid. */
  async atEnd(): Promise<boolean> {
    if (this.#buffer.length === 0) await this.#fill(1);
    return this.#buffer.length === 0;
  }

  async skip(length: number): Promise<boolean> {
    if (length === 0) return true;
    this.#goTo(this.position + length - 1);
    return (await this.read(1)) !== undefined;
  }

  unread(bytes: Uint8Array): void {
    this.#goTo(this.position - bytes.length);
  }

  /** Goes on at another offset. */
  #goTo(position: number): void {
    this.position = position;
    this.#buffer = new Uint8Array(0);
  }

  async #fill(length: number): Promise<void> {
    const kept = this.#buffer;
    const buffer = new Uint8Array(Math.max(length, CHUNK));
    buffer.set(kept);
    let size = kept.length;
    while (size < length) {
      const rest = buffer.subarray(size);
      const bytesRead = await this.#fs
        .read(this.#fd, rest, rest.length, this.position + size)
        .catch((e) => {
          throw storageError('read file', this.#path, e);
        });
      if (bytesRead === 0) break;
      size += bytesRead;
    }
    this.#buffer = buffer.subarray(0, size);
  }

  async close(): Promise<void> {
    await this.#fs.close(this.#fd);
  }
}
