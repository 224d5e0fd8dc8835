/**
 * Bytes in pieces of exactly `size`, but for the last, which is shorter or empty: only where there
 * is nothing at all. Each is valid until the next step.
 */
export async function* inPieces(
  bytes: AsyncIterable<Uint8Array>,
  size: number,
): AsyncGenerator<Uint8Array> {
  const piece = Buffer.allocUnsafeSlow(size);
  let have = 0;
  let any = false;
  for await (const chunk of bytes) {
    for (let at = 0; at < chunk.length; ) {
      // Not before there is more: which piece is the last one is known by then.
      if (have === size) {
        yield piece;
        any = true;
        have = 0;
      }
      const n = Math.min(size - have, chunk.length - at);
      piece.set(chunk.subarray(at, at + n), have);
      have += n;
      at += n;
    }
  }
  if (have > 0 || !any) yield piece.subarray(0, have);
}
