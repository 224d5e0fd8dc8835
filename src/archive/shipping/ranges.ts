/** From the first one on, and before the second one. */
export type Range = readonly [from: bigint, to: bigint];

/** Disjoint ranges in ascending order with one more; what touches becomes one. */
export function withRange(ranges: readonly Range[], from: bigint, to: bigint): Range[] {
  const before = ranges.filter(([, end]) => end < from);
  const behind = ranges.filter(([start]) => start > to);
  const joined = ranges.slice(before.length, ranges.length - behind.length);
  const [first, last] = [joined[0], joined.at(-1)];
  const start = first && first[0] < from ? first[0] : from;
  const end = last && last[1] > to ? last[1] : to;
  return [...before, [start, end], ...behind];
}

/** True if one of them has all of it. */
export function covers(ranges: readonly Range[], from: bigint, to: bigint): boolean {
  return ranges.some(([start, end]) => start <= from && end >= to);
}
