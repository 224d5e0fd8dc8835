/** Valid until the next step. */
export interface Piece {
  piece: Uint8Array;
  isLast: boolean;
}

/**
 * Bytes in pieces of exactly `size`, but for the last, which may be shorter; empty only where there
 * is nothing at all.
 */
export async function* inPieces(
  bytes: AsyncIterable<Uint8Array>,
  size: number,
): AsyncGenerator<Piece> {
  const piece = Buffer.allocUnsafeSlow(size);
  let have = 0;
  for await (const chunk of bytes) {
    for (let at = 0; at < chunk.length; ) {
      // Not before there is more: by then it is known not to be the last one.
      if (have === size) {
        yield { piece, isLast: false };
        have = 0;
      }
      const n = Math.min(size - have, chunk.length - at);
      piece.set(chunk.subarray(at, at + n), have);
      have += n;
      at += n;
    }
  }
  yield { piece: piece.subarray(0, have), isLast: true };
}
