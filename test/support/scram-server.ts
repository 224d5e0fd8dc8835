import { createHash, createHmac, pbkdf2Sync, timingSafeEqual } from 'node:crypto';

const hmac = (key: Uint8Array, data: string) => createHmac('sha256', key).update(data).digest();

/** The server's side of one SCRAM-SHA-256 exchange (RFC 5802), without channel binding. */
export class ScramServer {
  readonly #salted: Buffer;
  readonly #salt: string;
  readonly #iterations: number;
  #first = '';
  /** The client has proved that it knows the password. */
  proved = false;

  constructor(password: string, iterations = 1, salt = 'saltsalt') {
    this.#iterations = iterations;
    this.#salt = Buffer.from(salt).toString('base64');
    this.#salted = pbkdf2Sync(password, salt, iterations, 32, 'sha256');
  }

  /** server-first-message for the client's first, `n,,n=,r=nonce`. */
  first(clientFirst: string): string {
    const bare = clientFirst.split(',').slice(2).join(',');
    const nonce = /r=(.*)$/.exec(bare)?.[1] ?? '';
    const message = `r=${nonce}server,s=${this.#salt},i=${this.#iterations}`;
    this.#first = `${bare},${message}`;
    return message;
  }

  /** server-final-message for the client's final one. */
  final(clientFinal: string): string {
    const [withoutProof = '', proof = ''] = clientFinal.split(',p=');
    const text = `${this.#first},${withoutProof}`;
    const stored = createHash('sha256').update(hmac(this.#salted, 'Client Key')).digest();
    const signature = hmac(stored, text);
    const key = Buffer.from(proof, 'base64').map((byte, i) => byte ^ (signature[i] ?? 0));
    this.proved = timingSafeEqual(createHash('sha256').update(key).digest(), stored);
    return `v=${hmac(hmac(this.#salted, 'Server Key'), text).toString('base64')}`;
  }
}
