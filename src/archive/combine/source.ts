import type { Geometry } from '../../base/incremental.js';
import type { ManifestFile } from '../../base/manifest.js';
import type { Piece } from '../backups/reader.js';
import type { FrameCache } from './frames.js';

/** A file as one backup of a chain has it. Can be sent to a thread. */
export interface FileSource {
  /** Place of the backup in its chain: 0 is the full one. */
  backup: number;
  /** As it is called in that backup, below the data directory. */
  path: string;
  kind: 'incremental' | 'full';
  /** Bytes. */
  size: number;
  /** Of its content within the tar. */
  offset: number;
  /** Of that backup's manifest. */
  checksum: ManifestFile['checksum'];
  /** What has its content, in order. */
  pieces: Piece[];
}

/** A file that the last backup of a chain has as an incremental one. Can be sent to a thread. */
export interface CombinedFile {
  /** Below the data directory. */
  path: string;
  /** Newest first; the last one is full. */
  sources: FileSource[];
  /** Of a file of a visibility map. */
  map?: MapFile | undefined;
}

/** A file of a visibility map, and the table that it tells of. */
export interface MapFile {
  /** Which of the map's files it is, from 0. */
  segment: number;
  /** Of each file of the table, by its number, what `CombinedFile.sources` is. */
  main: (FileSource[] | undefined)[];
}

/** What combining takes. */
export interface CombineContext {
  frames: FrameCache;
  geometry: Geometry;
  /** Pages have checksums. */
  checksums: boolean;
}
