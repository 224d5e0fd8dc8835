import { createHash } from 'node:crypto';
import type { Frame } from '../base/base-index.js';
import { compressorOf } from '../codec/codecs.js';
import { sharedBuffer } from '../codec/shared.js';
import type { Compression } from '../wal/file-name.js';
import { compressionSuffix } from '../wal/file-name.js';
import type { BackupObjects } from './objects.js';

/** Bytes of tar in a frame. */
export const FRAME = 8 * 1024 * 1024;
/** Bytes of frames in a volume, at most, before encryption: each is one PUT, and in memory until then. */
export const VOLUME = 16 * 1024 * 1024;

export interface VolumeOptions {
  codec: Compression;
  level?: number | undefined;
  /** Frames that are compressed at the same time. */
  threads: number;
  /** Volumes that are stored at the same time. */
  uploads: number;
  /** Bytes in a frame and in a volume, for tests. */
  frame?: number | undefined;
  volume?: number | undefined;
}

/** Lets so many at a time. */
class Turns {
  readonly #most: number;
  #busy = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(most: number) {
    this.#most = most;
  }

  async take(): Promise<void> {
    if (this.#busy < this.#most) this.#busy += 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#busy -= 1;
  }
}

/**
 * Memory of what is under way in all tars of a backup, so that it is bounded: frames that are filled
 * or compressed, volumes that are filled or stored. Buffers are used again; were they new each time,
 * they would be garbage long before they are collected.
 */
export class VolumeMemory {
  readonly options: VolumeOptions & { frame: number; volume: number };
  /** Uncompressed a frame is a volume, and stored from where it lies. */
  readonly isPlain: boolean;
  /** Volumes that are filled or stored; of plain ones those that are stored. */
  readonly volumes: Turns;
  readonly #frames: Buffer[] = [];
  readonly #volumes: Buffer[] = [];
  readonly #mostFrames: number;
  /** Frames that are filled or under way. */
  #used = 0;
  readonly #threads: Turns;
  /** Called when there is room again after there was none. */
  onRoom: () => void = () => {};

  constructor(options: VolumeOptions) {
    const { volume = VOLUME, threads, uploads } = options;
    this.isPlain = options.codec === 'none';
    const { frame = this.isPlain ? volume : FRAME } = options;
    this.options = { ...options, frame, volume };
    // Besides those that are compressed or stored: one that is filled, one whose digests are taken.
    this.#mostFrames = (this.isPlain ? uploads : threads) + 2;
    this.volumes = new Turns(this.isPlain ? uploads : uploads + 1);
    this.#threads = new Turns(threads);
  }

  /** Whoever sends should pause. What comes all the same is taken. */
  get isFull(): boolean {
    return this.#used > this.#mostFrames;
  }

  /** Until whoever sends may go on. @throws the signal's reason */
  async room(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.isFull) return;
    await new Promise<void>((resolve, reject) => {
      const stopped = (): void => reject(signal.reason);
      signal.addEventListener('abort', stopped, { once: true });
      this.onRoom = () => {
        signal.removeEventListener('abort', stopped);
        resolve();
      };
    });
  }

  takeFrame(): Buffer {
    this.#used += 1;
    return this.#frames.pop() ?? sharedBuffer(this.options.frame);
  }

  releaseFrame(buffer: Buffer): void {
    const wasFull = this.isFull;
    this.#used -= 1;
    this.#frames.push(buffer);
    if (wasFull && !this.isFull) this.onRoom();
  }

  /** A volume to fill, once one is free. */
  async takeVolume(): Promise<Buffer> {
    await this.volumes.take();
    // A frame that does not get smaller is the larger by what its format adds.
    return this.#volumes.pop() ?? Buffer.allocUnsafeSlow(this.options.volume);
  }

  releaseVolume(buffer: Buffer): void {
    this.#volumes.push(buffer);
    this.volumes.give();
  }

  /** No more comes. */
  clear(): void {
    this.#frames.length = 0;
    this.#volumes.length = 0;
  }

  async compress(bytes: Uint8Array): Promise<Uint8Array> {
    const { codec, level } = this.options;
    if (codec === 'none') return bytes;
    await this.#threads.take();
    try {
      const { compressWhole } = await compressorOf(codec);
      return await compressWhole(bytes, level === undefined ? {} : { level });
    } finally {
      this.#threads.give();
    }
  }
}

/**
 * Cuts one tar into frames, takes their digests, compresses each by itself, several at the same time,
 * and stores them in volumes in their order. `write` takes what comes; a failure is told by `end`, and
 * by `onFailure` as soon as it is known.
 */
export class VolumeWriter {
  readonly frames: Frame[] = [];
  /** Names of the volumes. */
  readonly volumes: string[] = [];
  /** Bytes of tar. */
  size = 0;
  readonly #options: VolumeWriterOptions;
  readonly #memory: VolumeMemory;
  #frame: Buffer | undefined;
  #filled = 0;
  #volume: Buffer | undefined;
  #packed = 0;
  /** The frames so far are in volumes. */
  #packing: Promise<void> = Promise.resolve();
  readonly #storing: Promise<void>[] = [];

  constructor(options: VolumeWriterOptions) {
    this.#options = options;
    this.#memory = options.memory;
  }

  write(chunk: Uint8Array): void {
    const { frame } = this.#memory.options;
    for (let at = 0; at < chunk.length; ) {
      this.#frame ??= this.#memory.takeFrame();
      const end = Math.min(chunk.length, at + frame - this.#filled);
      // Into shared memory `set` goes byte by byte unless both are aligned; this is one memcpy.
      this.#frame.fill(chunk.subarray(at, end), this.#filled, this.#filled + end - at);
      this.#filled += end - at;
      this.size += end - at;
      at = end;
      if (this.#filled === frame) this.#submit();
    }
  }

  /** All of it is stored. @throws what taking digests, compressing or storing threw */
  async end(): Promise<void> {
    if (this.#filled > 0) this.#submit();
    await this.#packing;
    if (this.#volume) this.#storeVolume(this.#volume);
    await Promise.all(this.#storing);
  }

  #submit(): void {
    const buffer = this.#frame as Buffer;
    const frame = buffer.subarray(0, this.#filled);
    this.#frame = undefined;
    this.#filled = 0;
    const digested = this.#options.digest(frame, this.size - frame.length);
    const compressed = this.#memory.compress(frame);
    // Told in their turn.
    digested.catch(() => {});
    compressed.catch(() => {});
    this.#packing = this.#packing.then(async () => {
      const { stored, content } = await digested;
      const bytes = await compressed;
      if (stored !== undefined) await this.#storeFrame(frame, stored, buffer);
      else {
        await this.#pack(bytes, frame.length, content);
        this.#memory.releaseFrame(buffer);
      }
    });
    this.#packing.catch(this.#options.onFailure);
  }

  /** The frame is the volume. */
  async #storeFrame(frame: Buffer, sha256: string, buffer: Buffer): Promise<void> {
    await this.#memory.volumes.take();
    this.#addFrame({ length: frame.length, at: 0, stored: frame.length, sha256 });
    this.#store(frame, sha256, () => {
      this.#memory.volumes.give();
      this.#memory.releaseFrame(buffer);
    });
  }

  async #pack(bytes: Uint8Array, length: number, content: string | undefined): Promise<void> {
    const { volume } = this.#memory.options;
    if (this.#volume && this.#packed + bytes.length > volume) this.#storeVolume(this.#volume);
    this.#volume ??= await this.#memory.takeVolume();
    if (bytes.length > this.#volume.length) this.#volume = Buffer.allocUnsafeSlow(bytes.length);
    this.#volume.set(bytes, this.#packed);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const own = content === undefined ? {} : { content };
    this.#addFrame({ length, at: this.#packed, stored: bytes.length, sha256, ...own });
    this.#packed += bytes.length;
  }

  #addFrame(frame: Omit<Frame, 'offset' | 'volume'>): void {
    const last = this.frames.at(-1);
    const offset = last ? last.offset + last.length : 0;
    this.frames.push({ offset, ...frame, volume: this.volumes.length });
  }

  #storeVolume(volume: Buffer): void {
    const bytes = volume.subarray(0, this.#packed);
    const only = this.frames.at(-1)?.at === 0 ? this.frames.at(-1)?.sha256 : undefined;
    this.#volume = undefined;
    this.#packed = 0;
    this.#store(bytes, only, () => this.#memory.releaseVolume(volume));
  }

  /** @param release called once, when the bytes are of no more use */
  #store(bytes: Uint8Array, sha256: string | undefined, release: () => void): void {
    const { objects, digits, onFailure } = this.#options;
    const name = `${this.#name}.${String(this.volumes.length).padStart(digits, '0')}`;
    this.volumes.push(name);
    let isFree = false;
    const free = (): void => {
      if (!isFree) release();
      isFree = true;
    };
    const stored = objects.put(name, bytes, { read: free, sha256 }).finally(free);
    stored.catch(onFailure);
    this.#storing.push(stored);
  }

  get #name(): string {
    return `${this.#options.name}${compressionSuffix(this.#memory.options.codec)}`;
  }
}

/** SHA-256 of a frame before it is compressed, in hex. */
export interface FrameDigest {
  /** Where it is stored as it is. */
  stored: string | undefined;
  /** Where it is compressed, and nothing but a part of a file. */
  content: string | undefined;
}

export interface VolumeWriterOptions {
  name: string;
  /** Of the number of a volume: the names are in the order of the volumes. */
  digits: number;
  memory: VolumeMemory;
  objects: BackupObjects;
  /**
   * Takes the digests of what is in a frame, in the order of the calls.
   * @param offset of its first byte within the tar
   */
  digest(frame: Buffer, offset: number): Promise<FrameDigest>;
  onFailure(error: unknown): void;
}
