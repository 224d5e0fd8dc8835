import { BodyReader } from './body-reader.js';
import { type BlockReference, parseRecordBody, type RecordBodyOptions } from './record-body.js';
import type { RelFileLocator } from './relation.js';

/** Resource manager 10 and its record type for changes that no abort undoes. */
export const RM_HEAP = 10;
/** Under XLOG_HEAP_OPMASK, which has the same bits (access/heapam_xlog.h). */
export const HEAP_INPLACE = 0x70;

/** t_hoff in a tuple's header (access/htup_details.h). */
const T_HOFF = 22;
/** Where a page's line pointers begin (storage/bufpage.h: SizeOfPageHeaderData). */
const PAGE_HEADER = 24;

/** A row that was changed in place. */
export interface InplaceUpdate {
  relation: RelFileLocator;
  /** The row without its header, at least; a view. Absent if it is in a compressed image. */
  row?: Uint8Array;
}

/**
 * xl_heap_inplace: main data begins with u16 offnum; block 0 has the new row without its header as
 * data, or instead of it an image of the page.
 * @throws CorruptWalError if the body is no record's, or has no block reference
 */
export function parseInplaceUpdate(body: Uint8Array, options: RecordBodyOptions): InplaceUpdate {
  const { blocks, data } = parseRecordBody(body, options);
  const main = new BodyReader(data, 'heap record');
  const block = blocks[0];
  if (!block) throw main.corrupt('it changes no page');
  const row = block.data.length > 0 ? block.data : rowInImage(block, main.u16());
  return { relation: block.relation, ...(row ? { row } : {}) };
}

/** The row at a line pointer (from 1 on) of an uncompressed page image. */
function rowInImage({ image }: BlockReference, offnum: number): Uint8Array | undefined {
  if (image?.compression !== 'none') return undefined;
  const { bytes, holeOffset, holeLength } = image;
  const at = (offset: number) => (offset < holeOffset + holeLength ? offset : offset - holeLength);
  const pointer = PAGE_HEADER + (offnum - 1) * 4;
  if (offnum === 0 || pointer + 2 > bytes.length) return undefined;
  // lp_off: the low 15 bits.
  const start = at((bytes[pointer]! | (bytes[pointer + 1]! << 8)) & 0x7fff);
  const header = bytes[start + T_HOFF];
  return header === undefined ? undefined : bytes.subarray(start + header);
}
