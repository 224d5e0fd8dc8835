import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { AuthenticationError, ProtocolError } from '../errors.js';
import { prepareScramPassword } from './saslprep.js';

const pbkdf2Async = promisify(pbkdf2);

/** SHA-256 output, bytes. */
const KEY_LENGTH = 32;
/** Random bytes in the client nonce (SCRAM_RAW_NONCE_LEN, common/scram-common.h). */
const RAW_NONCE_LENGTH = 18;
/** The server's default is 4096; this many take about a second, more is an attack on our CPU. */
export const MAX_ITERATIONS = 1_000_000;

/**
 * How the exchange is bound to the TLS channel: the peer certificate's hash
 * (`tls-server-end-point`), `unused` if we could but the server did not offer it, `none` if not.
 */
export type ChannelBinding = { endPoint: Buffer } | 'unused' | 'none';

/**
 * Client of one SCRAM-SHA-256(-PLUS) exchange (RFC 5802, RFC 7677): `firstMessage`, then
 * `respond` to the server's first, then `verify` its final message. The user name is left empty:
 * PostgreSQL takes that of the startup packet.
 */
export class ScramClient {
  readonly mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-256-PLUS';
  readonly firstMessage: string;
  private readonly password: string;
  private readonly nonce: string;
  private readonly gs2Header: string;
  private readonly bindingData: Buffer;
  private readonly firstBare: string;
  private serverSignature: Buffer | undefined;
  private verified = false;

  /** `nonce` and `user` are for test vectors. */
  constructor(
    password: string,
    binding: ChannelBinding,
    nonce: string = randomBytes(RAW_NONCE_LENGTH).toString('base64'),
    user = '',
  ) {
    this.password = password;
    this.nonce = nonce;
    const bound = typeof binding === 'object';
    this.mechanism = bound ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256';
    this.bindingData = bound ? binding.endPoint : Buffer.alloc(0);
    const flag = bound ? 'p=tls-server-end-point' : binding === 'unused' ? 'y' : 'n';
    this.gs2Header = `${flag},,`;
    this.firstBare = `n=${user},r=${nonce}`;
    this.firstMessage = this.gs2Header + this.firstBare;
  }

  /** True once the server has proved that it knows the password's verifier. */
  get finished(): boolean {
    return this.verified;
  }

  /** True if finished and bound to the TLS channel. */
  get channelBound(): boolean {
    return this.verified && this.mechanism === 'SCRAM-SHA-256-PLUS';
  }

  /**
   * The client-final-message for a server-first-message; the key derivation runs off the event
   * loop. @throws ProtocolError if it is malformed, AuthenticationError for a foreign nonce.
   */
  async respond(serverFirst: string): Promise<string> {
    if (this.serverSignature) throw new ProtocolError('unexpected second SCRAM challenge');
    const { nonce, salt, iterations } = this.readServerFirst(serverFirst);
    const channel = Buffer.concat([Buffer.from(this.gs2Header), this.bindingData]);
    const withoutProof = `c=${channel.toString('base64')},r=${nonce}`;
    const authMessage = `${this.firstBare},${serverFirst},${withoutProof}`;

    const prepared = await prepareScramPassword(this.password);
    const salted = await pbkdf2Async(prepared, salt, iterations, KEY_LENGTH, 'sha256');
    const clientKey = hmac(salted, 'Client Key');
    const storedKey = createHash('sha256').update(clientKey).digest();
    const clientSignature = hmac(storedKey, authMessage);
    const proof = clientKey.map((byte, i) => byte ^ (clientSignature[i] as number));
    this.serverSignature = hmac(hmac(salted, 'Server Key'), authMessage);
    return `${withoutProof},p=${Buffer.from(proof).toString('base64')}`;
  }

  /**
   * Checks the server-final-message. @throws AuthenticationError if the server reports an error
   * or its signature is wrong, ProtocolError if the message is malformed or out of order.
   */
  verify(serverFinal: string): void {
    if (!this.serverSignature) throw new ProtocolError('SCRAM message out of order');
    checkCharacters(serverFinal);
    if (serverFinal.startsWith('e')) {
      const [error] = readAttributes(serverFinal, ['e']);
      throw new AuthenticationError(`error received from server in SCRAM exchange: ${error}`);
    }
    const [encoded] = readAttributes(serverFinal, ['v']) as [string];
    const signature = decodeBase64(encoded);
    if (signature?.length !== KEY_LENGTH) {
      throw new ProtocolError('malformed SCRAM message (invalid server signature)');
    }
    if (!timingSafeEqual(signature, this.serverSignature)) {
      throw new AuthenticationError('incorrect server signature', {
        hint: 'The server does not know the password: it may not be the one that was meant.',
      });
    }
    this.verified = true;
  }

  private readServerFirst(message: string): { nonce: string; salt: Buffer; iterations: number } {
    checkCharacters(message);
    const [nonce, encodedSalt, count] = readAttributes(message, ['r', 's', 'i']) as [
      string,
      string,
      string,
    ];
    if (nonce.length <= this.nonce.length || !nonce.startsWith(this.nonce)) {
      throw new AuthenticationError('invalid SCRAM response (nonce mismatch)');
    }
    const salt = decodeBase64(encodedSalt);
    if (!salt || salt.length === 0) {
      throw new ProtocolError('malformed SCRAM message (invalid salt)');
    }
    const iterations = /^\d{1,10}$/.test(count) ? Number(count) : 0;
    if (iterations < 1) {
      throw new ProtocolError('malformed SCRAM message (invalid iteration count)');
    }
    if (iterations > MAX_ITERATIONS) {
      throw new AuthenticationError(
        `server demands ${iterations} SCRAM iterations, more than the ${MAX_ITERATIONS} allowed`,
        { hint: 'Lower scram_iterations on the server and set the password again.' },
      );
    }
    return { nonce, salt, iterations };
  }
}

/** The values of exactly these attributes in this order, separated by commas. */
function readAttributes(message: string, names: readonly string[]): string[] {
  const parts = message.split(',');
  const values = names.map((name, i) => {
    const part = parts[i] ?? '';
    if (part[0] !== name) {
      throw new ProtocolError(`malformed SCRAM message (attribute "${name}" expected)`);
    }
    if (part[1] !== '=') {
      throw new ProtocolError(
        `malformed SCRAM message (expected character "=" for attribute "${name}")`,
      );
    }
    return part.slice(2);
  });
  if (parts.length > names.length) {
    throw new ProtocolError('malformed SCRAM message (garbage at end of message)');
  }
  return values;
}

function checkCharacters(message: string): void {
  if (message === '') throw new ProtocolError('malformed SCRAM message (empty message)');
  if (message.includes('\0')) throw new ProtocolError('malformed SCRAM message (length mismatch)');
}

/** Strict base64: node's decoder skips what it does not know. */
function decodeBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : undefined;
}

function hmac(key: Buffer, data: string): Buffer {
  return createHmac('sha256', key).update(data).digest();
}
