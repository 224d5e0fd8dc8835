/** Upper bounds of how long a sync took, seconds. */
export const SYNC_BOUNDS: readonly number[] = [
  ...[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
];

/**
 * Counts how long syncs took. It is on the path of every commit: two additions, with times that were
 * measured for other reasons.
 */
export class SyncTimes {
  /** By bound; the last: longer than all of them. */
  readonly counts: number[] = Array(SYNC_BOUNDS.length + 1).fill(0);
  /** Of all together. */
  milliseconds = 0;

  note(milliseconds: number): void {
    const { counts } = this;
    const last = counts.length - 1;
    let at = 0;
    while (at < last && milliseconds > (SYNC_BOUNDS[at] as number) * 1000) at += 1;
    counts[at] = (counts[at] as number) + 1;
    this.milliseconds += milliseconds;
  }
}
