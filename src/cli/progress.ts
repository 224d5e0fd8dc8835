import { formatLsn } from '../lsn.js';
import type { ReceiverEvents } from '../receive/options.js';
import { formatBytes } from '../units.js';
import type { Output } from './output.js';

export { formatBytes };

type Positions = ReceiverEvents['progress'][0];

/** Turns the receiver's positions into a line: where it is, how fast, how far behind. */
export class ProgressMeter {
  #positions: Positions | undefined;
  #segments = 0;
  #last: { received: bigint; at: number } | undefined;

  segment(): void {
    this.#segments += 1;
  }

  positions(positions: Positions): void {
    this.#positions = positions;
  }

  /** The line at `now` (milliseconds); the rate is of the time since the line before. */
  line(now: number): string | undefined {
    if (this.#positions === undefined) return undefined;
    const { received, flushed, serverEnd, timeline } = this.#positions;
    const last = this.#last;
    this.#last = { received, at: now };
    // Every stream begins at the start of a segment: a step back is a reconnect, not a rate.
    const bytes = last === undefined || received < last.received ? 0n : received - last.received;
    const seconds = last === undefined ? 0 : (now - last.at) / 1000;
    const rate = seconds > 0 ? Number(bytes) / seconds : 0;
    const lag = serverEnd > received ? Number(serverEnd - received) : 0;
    const segments = `${this.#segments} segment${this.#segments === 1 ? '' : 's'}`;
    return (
      `${formatLsn(received)} (timeline ${timeline}), flushed ${formatLsn(flushed)}, ` +
      `${formatBytes(rate)}/s, lag ${formatBytes(lag)}, ${segments}`
    );
  }
}

/** Milliseconds between two looks of a bar. */
const REDRAW = 100;

/** Shows how far a reading of WAL is, on the live line. */
export function progressBar(
  output: Output,
): (progress: Readonly<{ bytes: number; totalBytes: number }>) => void {
  const began = performance.now();
  let last = began;
  return ({ bytes, totalBytes }) => {
    const now = performance.now();
    if (now - last < REDRAW || totalBytes === 0) return;
    last = now;
    const part = Math.min(1, bytes / totalBytes);
    const bar = '#'.repeat(Math.round(part * 30)).padEnd(30, '.');
    const rate = bytes / ((now - began) / 1000);
    const left = Math.ceil((totalBytes - bytes) / rate);
    output.status(
      `[${bar}] ${Math.floor(part * 100)} %, ${formatBytes(bytes)} of ${formatBytes(totalBytes)}, ` +
        `${formatBytes(rate)}/s, ${left} s left`,
    );
  };
}
