/**
 * A set of transaction IDs as its ascending runs: of each run how far behind the end of the one before
 * it begins, and how many follow each other in it. `[700, 3, 2, 1]` is 700, 701, 702, 704.
 */
export type XidRanges = readonly number[];

export function packXids(xids: Iterable<number>): number[] {
  const sorted = Uint32Array.from(xids).sort();
  const ranges: number[] = [];
  let behind = 0;
  for (let i = 0; i < sorted.length; ) {
    const first = sorted[i]!;
    let next = first + 1;
    for (i++; i < sorted.length && sorted[i]! <= next; i++) {
      if (sorted[i] === next) next++;
    }
    ranges.push(first - behind, next - first);
    behind = next - 1;
  }
  return ranges;
}

export function joinXids(a: XidRanges, b: XidRanges): XidRanges {
  if (b.length === 0) return a;
  return packXids([...xidsIn(a), ...xidsIn(b)]);
}

function* xidsIn(ranges: XidRanges): Generator<number> {
  let last = 0;
  for (let i = 0; i < ranges.length; i += 2) {
    const first = last + ranges[i]!;
    last = first + ranges[i + 1]! - 1;
    for (let xid = first; xid <= last; xid++) yield xid;
  }
}

export function hasXid(ranges: XidRanges, xid: number): boolean {
  let last = 0;
  for (let i = 0; i < ranges.length; i += 2) {
    const first = last + ranges[i]!;
    if (xid < first) return false;
    last = first + ranges[i + 1]! - 1;
    if (xid <= last) return true;
  }
  return false;
}
