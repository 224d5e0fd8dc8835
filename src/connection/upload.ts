import { ProtocolError, type WalkeepError } from '../errors.js';
import type { BackendMessage } from '../protocol/backend-message.js';
import { COPY_DONE, copyDataHeader } from '../protocol/frontend-message.js';
import { toServerError } from '../protocol/server-error.js';
import type { Operation } from './operation.js';
import type { Wire } from './wire.js';

/** Bytes of one CopyData. */
const CHUNK = 64 * 1024;

/** A command with COPY IN: sends bytes when the server asks for them. */
export class UploadOperation implements Operation {
  readonly result: Promise<void>;
  private resolve!: () => void;
  private reject!: (error: unknown) => void;
  private readonly wire: Pick<Wire, 'write'>;
  private readonly bytes: Buffer;
  private readonly context: string;
  private readonly onReady: () => void;
  private sent = false;
  private complete = false;
  private error: WalkeepError | undefined;

  /** `context` is put before the server's text in an error; `onReady` frees the connection. */
  constructor(wire: Pick<Wire, 'write'>, bytes: Buffer, context: string, onReady: () => void) {
    this.wire = wire;
    this.bytes = bytes;
    this.context = context;
    this.onReady = onReady;
    this.result = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  onMessage(message: BackendMessage): void {
    const { name } = message;
    if (name === 'error') {
      // What is sent behind it the server reads and drops.
      this.error ??= toServerError(message.notice, this.context);
    } else if (name === 'readyForQuery' && (this.error || this.complete)) {
      this.onReady();
      if (this.error) this.reject(this.error);
      else this.resolve();
    } else if (name === 'copyInResponse' && !this.sent && !this.error) {
      this.sent = true;
      this.send();
    } else if (name === 'commandComplete' && this.sent && !this.complete) {
      this.complete = true;
    } else {
      throw new ProtocolError(`unexpected message ${name} in answer to an upload`);
    }
  }

  onClosed(error: WalkeepError): void {
    // A FATAL error is followed by the end of the connection: the first says more.
    this.reject(this.error ?? error);
  }

  /** Views: the bytes are as many as the files of the database are, and are not copied once more. */
  private send(): void {
    for (let at = 0; at < this.bytes.length; at += CHUNK) {
      const chunk = this.bytes.subarray(at, at + CHUNK);
      this.wire.write(copyDataHeader(chunk.length));
      this.wire.write(chunk);
    }
    this.wire.write(COPY_DONE);
  }
}
