import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import { CorruptObjectError } from '../../errors.js';
import type { ByteSource } from '../format.js';
import { inPieces } from '../pieces.js';

// The payload of an age file: age-encryption.org/v1, "Payload". By node:crypto, which is several
// times as fast as what the age-encryption package has.

const CIPHER = 'chacha20-poly1305';
const TAG = 16;
export const NONCE = 16;
/** Plain bytes of a piece. */
export const PIECE = 64 * 1024;

/** The key of the pieces. */
function payloadKey(fileKey: Uint8Array, nonce: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', fileKey, nonce, 'payload', 32));
}

/** 11 bytes of a counter, big-endian, and a mark on the last piece: none can be moved or left out. */
function pieceNonce(number: number, isLast: boolean): Uint8Array {
  const nonce = Buffer.alloc(12);
  nonce.writeUIntBE(number, 5, 6);
  nonce[11] = isLast ? 1 : 0;
  return nonce;
}

/** What goes behind the header and `nonce`. Its own bytes stay as they are. */
export async function* encryptPayload(
  plain: AsyncIterable<Uint8Array>,
  fileKey: Uint8Array,
  nonce: Uint8Array,
): AsyncGenerator<Uint8Array> {
  const key = payloadKey(fileKey, nonce);
  let number = 0;
  for await (const { piece, isLast } of inPieces(plain, PIECE)) {
    const cipher = createCipheriv(CIPHER, key, pieceNonce(number, isLast), { authTagLength: TAG });
    const sealed = Buffer.allocUnsafeSlow(piece.length + TAG);
    sealed.set(cipher.update(piece));
    cipher.final();
    sealed.set(cipher.getAuthTag(), piece.length);
    yield sealed;
    number += 1;
  }
}

/**
 * @param reader behind the header
 * @param name of what is read, for errors
 * @throws CorruptObjectError at the first piece that is not what was written in its place
 */
export async function* decryptPayload(
  reader: ByteSource,
  fileKey: Uint8Array,
  name: string,
): AsyncGenerator<Uint8Array> {
  const corrupt = (why: string) => new CorruptObjectError(`"${name}" ${why}`, { path: name });
  const nonce = await reader.read(NONCE);
  if (!nonce) throw corrupt('is cut short: it ends behind its age header');
  const key = payloadKey(fileKey, nonce);
  for (let number = 0; ; number++) {
    const whole = await reader.read(PIECE + TAG);
    const isLast = whole === undefined || (await reader.atEnd());
    const sealed = whole ?? (await reader.readUpTo(PIECE + TAG));
    const plain = openPiece(key, number, isLast, sealed);
    if (!plain) {
      // Of whole pieces it can be told what is wrong.
      if (openPiece(key, number, !isLast, sealed)) {
        throw corrupt(isLast ? 'is cut short: more was encrypted' : 'has something behind its end');
      }
      const place = `from byte ${number * PIECE} of its content on`;
      throw corrupt(`is cut short, damaged or out of order ${place}`);
    }
    if (isLast && plain.length === 0 && number > 0) throw corrupt('ends with an empty piece');
    yield plain;
    if (isLast) return;
  }
}

/** Undefined unless it is that piece. */
function openPiece(
  key: Uint8Array,
  number: number,
  isLast: boolean,
  sealed: Uint8Array,
): Uint8Array | undefined {
  const length = sealed.length - TAG;
  if (length < 0) return undefined;
  const nonce = pieceNonce(number, isLast);
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG });
  decipher.setAuthTag(sealed.subarray(length));
  const plain = decipher.update(sealed.subarray(0, length));
  try {
    decipher.final();
    return plain;
  } catch {
    return undefined;
  }
}
