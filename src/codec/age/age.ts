import { randomBytes } from 'node:crypto';
import { CorruptObjectError, EncryptedError } from '../../errors.js';
import type { StreamReader } from '../stream-reader.js';
import type { Identities } from './identities.js';
import { decryptPayload, encryptPayload, NONCE } from './payload.js';
import type { Recipients } from './recipients.js';

/** What an age file begins with. */
export const AGE_MAGIC = Buffer.from('age-encryption.org/v1\n');

/** A header has a stanza for each recipient, of 100 to 1700 bytes. */
const MOST_HEADER = 256 * 1024;

/** Its own bytes stay as they are. */
export async function* encrypt(
  plain: AsyncIterable<Uint8Array>,
  recipients: Recipients,
): AsyncGenerator<Uint8Array> {
  const { header, fileKey } = await recipients.header();
  const nonce = randomBytes(NONCE);
  yield Buffer.concat([header, nonce]);
  yield* encryptPayload(plain, fileKey, nonce);
}

/**
 * @param reader at the start of an age file
 * @param name of what is read, for errors
 * @throws EncryptedError if no identity opens it, CorruptObjectError
 */
export async function* decrypt(
  reader: StreamReader,
  identities: Identities | undefined,
  name: string,
): AsyncGenerator<Uint8Array> {
  const header = await readHeader(reader, name);
  if (!identities) {
    throw new EncryptedError(`"${name}" is encrypted, and no identity was given`, {
      path: name,
      hint: 'Give one with --identity or --identity-command.',
    });
  }
  const fileKey = await onHeader(name, () => identities.fileKey(header));
  if (!fileKey) {
    throw new EncryptedError(`"${name}" is encrypted for none of the identities given`, {
      path: name,
      actual: identities.recipients.join(', '),
      hint: 'Give the identity of one of its recipients; or the header is damaged.',
    });
  }
  yield* decryptPayload(reader, fileKey, name);
}

/** Who can read an age file. */
export interface Encryption {
  /** How many there are; who they are no header tells. */
  recipients: number;
  /** The public keys of the identities that open it, `age1…`. */
  openedBy: string[];
}

/** @throws CorruptObjectError */
export async function readEncryption(
  reader: StreamReader,
  identities: Identities,
  name: string,
): Promise<Encryption> {
  const header = await readHeader(reader, name);
  const openedBy = await onHeader(name, () => identities.opening(header));
  // Some programs add stanzas that are for nobody, so that readers stay used to what they do not know.
  const stanzas = Buffer.from(header)
    .toString('latin1')
    .match(/^-> (?!\S*-grease\b)/gm);
  return { recipients: stanzas?.length ?? 0, openedBy };
}

async function onHeader<T>(name: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (cause) {
    throw damagedHeader(name, cause);
  }
}

/** Up to the line with its MAC. */
async function readHeader(reader: StreamReader, name: string): Promise<Uint8Array> {
  for (let size = 1024; size <= MOST_HEADER; size *= 4) {
    const bytes = Buffer.from(await reader.peek(size));
    const mac = bytes.indexOf('\n--- ');
    const end = mac < 0 ? -1 : bytes.indexOf('\n', mac + 1);
    if (end >= 0) return (await reader.read(end + 1))?.slice() as Uint8Array;
    if (bytes.length < size) break;
  }
  throw damagedHeader(name);
}

function damagedHeader(name: string, cause?: unknown): CorruptObjectError {
  return new CorruptObjectError(`the age header of "${name}" is cut short or damaged`, {
    path: name,
    cause,
  });
}
