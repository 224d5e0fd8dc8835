export const SEGMENT = 1024 * 1024;

/** Segment-sized buffers, used again by the next run: allocating them was most of its time. */
const buffers: Buffer[] = [];
let taken = 0;

/** A zeroed buffer of one segment, valid until `resetArena`. */
export function takeBuffer(): Buffer {
  let buffer = buffers[taken];
  if (buffer) buffer.fill(0);
  else {
    buffer = Buffer.alloc(SEGMENT);
    buffers.push(buffer);
  }
  taken += 1;
  return buffer;
}

/** A new run begins; nothing of the last one is used any more. */
export function resetArena(): void {
  taken = 0;
}
