import { join } from 'node:path';
import { StorageError } from '../../errors.js';
import { CREATE_NEW, type FileSystem } from '../../files/file-system.js';

/** A segment that is being written: always under its `.partial` name. */
export interface OpenSegment {
  fd: number;
  segment: bigint;
  timeline: number;
  /** Final file name without directory. */
  name: string;
  /** Where it is now. */
  path: string;
  /** Stream offsets of its first byte and of the byte after its last. */
  begin: number;
  end: number;
  /** Stream offset up to which fdatasync has covered it. */
  synced: number;
  /** A background sync of this descriptor: it must not be closed, and so reused, before. */
  inFlight?: Promise<void>;
  /** Its `.partial` name is durable; absent without syncs. */
  named?: Promise<void>;
  /** A second descriptor for direct I/O; opened with the first write that can use it. */
  directFd?: number;
  /** A third one for direct I/O that is durable with the write (O_DSYNC). */
  syncedFd?: number;
  /** Made by this writer: behind what was written there are zeros. */
  fresh: boolean;
}

/** Closes all descriptors. */
export function closeSegment(segment: OpenSegment, fs: FileSystem): void {
  if (segment.directFd !== undefined) fs.closeSync(segment.directFd);
  delete segment.directFd;
  if (segment.syncedFd !== undefined) fs.closeSync(segment.syncedFd);
  delete segment.syncedFd;
  fs.closeSync(segment.fd);
}

/** A file that is not yet as long as a segment; a dotfile, so that no scan takes it for WAL. */
const NEW_NAME = '.walkeep-new';

/**
 * Makes a sparse file, which costs little while catching up. Its size is durable before it gets the
 * name: an empty partial left by a power cut would be taken for the operator's wish to start there,
 * and what was lost before it for an accepted gap. Throws Node's errors.
 * @returns its descriptor, undefined if the name is taken by then
 */
export function createSegment(
  path: string,
  o: { directory: string; segmentSize: number; mode: number; sync: boolean; fs: FileSystem },
): number | undefined {
  const { fs } = o;
  const temporary = join(o.directory, NEW_NAME);
  if (fs.sizeSync(temporary) !== undefined) fs.unlinkSync(temporary);
  const fd = fs.openSync(temporary, CREATE_NEW, o.mode);
  try {
    fs.ftruncateSync(fd, o.segmentSize);
    if (o.sync) fs.fsyncSync(fd);
    if (fs.sizeSync(path) === undefined) {
      fs.renameSync(temporary, path);
      return fd;
    }
    fs.unlinkSync(temporary);
    fs.closeSync(fd);
    return undefined;
  } catch (e) {
    fs.closeSync(fd);
    throw e;
  }
}

/** A partial file is not longer than its segment. @throws StorageError */
export function requireRoom(path: string, size: number, segmentSize: number): void {
  if (size <= segmentSize) return;
  throw new StorageError(
    `write-ahead log file "${path}" has ${size} bytes, should be 0 or ${segmentSize}`,
    { path, expected: `${segmentSize}`, actual: `${size}`, hint: 'Move it away.' },
  );
}
