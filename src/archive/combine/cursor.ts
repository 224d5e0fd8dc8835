import type { Frame } from '../../base/base-index.js';
import {
  FIXED_HEADER,
  type Geometry,
  type IncrementalHeader,
  incrementalHeaderLength,
  parseIncrementalHeader,
} from '../../base/incremental.js';
import { CorruptObjectError } from '../../errors.js';
import { type FileHash, fileHash } from '../backups/file-hash.js';
import type { FrameCache } from './frames.js';
import type { FileSource } from './source.js';

/**
 * Goes through a file of a backup once, from its begin to its end, whatever of it is wanted: only so
 * can its digest be compared with the manifest of its own backup.
 */
export class FileCursor {
  readonly source: FileSource;
  readonly #frames: FrameCache;
  readonly #left: Iterator<{ volume: string; frame: Frame }>;
  #hash: FileHash | undefined;
  #content: Uint8Array = new Uint8Array();
  /** What of the file `#content` is: from the one byte up to the other. */
  #from = 0;
  #to = 0;

  constructor(source: FileSource, frames: FrameCache) {
    this.source = source;
    this.#frames = frames;
    this.#left = source.pieces
      .flatMap(({ volume, frames }) => frames.map((frame) => ({ volume, frame })))
      .values();
    this.#hash = source.checksum && fileHash(source.checksum.algorithm);
  }

  /** For messages. */
  get name(): string {
    const { backup, path } = this.source;
    return `"${Buffer.from(path, 'latin1').toString()}" of backup ${this.#frames.reader(backup).record.id}`;
  }

  /** As much as is at hand. @param from not before what was asked for before. @returns bytes */
  copy(from: number, length: number, target: Uint8Array, at: number): number {
    if (from >= this.#to) return 0;
    const begin = from - this.#from;
    const bytes = Math.min(length, this.#to - from);
    target.set(this.#content.subarray(begin, begin + bytes), at);
    return bytes;
  }

  /** @throws CorruptObjectError if the file is shorter; what the place throws */
  async read(from: number, length: number, target: Uint8Array, at: number): Promise<void> {
    for (let done = 0; ; ) {
      done += this.copy(from + done, length - done, target, at + done);
      if (done === length) return;
      if (!(await this.#next())) throw this.corrupt(`it ends at byte ${this.#to}`);
    }
  }

  /** @throws CorruptObjectError */
  async header(geometry: Geometry): Promise<IncrementalHeader> {
    const { size } = this.source;
    const first = new Uint8Array(Math.min(size, FIXED_HEADER));
    await this.read(0, first.length, first, 0);
    const length = incrementalHeaderLength(first, size, geometry, this.name);
    const header = new Uint8Array(length);
    header.set(first);
    await this.read(first.length, length - first.length, header, first.length);
    return parseIncrementalHeader(header, size, geometry, this.name);
  }

  /** Reads what is left. @throws CorruptObjectError if the file is not what the manifest says */
  async end(): Promise<void> {
    while (await this.#next());
    const { size, checksum } = this.source;
    if (this.#to !== size) throw this.corrupt(`it has ${this.#to} bytes instead of ${size}`);
    if (this.#hash && this.#hash.digest() !== checksum?.hex) {
      throw this.corrupt('it is not what the manifest of that backup says');
    }
    this.#hash = undefined;
  }

  corrupt(why: string): CorruptObjectError {
    const { backup, pieces } = this.source;
    const volume = pieces[0]?.volume ?? 'base.index';
    return new CorruptObjectError(`${this.name} is damaged: ${why}`, {
      key: this.#frames.reader(backup).key(volume),
      hint: 'Use another backup, or another place that has this one.',
    });
  }

  async #next(): Promise<boolean> {
    const next = this.#left.next();
    if (next.done) return false;
    const { volume, frame } = next.value;
    const content = await this.#frames.get(this.source.backup, volume, frame);
    const { offset, size } = this.source;
    const begin = Math.max(0, offset - frame.offset);
    const end = Math.min(frame.length, offset + size - frame.offset);
    this.#content = content.subarray(begin, end);
    this.#from = this.#to;
    this.#to += this.#content.length;
    this.#hash?.update(this.#content);
    return true;
  }
}
