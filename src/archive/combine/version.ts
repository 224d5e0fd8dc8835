import type { FileVersion, Geometry } from '../../base/incremental.js';
import type { FileCursor } from './cursor.js';

/** A file as a backup has it, with where its blocks are; they are to be asked for in their order. */
export interface Version {
  version: FileVersion;
  cursor: FileCursor;
  offsetOf(block: number): number;
}

/** Reads the headers. @throws CorruptObjectError */
export function versionsOf(cursors: readonly FileCursor[], geometry: Geometry): Promise<Version[]> {
  return Promise.all(cursors.map((cursor) => versionOf(cursor, geometry)));
}

async function versionOf(cursor: FileCursor, geometry: Geometry): Promise<Version> {
  const { kind, size } = cursor.source;
  const { blockSize } = geometry;
  if (kind === 'full') {
    const blocks = Math.min(Math.floor(size / blockSize), geometry.segmentBlocks);
    return {
      ...{ version: { kind, blocks }, cursor },
      offsetOf: (block) => block * blockSize,
    };
  }
  const { blocks, truncation, length } = await cursor.header(geometry);
  let n = 0;
  return {
    ...{ version: { kind, blocks, truncation }, cursor },
    offsetOf: (block) => {
      while ((blocks[n] as number) < block) n++;
      return length + n * blockSize;
    },
  };
}
