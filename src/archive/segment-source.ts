import fs from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ArchiveAccessError } from '../errors.js';
import { storageError } from '../files/durable.js';
import {
  type Compression,
  MIN_SEGMENT_SIZE,
  parseSegmentFileName,
  storedNames,
} from '../wal/file-name.js';
import { danglingLink, isGone } from './access.js';
import type { ReadableSegment } from './good-wal.js';

/** A file of a segment, to be read under the name that it has now. */
export interface StoredSegment extends ReadableSegment {
  /** Bare name. */
  readonly name: string;
  /** For messages; of a file that is gone, what its error names. */
  readonly path: string;
  readonly compression: Compression;
  readonly partial: boolean;
  /** It lies in a store: `path` is what it is called there, and only its own methods read it. */
  readonly inStore: boolean;
  /** The same for who reads two files side by side. */
  bytes(limit: number): AsyncIterable<Uint8Array>;
  /** Length up to the last byte that is not zero; of a plain file. @throws StorageError */
  contentEnd(): Promise<number>;
  /** Bytes in the archive, however it is compressed. @throws StorageError */
  size(): Promise<number>;
  /** Lets go of what is on its way and will not be read. */
  discard(): Promise<void>;
}

/**
 * A segment file of that path. What reads it is loaded when it is read: whoever restores a segment
 * waits for all that is loaded.
 * @param size bytes on disk, where they are known
 */
export function segmentAt(
  path: string,
  compression: Compression,
  { partial = false, size }: { partial?: boolean; size?: number } = {},
): StoredSegment {
  return {
    name: basename(path),
    path,
    compression,
    partial,
    inStore: false,
    discard: async () => {},
    read: async (limit, take, options) => {
      const { readSegment } = await import('./segment-reader.js');
      return readSegment(path, compression, limit, take, options);
    },
    async *bytes(limit) {
      const { segmentBytes } = await import('./segment-reader.js');
      yield* segmentBytes(path, compression, limit);
    },
    contentEnd: async () => (await import('./good-wal.js')).contentEnd(path),
    size: async () => {
      if (size !== undefined) return size;
      const found = await stat(path).catch((e) => {
        throw storageError('read file', path, e);
      });
      return found.size;
    },
  };
}

/** Names that one file may go through; more often than this nobody renames it. */
const MOST_NAMES = 20;

/**
 * Reads a segment under whatever name it has by now: since it was listed a receiver may have
 * completed, compressed or gone on with it. An open file stays what it is, so `read` has to open
 * the file before it does anything else; it is called again if that is not there any more.
 * @throws what `read` throws; the error of a missing file if nothing is left of the segment, see
 *   `isGone`
 */
export async function readCurrent<T>(
  directory: string,
  name: string,
  read: (file: StoredSegment) => T | Promise<T>,
): Promise<T> {
  let current = name;
  for (let names = 1; ; names++) {
    const file = segmentNamed(directory, current);
    try {
      return await read(file);
    } catch (e) {
      const next = isGone(e, file.path) ? currentName(directory, current) : undefined;
      if (next === undefined) throw e;
      // Something of it is there all the same: not gone, but not to be read either.
      if (names === MOST_NAMES) throw overAndOver(file.path);
      current = next;
    }
  }
}

/** For a file that no number of looks gets hold of. */
export function overAndOver(path: string): ArchiveAccessError {
  return new ArchiveAccessError(`"${path}" is there and gone again, over and over`, { path });
}

/** The segment file of that name. */
export function segmentNamed(directory: string, name: string): StoredSegment {
  const { compression, partial } = parseSegmentFileName(name, MIN_SEGMENT_SIZE)!;
  return segmentAt(join(directory, name), compression, { partial });
}

/**
 * The name under which a segment is there, complete rather than partial; undefined if it is not.
 * @throws StorageError if it cannot be told
 */
export function currentName(directory: string, name: string): string | undefined {
  // One that gets its final name between the first two looks is found by the third.
  return (
    nameOf(directory, name, false) ??
    nameOf(directory, name, true) ??
    nameOf(directory, name, false)
  );
}

function nameOf(directory: string, name: string, partial: boolean): string | undefined {
  const names = storedNames(name.slice(0, 24), partial);
  return names.find((candidate) => isThere(join(directory, candidate)));
}

/** @throws StorageError if it cannot be told, also of a link that leads to nothing */
export function isThere(path: string): boolean {
  try {
    if (fs.statSync(path, { throwIfNoEntry: false })) return true;
    if (fs.lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) throw danglingLink(path);
    return false;
  } catch (e) {
    throw storageError('look at', path, e);
  }
}
