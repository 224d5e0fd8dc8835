import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { BackupObject, BackupRecord } from '../../base/backup-record.js';
import {
  type BaseIndex,
  type Frame,
  parseBaseIndex,
  type TarIndex,
} from '../../base/base-index.js';
import { AGE_MAGIC, decrypt } from '../../codec/age/age.js';
import type { Identities } from '../../codec/age/identities.js';
import { decompressAtOnce } from '../../codec/at-once.js';
import { decodeBytes } from '../../codec/stages.js';
import { StreamReader } from '../../codec/stream-reader.js';
import { CorruptObjectError } from '../../errors.js';
import { freeMemory } from '../../free-memory.js';
import { bytesOf } from '../../store/content.js';
import { MOST_BROKEN } from '../../store/read-whole.js';
import { type ArchiveKeys, identitiesOf } from '../places/open-archive.js';
import type { BackupArea } from './area.js';
import { backupKey } from './keys.js';

export const BASE_INDEX = 'base.index';

/** What is read in one go: a frame, or of an encrypted backup all frames of a volume. */
export interface Piece {
  /** `base.tar`. */
  tar: string;
  /** Name of the object. */
  volume: string;
  frames: Frame[];
}

/** A frame's bytes of tar. */
export interface ReadFrame {
  frame: Frame;
  content: Uint8Array;
}

/** Milliseconds before the second try of what broke off; twice as long before each further one. */
const PAUSE = 250;

/**
 * Reads the objects of a base backup and hands on nothing that is not proven: by the digests of
 * `backup.json`, and those of the index, which `backup.json` proves.
 *
 * All methods throw CorruptObjectError with the key of an object that is not what was stored, or is
 * not there any more; EncryptedError; StoreUncertainError, StoreAccessError; the signal's reason.
 */
export class BackupReader {
  readonly record: BackupRecord;
  readonly #area: Pick<BackupArea, 'store' | 'prefix'>;
  readonly #objects: ReadonlyMap<string, BackupObject>;
  readonly #identities: () => Promise<Identities | undefined>;

  constructor(
    area: Pick<BackupArea, 'store' | 'prefix'>,
    record: BackupRecord,
    keys: ArchiveKeys = {},
  ) {
    this.#area = area;
    this.record = record;
    this.#objects = new Map(record.objects.map((object) => [object.name, object]));
    this.#identities = identitiesOf(keys);
  }

  key(name: string): string {
    return backupKey(this.#area.prefix, this.record.id, name);
  }

  /** An object as it was before encryption. */
  async object(name: string, signal?: AbortSignal): Promise<Buffer> {
    return this.#decrypted(name, await this.#stored(name, signal));
  }

  /** The same, decompressed too: what is a compressed file by its first bytes. */
  async content(name: string, signal?: AbortSignal): Promise<Buffer> {
    const key = this.key(name);
    const plain = await this.object(name, signal);
    try {
      const { content } = await decodeBytes(plain, { name: key });
      return Buffer.from(content.buffer, content.byteOffset, content.length);
    } catch (e) {
      throw e instanceof CorruptObjectError ? this.#corrupt(name, e.message, e) : e;
    }
  }

  /** Where all bytes are; it was compared with what `backup.json` says of the tars. */
  async index(signal?: AbortSignal): Promise<BaseIndex> {
    const text = (await this.content(BASE_INDEX, signal)).toString('utf8');
    const index = parseBaseIndex(text, this.key(BASE_INDEX));
    const problem = indexProblem(this.record, index);
    if (problem === undefined) return index;
    throw this.#corrupt(BASE_INDEX, `it does not fit its backup: ${problem}`);
  }

  /** In the order of the tars; each can be read by whoever, in any order. */
  pieces(index: BaseIndex): Piece[] {
    return index.tars.flatMap((tar, i) => {
      const volumes = this.record.tars[i]?.volumes ?? [];
      const piece = (frames: Frame[]): Piece => ({
        tar: tar.name,
        volume: volumes[frames[0]?.volume ?? 0] as string,
        frames,
      });
      if (!this.record.encrypted) return tar.frames.map((frame) => piece([frame]));
      return volumes.map((_, n) => piece(tar.frames.filter(({ volume }) => volume === n)));
    });
  }

  /** The frames of a piece, one after the other; each is there until the next one is asked for. */
  async *read(
    { volume, frames }: Piece,
    signal?: AbortSignal,
  ): AsyncGenerator<ReadFrame, void, void> {
    const isWhole = this.record.encrypted && frames.length > 0;
    const plain = isWhole ? await this.object(volume, signal) : undefined;
    for (const frame of frames) {
      const content = await this.frame(volume, frame, plain, signal);
      yield { frame, content };
      if (content.buffer !== plain?.buffer) freeMemory(content);
    }
  }

  /** One frame, whoever's it is given to. @param plain of an encrypted backup: the volume, which only as a whole is decrypted */
  async frame(
    volume: string,
    frame: Frame,
    plain: Buffer | undefined,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const range = { start: frame.at, end: frame.at + frame.stored };
    const problemOf = (bytes: Buffer) => (isFrame(frame, bytes) ? undefined : frameProblem(frame));
    const stored = plain
      ? plain.subarray(range.start, range.end)
      : await this.#get(volume, range, signal, problemOf);
    const problem = plain && problemOf(stored);
    if (problem !== undefined) throw this.#corrupt(volume, problem);
    const content = await this.#decompressed(volume, frame, stored);
    if (!plain && content !== stored) freeMemory(stored);
    return content;
  }

  async #decompressed(volume: string, frame: Frame, stored: Uint8Array): Promise<Uint8Array> {
    const content = await decompressAtOnce(this.record.codec, stored, frame.length);
    if (content) return content;
    throw this.#corrupt(volume, `its bytes from ${frame.at} on cannot be decompressed`);
  }

  /** All of an object, as it is stored, and as `backup.json` says that it was. */
  async #stored(name: string, signal: AbortSignal | undefined): Promise<Buffer> {
    const known = this.#objects.get(name);
    if (!known) throw this.#corrupt('backup.json', `it does not name "${name}"`);
    const range = { start: 0, end: known.size };
    return this.#get(name, range, signal, (bytes) => {
      const digest = createHash('sha256').update(bytes).digest('hex');
      return digest === known.sha256 ? undefined : 'it is not what was stored';
    });
  }

  /**
   * What comes is looked at before anything is said of what is stored: it is asked for again where
   * the way to here may have changed it, which no range of an object's bytes has a digest against.
   */
  async #get(
    name: string,
    range: { start: number; end: number },
    signal: AbortSignal | undefined,
    problemOf: (bytes: Buffer) => string | undefined,
  ): Promise<Buffer> {
    const key = this.key(name);
    const size = this.#objects.get(name)?.size;
    for (let tries = 1, pause = PAUSE; ; tries++, pause *= 2) {
      try {
        const got = await this.#area.store.get(key, { range, signal });
        if (!got) throw this.#corrupt(name, 'it is not there any more');
        if (got.size !== size) {
          throw this.#corrupt(name, `it has ${got.size} bytes instead of ${size}`);
        }
        const bytes = await bytesOf(got.body, range.end - range.start);
        const problem = problemOf(bytes);
        if (problem === undefined) return bytes;
        throw this.#corrupt(name, problem);
      } catch (e) {
        signal?.throwIfAborted();
        if (e instanceof CorruptObjectError && tries === 1) continue;
        if ((e as { retryable?: boolean }).retryable !== true || tries >= MOST_BROKEN) throw e;
      }
      await delay(pause, undefined, { signal });
    }
  }

  async #decrypted(name: string, stored: Buffer): Promise<Buffer> {
    if (!stored.subarray(0, AGE_MAGIC.length).equals(AGE_MAGIC)) return stored;
    const pieces = decrypt(
      new StreamReader(once(stored)),
      await this.#identities(),
      this.key(name),
    );
    return bytesOf(pieces);
  }

  #corrupt(name: string, why: string, cause?: unknown): CorruptObjectError {
    const key = this.key(name);
    return new CorruptObjectError(`"${key}" of a base backup is damaged: ${why}`, {
      ...{ key, hint: 'Use another backup, or another place that has this one.' },
      ...(cause === undefined ? {} : { cause }),
    });
  }
}

function isFrame(frame: Frame, stored: Uint8Array): boolean {
  return createHash('sha256').update(stored).digest('hex') === frame.sha256;
}

function frameProblem({ at, stored }: Frame): string {
  return `its bytes from ${at} to ${at + stored} are not what was stored`;
}

/** What in an index is not of this backup: a gap or an overlap would be a file with a hole. */
function indexProblem(record: BackupRecord, { tars }: BaseIndex): string | undefined {
  if (tars.map((tar) => tar.name).join() !== record.tars.map((tar) => tar.name).join()) {
    return 'it has other tars';
  }
  const sizes = new Map(record.objects.map(({ name, size }) => [name, size]));
  for (const [i, tar] of tars.entries()) {
    const { size, volumes } = record.tars[i] as BackupRecord['tars'][0];
    const stored = volumes.map((name) => sizes.get(name));
    const problem = tarProblem(tar, size, record.encrypted ? undefined : stored, volumes.length);
    if (problem !== undefined) return `"${tar.name}": ${problem}`;
  }
  return undefined;
}

/** @param stored bytes of each volume, where that is what the frames have together */
function tarProblem(
  { frames, members }: TarIndex,
  size: number,
  stored: readonly (number | undefined)[] | undefined,
  volumes: number,
): string | undefined {
  let volume = 0;
  let at = 0;
  let length = 0;
  for (const frame of frames) {
    if (frame.volume === volume + 1 && (!stored || stored[volume] === at)) {
      volume++;
      at = 0;
    }
    if (frame.volume !== volume || frame.at !== at) return `no frame is at ${at} of a volume`;
    at += frame.stored;
    length += frame.length;
  }
  const behind = frames.length === 0 ? volumes : volumes - volume - 1;
  if (behind !== 0 || (stored && frames.length > 0 && stored[volume] !== at)) {
    return 'its frames are not all of its volumes';
  }
  if (length !== size) return `its frames hold ${length} bytes instead of ${size}`;
  for (const [i, { name, offset, size }] of members.entries()) {
    const before = members[i - 1];
    const free = before ? before.offset + 512 + before.size : 0;
    if (offset < free || offset + 512 + size > length) return `"${name}" is not within it`;
  }
  return undefined;
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
