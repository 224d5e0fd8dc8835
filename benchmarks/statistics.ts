/** Middle value; the mean of the two middle ones for an even count. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Linear interpolation between closest ranks, q from 0 to 1. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  const a = sorted[low] ?? Number.NaN;
  const b = sorted[Math.ceil(at)] ?? Number.NaN;
  return a + (b - a) * (at - low);
}

/**
 * Median of paired ratios with a 95 % bootstrap interval (percentile method). The pairs are what
 * was measured side by side, so that the machine's moods cancel.
 */
export function pairedRatio(ours: readonly number[], theirs: readonly number[], resamples = 4000) {
  const ratios = ours.map((v, i) => v / (theirs[i] as number));
  // A fixed seed: the same measurements give the same interval.
  let seed = 12345;
  const random = () => {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff;
    return seed / 0x7fffffff;
  };
  const medians = Array.from({ length: resamples }, () =>
    median(
      ratios.map(
        () => ratios[Math.min(ratios.length - 1, Math.floor(random() * ratios.length))] as number,
      ),
    ),
  );
  return {
    ratio: median(ratios),
    low: quantile(medians, 0.025),
    high: quantile(medians, 0.975),
    pairs: ratios.length,
  };
}
