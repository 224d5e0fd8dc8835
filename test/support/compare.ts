import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Comparison {
  /** Complete segments that both have with the same bytes. */
  equal: string[];
  onlyInA: string[];
  onlyInB: string[];
  /** Segments that differ, with the offset of the first different byte. */
  different: { segment: string; offset: number }[];
}

const segmentsOf = (dir: string) =>
  readdirSync(dir)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort();

/** Offset of the first byte at which two buffers differ, -1 for equal; a shorter one differs. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (Buffer.compare(a, b) === 0) return -1;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return length;
}

/** Compares the complete, plain segments of two directories byte for byte. */
export function cmpSegments(dirA: string, dirB: string): Comparison {
  const [a, b] = [segmentsOf(dirA), segmentsOf(dirB)];
  const result: Comparison = {
    equal: [],
    onlyInA: a.filter((name) => !b.includes(name)),
    onlyInB: b.filter((name) => !a.includes(name)),
    different: [],
  };
  for (const segment of a.filter((name) => b.includes(name))) {
    const offset = firstDifference(
      readFileSync(join(dirA, segment)),
      readFileSync(join(dirB, segment)),
    );
    if (offset < 0) result.equal.push(segment);
    else result.different.push({ segment, offset });
  }
  return result;
}

/** Like `firstDifference` for the first `length` bytes of two files. */
export function cmpPrefix(fileA: string, fileB: string, length: number): number {
  return firstDifference(
    readFileSync(fileA).subarray(0, length),
    readFileSync(fileB).subarray(0, length),
  );
}
