import type { Compressed, Deliver, FormatResult } from './format.js';

/** What is not compressed, for who reads it as if it were. */
export async function decompress({ reader }: Compressed, deliver: Deliver): Promise<FormatResult> {
  for (;;) {
    const chunk = await reader.readUpTo(Number.POSITIVE_INFINITY);
    if (chunk.length === 0) return { end: 'complete', trailingGarbage: false };
    if (await deliver(chunk)) return { end: 'limit', trailingGarbage: false };
  }
}
