import type { ReceiverCounts } from './status.js';

/** Of two processes of a receiver, one after the other. */
export function addCounts(
  before: ReceiverCounts | undefined,
  now: ReceiverCounts | undefined,
): ReceiverCounts | undefined {
  if (!before || !now) return now ?? before;
  return {
    receivedBytes: before.receivedBytes + now.receivedBytes,
    refused: before.refused + now.refused,
    reconnects: addAll(before.reconnects, now.reconnects),
    syncs: {
      bounds: now.syncs.bounds,
      counts: now.syncs.counts.map((count, i) => count + (before.syncs.counts[i] ?? 0)),
      seconds: before.syncs.seconds + now.syncs.seconds,
    },
    // Not a sum: what one process told of stays so.
    diverged: { ...before.diverged, ...now.diverged },
  };
}

type Numbers = Readonly<Record<string, number>>;

function addAll(one: Numbers, other: Numbers): Numbers {
  const sum: Record<string, number> = { ...one };
  for (const [name, count] of Object.entries(other)) sum[name] = (sum[name] ?? 0) + count;
  return sum;
}
