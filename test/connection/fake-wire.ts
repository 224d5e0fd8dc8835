import { ReplicationConnection } from '../../src/connection/connection.js';
import type { OnData, Wire } from '../../src/connection/wire.js';
import type { WalkeepError } from '../../src/errors.js';
import type { ServerNotice } from '../../src/protocol/backend-message.js';
import * as backend from '../support/backend-messages.js';

/** A connection whose server is the test: what is pushed was read, to the byte. */
export class FakeWire {
  readonly endpoint = { target: { host: 'h', port: 1 }, description: 'server', failurePrefix: '' };
  readonly tls = false;
  readonly closed = new Promise<void>(() => {});
  readonly unsent = 0;
  readonly written: Buffer[] = [];
  paused = false;
  destroyed = false;
  #onData: OnData = () => {};
  #onClose: (error: WalkeepError) => void = () => {};
  /** One for all reads, as the socket has it: a view that is kept would show. */
  readonly #read = Buffer.alloc(1 << 17);

  /** A session after the startup. */
  static connect(serverVersion: string, onNotice?: (notice: ServerNotice) => void) {
    const wire = new FakeWire();
    const connection = new ReplicationConnection(wire as unknown as Wire, onNotice);
    connection.authenticated();
    wire.push(backend.parameterStatus('server_version', serverVersion));
    return { wire, connection };
  }

  start(onData: OnData, onClose: (error: WalkeepError) => void): void {
    this.#onData = onData;
    this.#onClose = onClose;
  }
  /** What is read at once, up to 128 kB. */
  push(...parts: Uint8Array[]): void {
    const bytes = Buffer.concat(parts);
    if (this.destroyed) return;
    bytes.copy(this.#read);
    this.#onData(this.#read, bytes.length);
    this.#read.fill(0xee, 0, bytes.length);
  }
  lose(error: WalkeepError): void {
    this.#onClose(error);
  }
  write(bytes: Buffer): void {
    this.written.push(bytes);
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  end(): void {}
  destroy(): void {
    this.destroyed = true;
  }
}
