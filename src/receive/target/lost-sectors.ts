/** What a disk keeps or loses as a whole, bytes. */
const SECTOR = 512;

/**
 * True if `stored`, which lies at `position` of its file, differs from `news` only as a disk leaves
 * it that confirmed syncs without doing them: sectors that are zero, or as they were before the end
 * of the WAL moved on in them, which is zero behind that. Any other difference is one of content.
 */
export function lostSectorsOnly(stored: Uint8Array, news: Uint8Array, position: number): boolean {
  for (let at = 0; at < stored.length; ) {
    const end = Math.min(stored.length, at + SECTOR - ((position + at) % SECTOR));
    while (at < end && stored[at] === news[at]) at += 1;
    for (; at < end; at++) if (stored[at] !== 0) return false;
  }
  return true;
}
