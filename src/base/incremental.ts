import { CorruptObjectError } from '../errors.js';

/**
 * Files of an incremental backup (PostgreSQL 17 on, basebackup_incremental.c): `INCREMENTAL.<file>`
 * has the blocks of a relation's file that were changed since the backup that it is based on.
 *
 * ```
 * u32 magic   u32 count   u32 truncation length   count × u32 number of a block within the file
 * if count > 0: zeros up to a multiple of the block size, then the blocks
 * ```
 */
const MAGIC = 0xd3ae1f0d;
const PREFIX = 'INCREMENTAL.';

/** Bytes before the numbers of the blocks. */
export const FIXED_HEADER = 12;

/** How a cluster cuts its relations: BLCKSZ, and RELSEG_SIZE, the blocks of a file. */
export interface Geometry {
  blockSize: number;
  segmentBlocks: number;
}

/** What the blocks of an incremental file are. */
export interface IncrementalHeader {
  /**
   * Blocks that the file has at least. From this one on, nothing of older backups counts: it was cut
   * off, or was never there.
   */
  truncation: number;
  /** Ascending. */
  blocks: Uint32Array;
  /** Bytes before the first block. */
  length: number;
}

/** The path of the file that an incremental one is part of; undefined for what is none. */
export function wholePath(path: string): string | undefined {
  const at = path.lastIndexOf('/') + 1;
  return path.startsWith(PREFIX, at)
    ? path.slice(0, at) + path.slice(at + PREFIX.length)
    : undefined;
}

export function incrementalPath(path: string): string {
  const at = path.lastIndexOf('/') + 1;
  return path.slice(0, at) + PREFIX + path.slice(at);
}

/**
 * Bytes of the header, by its first twelve.
 * @param where names the file and the backup, for messages
 * @throws CorruptObjectError
 */
export function incrementalHeaderLength(
  first: Uint8Array,
  size: number,
  geometry: Geometry,
  where: string,
): number {
  if (size < FIXED_HEADER || first.length < FIXED_HEADER) throw wrong(where, 'it is cut');
  const view = new DataView(first.buffer, first.byteOffset, FIXED_HEADER);
  if (view.getUint32(0, true) !== MAGIC) throw wrong(where, 'it does not begin as one');
  const count = view.getUint32(4, true);
  if (count > geometry.segmentBlocks) {
    throw wrong(where, `${count} blocks are more than a file has`);
  }
  const { blockSize } = geometry;
  const numbers = FIXED_HEADER + 4 * count;
  const length = count === 0 ? numbers : Math.ceil(numbers / blockSize) * blockSize;
  const expected = length + count * blockSize;
  if (size !== expected) {
    throw wrong(where, `it has ${size} bytes, and ${count} blocks take ${expected}`);
  }
  return length;
}

/**
 * @param header as many bytes as `incrementalHeaderLength` says
 * @throws CorruptObjectError
 */
export function parseIncrementalHeader(
  header: Uint8Array,
  size: number,
  geometry: Geometry,
  where: string,
): IncrementalHeader {
  const length = incrementalHeaderLength(header, size, geometry, where);
  if (header.length !== length) throw wrong(where, 'it is cut');
  const { segmentBlocks } = geometry;
  const view = new DataView(header.buffer, header.byteOffset, length);
  const blocks = new Uint32Array(view.getUint32(4, true));
  let least = 0;
  for (let i = 0; i < blocks.length; i++) {
    const block = view.getUint32(FIXED_HEADER + 4 * i, true);
    if (block < least || block >= segmentBlocks) {
      throw wrong(where, `block ${block} is its number ${i + 1}, behind ${least - 1}`);
    }
    blocks[i] = block;
    least = block + 1;
  }
  if (header.subarray(FIXED_HEADER + 4 * blocks.length).some((byte) => byte !== 0)) {
    throw wrong(where, 'its padding is not zero');
  }
  // Servers before 17.8 and 18.2 put in more than a file has, of relations of several files.
  const truncation = Math.min(view.getUint32(8, true), segmentBlocks);
  return { truncation, blocks, length };
}

function wrong(where: string, why: string): CorruptObjectError {
  return new CorruptObjectError(`${where} is no whole incremental file: ${why}`, {
    hint: 'Restore an earlier backup, and take a full one: no other can be based on this.',
  });
}

/** A file as one backup of a chain has it. */
export type FileVersion =
  | ({ kind: 'incremental' } & Pick<IncrementalHeader, 'truncation' | 'blocks'>)
  /** `blocks`: whole ones that it has. */
  | { kind: 'full'; blocks: number };

/** Of no version: a block of zeros. */
export const NO_VERSION = -1;

/**
 * Which version of a file each of its blocks comes from: the newest that has it. An older one counts
 * below the truncation lengths of *all* newer ones: what was cut off in between, and came back as
 * empty blocks, which nobody logs, must not come back with its old content.
 * @param versions newest first, up to the first full one
 */
export function planBlocks(versions: readonly FileVersion[]): Int16Array {
  const [newest] = versions;
  if (newest === undefined) return new Int16Array(0);
  const plan = new Int16Array(lengthOf(newest)).fill(NO_VERSION);
  let limit = plan.length;
  for (const [i, version] of versions.entries()) {
    if (version.kind === 'full') {
      const end = Math.min(limit, version.blocks);
      for (let block = 0; block < end; block++) if (plan[block] === NO_VERSION) plan[block] = i;
      break;
    }
    for (const block of version.blocks) {
      if (block >= limit) break;
      if (plan[block] === NO_VERSION) plan[block] = i;
    }
    limit = Math.min(limit, version.truncation);
  }
  return plan;
}

function lengthOf(newest: FileVersion): number {
  if (newest.kind === 'full') return newest.blocks;
  return Math.max(newest.truncation, (newest.blocks.at(-1) ?? -1) + 1);
}
