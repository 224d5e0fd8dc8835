import { createHash } from 'node:crypto';
import type { Frame } from '../base/base-index.js';
import { compressorOf } from '../codec/codecs.js';
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

/**
 * Memory of what is under way in all tars of a backup, so that it is bounded: frames that are filled
 * or compressed, volumes that are filled or stored. Buffers are used again; were they new each time,
 * they would be garbage long before they are collected.
 */
export class VolumeMemory {
  readonly options: VolumeOptions & { frame: number; volume: number };
  readonly #frames: Buffer[] = [];
  readonly #volumes: Buffer[] = [];
  /** Frames that are filled or under way; one more than a thread for each is enough. */
  #used = 0;
  #busyThreads = 0;
  readonly #waitingForThread: (() => void)[] = [];
  #busyVolumes = 0;
  readonly #waitingForVolume: (() => void)[] = [];
  /** Called when there is room again after there was none. */
  onRoom: () => void = () => {};

  constructor(options: VolumeOptions) {
    const { volume = VOLUME } = options;
    // Uncompressed the digest of the one is that of the other, and taken once.
    const { frame = options.codec === 'none' ? volume : FRAME } = options;
    this.options = { ...options, frame, volume };
  }

  /** Whoever sends should pause. What comes all the same is taken. */
  get isFull(): boolean {
    return this.#used > this.options.threads + 1;
  }

  takeFrame(): Buffer {
    this.#used += 1;
    return this.#frames.pop() ?? Buffer.allocUnsafeSlow(this.options.frame);
  }

  releaseFrame(buffer: Buffer): void {
    const wasFull = this.isFull;
    this.#used -= 1;
    this.#frames.push(buffer);
    if (wasFull && !this.isFull) this.onRoom();
  }

  /** A volume to fill, once one is free. */
  async takeVolume(): Promise<Buffer> {
    if (this.#busyVolumes > this.options.uploads) {
      await new Promise<void>((resolve) => this.#waitingForVolume.push(resolve));
    } else this.#busyVolumes += 1;
    // A frame that does not get smaller is the larger by what its format adds.
    return this.#volumes.pop() ?? Buffer.allocUnsafeSlow(this.options.volume);
  }

  releaseVolume(buffer: Buffer): void {
    this.#volumes.push(buffer);
    const next = this.#waitingForVolume.shift();
    if (next) next();
    else this.#busyVolumes -= 1;
  }

  /** No more comes. */
  clear(): void {
    this.#frames.length = 0;
    this.#volumes.length = 0;
  }

  async compress(bytes: Uint8Array): Promise<Uint8Array> {
    const { codec, level, threads } = this.options;
    if (this.#busyThreads >= threads) {
      await new Promise<void>((resolve) => this.#waitingForThread.push(resolve));
    } else this.#busyThreads += 1;
    try {
      if (codec === 'none') return bytes;
      const { compressWhole } = await compressorOf(codec);
      return await compressWhole(bytes, level === undefined ? {} : { level });
    } finally {
      const next = this.#waitingForThread.shift();
      if (next) next();
      else this.#busyThreads -= 1;
    }
  }
}

/**
 * Cuts one tar into frames, compresses each by itself, several at the same time, and stores them in
 * volumes in their order. `write` takes what comes; a failure is told by `end`, and by `onFailure`
 * as soon as it is known.
 */
export class VolumeWriter {
  readonly frames: Frame[] = [];
  /** Names of the volumes. */
  readonly volumes: string[] = [];
  /** Bytes of tar. */
  size = 0;
  readonly #name: string;
  readonly #digits: number;
  readonly #memory: VolumeMemory;
  readonly #objects: BackupObjects;
  readonly #onFailure: (error: unknown) => void;
  #frame: Buffer | undefined;
  #filled = 0;
  #volume: Buffer | undefined;
  #packed = 0;
  /** Of the volume, while it has one frame. */
  #digest: string | undefined;
  /** The frames so far are in volumes. */
  #packing: Promise<void> = Promise.resolve();
  readonly #storing: Promise<void>[] = [];

  /** @param digits of the number of a volume: the names are in the order of the volumes */
  constructor(
    name: string,
    digits: number,
    memory: VolumeMemory,
    objects: BackupObjects,
    onFailure: (error: unknown) => void,
  ) {
    this.#name = `${name}${compressionSuffix(memory.options.codec)}`;
    this.#digits = digits;
    this.#memory = memory;
    this.#objects = objects;
    this.#onFailure = onFailure;
  }

  write(chunk: Uint8Array): void {
    const { frame } = this.#memory.options;
    for (let at = 0; at < chunk.length; ) {
      this.#frame ??= this.#memory.takeFrame();
      const end = Math.min(chunk.length, at + frame - this.#filled);
      this.#frame.set(
        at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end),
        this.#filled,
      );
      this.#filled += end - at;
      at = end;
      if (this.#filled === frame) this.#submit();
    }
    this.size += chunk.length;
  }

  /** All of it is stored. @throws what compressing or storing threw */
  async end(): Promise<void> {
    if (this.#filled > 0) this.#submit();
    await this.#packing;
    if (this.#volume) this.#store();
    await Promise.all(this.#storing);
  }

  #submit(): void {
    const buffer = this.#frame as Buffer;
    const length = this.#filled;
    this.#frame = undefined;
    this.#filled = 0;
    const compressed = this.#memory.compress(buffer.subarray(0, length));
    // Told in its turn.
    compressed.catch(() => {});
    this.#packing = this.#packing.then(async () => {
      await this.#pack(await compressed, length);
      this.#memory.releaseFrame(buffer);
    });
    this.#packing.catch(this.#onFailure);
  }

  async #pack(bytes: Uint8Array, length: number): Promise<void> {
    const { volume } = this.#memory.options;
    if (this.#volume && this.#packed + bytes.length > volume) this.#store();
    this.#volume ??= await this.#memory.takeVolume();
    if (bytes.length > this.#volume.length) this.#volume = Buffer.allocUnsafeSlow(bytes.length);
    this.#volume.set(bytes, this.#packed);
    const last = this.frames.at(-1);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    this.#digest = this.#packed === 0 ? sha256 : undefined;
    this.frames.push({
      offset: last ? last.offset + last.length : 0,
      length,
      volume: this.volumes.length,
      at: this.#packed,
      stored: bytes.length,
      sha256,
    });
    this.#packed += bytes.length;
  }

  #store(): void {
    const volume = this.#volume as Buffer;
    const name = `${this.#name}.${String(this.volumes.length).padStart(this.#digits, '0')}`;
    const bytes = volume.subarray(0, this.#packed);
    this.volumes.push(name);
    this.#volume = undefined;
    this.#packed = 0;
    let isFree = false;
    const free = (): void => {
      if (!isFree) this.#memory.releaseVolume(volume);
      isFree = true;
    };
    const stored = this.#objects
      .put(name, bytes, { read: free, sha256: this.#digest })
      .finally(free);
    stored.catch(this.#onFailure);
    this.#storing.push(stored);
  }
}
