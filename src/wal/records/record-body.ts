import { BodyReader } from './body-reader.js';
import { type RelFileLocator, readRelation } from './relation.js';

/** First byte of each part of a record: up to 32 a block reference, else (access/xlogrecord.h): */
const MAX_BLOCK_ID = 32;
const DATA_SHORT = 255;
const DATA_LONG = 254;
const ORIGIN = 253;
const TOPLEVEL_XID = 252;

/** fork_flags: the low bits are the fork. */
const FORK_MASK = 0x0f;
const HAS_IMAGE = 0x10;
const HAS_DATA = 0x20;
const WILL_INIT = 0x40;
const SAME_REL = 0x80;

/** bimg_info. */
const HAS_HOLE = 0x01;

/** The other bits of bimg_info by server version: BKPIMAGE_APPLY, and each compression. */
const IMAGE_BITS_14 = { apply: 0x04, pglz: 0x02, lz4: 0, zstd: 0 };
const IMAGE_BITS = { apply: 0x02, pglz: 0x04, lz4: 0x08, zstd: 0x10 };

/** What the bytes alone do not tell. */
export interface RecordBodyOptions {
  /** Of the server that wrote it: 14 has other bits in bimg_info. */
  major?: number | undefined;
  /** BLCKSZ, the size of a data page, if the server was built with another one than 8192. */
  dataPageSize?: number;
}

/** A full-page image in a record. */
export interface PageImage {
  /** The image as it is stored: without its hole, perhaps compressed. A view. */
  bytes: Uint8Array;
  /** Where the zeros in its middle were left out, bytes. */
  holeOffset: number;
  holeLength: number;
  compression: 'none' | 'pglz' | 'lz4' | 'zstd';
  /** False: only there to check consistency (wal_consistency_checking). */
  apply: boolean;
}

/** A page that a record changes. */
export interface BlockReference {
  id: number;
  relation: RelFileLocator;
  /** 0 main, 1 free space map, 2 visibility map, 3 init. */
  fork: number;
  block: number;
  /** Replay makes the page anew. */
  willInit: boolean;
  image?: PageImage;
  /** What the resource manager stored with this page; empty if nothing. A view. */
  data: Uint8Array;
}

/** What a record is made of. */
export interface RecordBody {
  blocks: BlockReference[];
  /** Main data: what the resource manager stored. A view. */
  data: Uint8Array;
  /** Replication origin, if the change came from another server. */
  origin?: number;
  /** The transaction, where the record's xid is a subtransaction that was not reported yet. */
  toplevelXid?: number;
}

/** A block reference whose image and data are still to be cut out. */
interface Pending {
  reference: Omit<BlockReference, 'data' | 'image'>;
  dataLength: number;
  image: (Omit<PageImage, 'bytes'> & { length: number }) | undefined;
}

/**
 * Takes a record's body apart: headers of all parts first, then the bytes of each block reference
 * (image, data), last the main data.
 * ```
 * block reference    u8 id, u8 fork_flags, u16 data_length, [image header],
 *                    [RelFileLocator unless SAME_REL], u32 block
 * image header       u16 length, u16 hole_offset, u8 bimg_info, [u16 hole_length]
 * main data          u8 255, u8 length  or  u8 254, u32 length
 * origin             u8 253, u16
 * toplevel xid       u8 252, u32
 * ```
 * @throws CorruptWalError if the parts contradict the length or each other
 */
export function parseRecordBody(body: Uint8Array, options: RecordBodyOptions = {}): RecordBody {
  const reader = new BodyReader(body, 'WAL record');
  const pending: Pending[] = [];
  const result: RecordBody = { blocks: [], data: new Uint8Array(0) };
  let due = 0;
  let mainLength = 0;
  // The headers are over where all that is left is what they announced.
  while (reader.left > due) {
    const id = reader.u8();
    if (id === DATA_SHORT || id === DATA_LONG) {
      mainLength = id === DATA_SHORT ? reader.u8() : reader.u32();
      due += mainLength;
      break;
    }
    if (id === ORIGIN) result.origin = reader.u16();
    else if (id === TOPLEVEL_XID) result.toplevelXid = reader.u32();
    else if (id <= MAX_BLOCK_ID) {
      const block = readBlock(reader, id, pending.at(-1), options);
      pending.push(block);
      due += block.dataLength + (block.image?.length ?? 0);
    } else throw reader.corrupt(`unknown part ${id}`);
  }
  if (reader.left !== due) throw reader.corrupt(`${reader.left} bytes left, ${due} announced`);
  for (const { reference, dataLength, image } of pending) {
    const { length = 0, ...imageFields } = image ?? {};
    const bytes = reader.bytes(length);
    result.blocks.push({
      ...reference,
      ...(image ? { image: { ...(imageFields as Omit<PageImage, 'bytes'>), bytes } } : {}),
      data: reader.bytes(dataLength),
    });
  }
  result.data = reader.bytes(mainLength);
  return result;
}

function readBlock(
  reader: BodyReader,
  id: number,
  before: Pending | undefined,
  options: RecordBodyOptions,
): Pending {
  if (before && id <= before.reference.id) throw reader.corrupt(`block reference ${id} again`);
  const flags = reader.u8();
  const dataLength = reader.u16();
  if (((flags & HAS_DATA) !== 0) !== dataLength > 0) {
    throw reader.corrupt(`${dataLength} bytes of data against the flags of block reference ${id}`);
  }
  const image = (flags & HAS_IMAGE) === 0 ? undefined : readImage(reader, options);
  const same = (flags & SAME_REL) !== 0;
  if (same && !before) throw reader.corrupt('the first block reference has no relation');
  const relation = same ? before!.reference.relation : readRelation(reader);
  const reference = {
    id,
    relation,
    fork: flags & FORK_MASK,
    block: reader.u32(),
    willInit: (flags & WILL_INIT) !== 0,
  };
  return { reference, dataLength, image };
}

function readImage(
  reader: BodyReader,
  { major, dataPageSize = 8192 }: RecordBodyOptions,
): NonNullable<Pending['image']> {
  const bits = major === 14 ? IMAGE_BITS_14 : IMAGE_BITS;
  const length = reader.u16();
  const holeOffset = reader.u16();
  const info = reader.u8();
  const compression = (['pglz', 'lz4', 'zstd'] as const).find((c) => (info & bits[c]) !== 0);
  const hasHole = (info & HAS_HOLE) !== 0;
  let holeLength = 0;
  if (hasHole && compression) holeLength = reader.u16();
  else if (hasHole) holeLength = dataPageSize - length;
  if (hasHole ? holeOffset === 0 || holeLength <= 0 : holeOffset !== 0) {
    throw reader.corrupt(`a page image with ${holeLength} bytes of hole at ${holeOffset}`);
  }
  const apply = (info & bits.apply) !== 0;
  return { length, holeOffset, holeLength, compression: compression ?? 'none', apply };
}
