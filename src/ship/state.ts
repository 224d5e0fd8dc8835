import { randomUUID } from 'node:crypto';
import { dirname } from 'node:path';
import {
  type HeldFile,
  progressDirectory,
  readProgress,
  type ShipProgress,
  type ShipTrouble,
  type TimelineProgress,
  writeProgress,
} from '../archive/shipping/progress.js';
import { withRange } from '../archive/shipping/ranges.js';
import { DirectoryLockedError, StorageError, type WalkeepError } from '../errors.js';
import { storageError } from '../files/durable.js';
import { acquireDirectoryLock, type DirectoryLock } from '../files/lock.js';
import { nodeTreeFileSystem } from '../files/tree-file-system.js';
import type { Lsn } from '../lsn.js';

/**
 * How far a place has got, in memory and in its directory. One process has it, its lock sees to that.
 * What is noted here was answered for by the place; a note that a crash takes costs only one question.
 */
export class ShipState {
  readonly progress: ShipProgress;
  readonly #directory: string;
  readonly #lock: DirectoryLock;
  readonly #onFailure: (error: unknown) => void;
  #writing: Promise<void> | undefined;
  #dirty = false;

  private constructor(
    directory: string,
    lock: DirectoryLock,
    progress: ShipProgress,
    onFailure: (error: unknown) => void,
  ) {
    this.#directory = directory;
    this.#lock = lock;
    this.progress = progress;
    this.#onFailure = onFailure;
  }

  /**
   * Takes the place's directory below `parent`. A progress file that is damaged is as good as none.
   * @param onFailure told what keeps progress from being written; that stops nothing
   * @throws DirectoryLockedError if another process ships there from here
   * @throws StorageError
   */
  static async open(
    parent: string,
    place: { text: string; identity: string },
    onFailure: (error: unknown) => void,
    signal: AbortSignal,
  ): Promise<ShipState> {
    const directory = progressDirectory(parent, place.identity);
    await makeDirectory(dirname(directory));
    await makeDirectory(directory);
    const lock = await acquireDirectoryLock(directory, { signal }).catch((e) => {
      throw e instanceof DirectoryLockedError ? alreadyShipped(place.text, e) : e;
    });
    const found = await readProgress(directory).catch((e) => {
      if (!(e instanceof StorageError) || (e.cause as { syscall?: string })?.syscall) throw e;
      onFailure(e);
      return undefined;
    });
    return new ShipState(directory, lock, found ?? fresh(place.text), onFailure);
  }

  /** What is to be shipped: known before the place was ever reached. */
  begins(systemId: bigint, segmentSize: number): void {
    if (this.progress.archiveId === '') Object.assign(this.progress, { systemId, segmentSize });
    this.save();
  }

  /** Forgets what another archive, or none, answered for. True if there was something. */
  belongsTo(archiveId: string, systemId: bigint, segmentSize: number): boolean {
    const { progress } = this;
    const other =
      progress.archiveId !== archiveId ||
      progress.systemId !== systemId ||
      progress.segmentSize !== segmentSize;
    const lost = other && progress.timelines.size > 0;
    if (other) this.forget();
    Object.assign(progress, { archiveId, systemId, segmentSize });
    this.save();
    return lost;
  }

  of(timeline: number): TimelineProgress {
    const found = this.progress.timelines.get(timeline) ?? { shipped: [], partials: new Map() };
    this.progress.timelines.set(timeline, found);
    return found;
  }

  shippedSegment(timeline: number, name: string, start: Lsn, end: Lsn): void {
    const found = this.of(timeline);
    found.shipped = withRange(found.shipped, start, end);
    found.partials.delete(name);
    this.save();
  }

  /** What the place answered for does not hold any more: it is asked for all anew. */
  forget(): void {
    this.progress.timelines.clear();
    this.progress.histories = [];
    this.progress.backups = [];
    this.save();
  }

  shippedPartial(timeline: number, name: string, end: Lsn): void {
    this.of(timeline).partials.set(name, end);
    this.save();
  }

  shippedHistory(timeline: number): void {
    this.progress.histories = [...new Set([...this.progress.histories, timeline])];
    this.save();
  }

  /** @param there all that are in the source: of others nothing need be known */
  shippedBackup(name: string, there: readonly string[]): void {
    const { backups } = this.progress;
    this.progress.backups = there.filter((one) => one === name || backups.includes(one));
    this.save();
  }

  setState(state: ShipProgress['state'], error?: WalkeepError): void {
    const { progress } = this;
    const same = progress.state === state && progress.trouble?.message === error?.message;
    if (same) return;
    progress.state = state;
    if (error) progress.trouble = troubleOf(error);
    else delete progress.trouble;
    this.save();
  }

  setHeld(held: HeldFile[]): void {
    this.progress.held = held;
    this.save();
  }

  /** Writes soon; what comes while it writes is written next, together. */
  save(): void {
    this.#dirty = true;
    this.#writing ??= this.#write();
  }

  async #write(): Promise<void> {
    await Promise.resolve();
    while (this.#dirty) {
      this.#dirty = false;
      this.progress.updated = new Date().toISOString();
      await writeProgress(this.#directory, this.progress).catch(this.#onFailure);
    }
    this.#writing = undefined;
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#lock.release();
  }
}

/** Its parent is there, or has gone with what was to be shipped. */
async function makeDirectory(path: string): Promise<void> {
  await nodeTreeFileSystem.mkdir(path, 0o700).catch((e) => {
    throw storageError('create directory', path, e);
  });
}

function fresh(place: string): ShipProgress {
  return {
    place,
    archiveId: '',
    systemId: 0n,
    segmentSize: 0,
    writer: randomUUID(),
    timelines: new Map(),
    histories: [],
    backups: [],
    state: 'ok',
    held: [],
    updated: '',
  };
}

export function troubleOf({ code, message, hint }: WalkeepError): ShipTrouble {
  const since = new Date().toISOString();
  return { code, message, ...(hint === undefined ? {} : { hint }), since };
}

function alreadyShipped(place: string, cause: DirectoryLockedError): DirectoryLockedError {
  const { detail, path } = cause;
  return new DirectoryLockedError(`another process ships to "${place}" from here`, {
    cause,
    ...(path === undefined ? {} : { path }),
    ...(detail === undefined ? {} : { detail }),
    hint: 'Stop that one first.',
  });
}
