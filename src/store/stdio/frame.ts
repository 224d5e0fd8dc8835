import { StoreUncertainError } from '../../errors.js';

/**
 * The protocol between a store and who uses it over a pair of pipes.
 *
 * Both sides send MAGIC and a `hello` first. All else is frames: the length of what follows (4 bytes,
 * big-endian), a type (1), the number of the request it belongs to (4), and a payload: JSON, but for
 * `data`. A request is answered by `result` or `error`, once; between them may come `head` and
 * `data`. Who sends `data` may have a window of it under way and gets more by `credit`.
 */
export const MAGIC = Buffer.from('walkeep-store 1\n');
export const VERSION = 1;

export const FRAME = {
  /** {version, directory} of the client; {version, requests, window} of the server. */
  hello: 1,
  /** {op, …}: begins a request. */
  request: 2,
  /** Bytes of a body, or entries of a listing as JSON. */
  data: 3,
  /** The body of `create` is complete. */
  end: 4,
  /** The client wants no answer any more. */
  cancel: 5,
  /** {bytes}: so many more may be sent. */
  credit: 6,
  result: 7,
  error: 8,
  /** Of the object whose bytes follow. */
  head: 9,
} as const;

export interface Frame {
  type: number;
  id: number;
  payload: Buffer;
}

/** Bytes of the largest payload. */
export const MAX_PAYLOAD = 1024 * 1024;
/** Bytes of a piece of a body. */
export const MAX_PIECE = 256 * 1024;
/** Bytes of bodies under way, for each request. */
export const WINDOW = 1024 * 1024;
/** Requests under way. */
export const MAX_REQUESTS = 64;

const HEADER = 9;

export function encodeHeader(type: number, id: number, length: number): Buffer {
  const header = Buffer.alloc(HEADER);
  header.writeUInt32BE(length + HEADER - 4, 0);
  header.writeUInt8(type, 4);
  header.writeUInt32BE(id, 5);
  return header;
}

/** What the other side said is not the protocol. */
export function violation(what: string): StoreUncertainError {
  return new StoreUncertainError(`the other side does not speak the store protocol: ${what}`);
}

/** Cuts what arrives into frames. Each payload is memory of its own. */
export class FrameDecoder {
  readonly #header = Buffer.alloc(HEADER);
  #headerSize = 0;
  #payload: Buffer | undefined;
  #payloadSize = 0;

  /** True between two frames. */
  get idle(): boolean {
    return this.#headerSize === 0;
  }

  /** @throws StoreUncertainError */
  push(chunk: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    for (let at = 0; at < chunk.length; ) {
      if (this.#headerSize < HEADER) {
        const part = chunk.subarray(at, at + HEADER - this.#headerSize);
        this.#header.set(part, this.#headerSize);
        this.#headerSize += part.length;
        at += part.length;
        if (this.#headerSize < HEADER) break;
        const length = this.#header.readUInt32BE(0) - HEADER + 4;
        if (length < 0 || length > MAX_PAYLOAD) throw violation(`a frame of ${length} bytes`);
        this.#payload = Buffer.allocUnsafeSlow(length);
        this.#payloadSize = 0;
      }
      const payload = this.#payload as Buffer;
      const part = chunk.subarray(at, at + payload.length - this.#payloadSize);
      payload.set(part, this.#payloadSize);
      this.#payloadSize += part.length;
      at += part.length;
      if (this.#payloadSize < payload.length) break;
      frames.push({ type: this.#header.readUInt8(4), id: this.#header.readUInt32BE(5), payload });
      this.#headerSize = 0;
    }
    return frames;
  }
}

/** The fields of a JSON payload. @throws StoreUncertainError */
export function fieldsOf({ payload }: Frame): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(payload.toString());
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw violation('a payload that is no JSON object');
}
