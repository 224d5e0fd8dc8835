import { WorkingThread } from '../threads.js';
import type { Compression } from '../wal/file-name.js';

/** File descriptors belong to the process, not to one of its threads. */
export interface FileJob {
  kind: 'file';
  from: number;
  to: number;
  length: number;
}

/** Memory that all threads see: nothing is copied. */
export interface MemoryJob {
  kind: 'memory';
  codec: Compression;
  /** Absent for the codec's default. */
  level?: number;
  plain: Uint8Array;
  into: Uint8Array;
}

export type CompressionJob = FileJob | MemoryJob;

/**
 * The compressing thread of the process: one, since its code is optimized once and not anew for each
 * segment. It answers how long the output is.
 */
export const COMPRESSING_THREAD = new WorkingThread<CompressionJob, number>('codec/worker.js');
