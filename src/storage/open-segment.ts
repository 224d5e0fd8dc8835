import type { FileSystem } from './file-system.js';

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
