import type { ConnectionSettings } from '../../src/connection/conninfo/settings.js';
import type { WalkeepError } from '../../src/errors.js';
import type { CopyBothHandler } from '../../src/protocol/frame-reader.js';

/** Settings for one server, without TLS and without a timeout, unless given. */
export function settingsFor(
  host: string,
  port: number,
  more: Partial<ConnectionSettings> = {},
): ConnectionSettings {
  return {
    targets: [{ host, port }],
    user: 'postgres',
    database: 'replication',
    applicationName: 'walkeep',
    startup: {},
    connectTimeout: 0,
    targetSessionAttrs: 'any',
    loadBalanceHosts: false,
    sslMode: 'disable',
    sslNegotiation: 'postgres',
    sslRootCert: '/nonexistent/root.crt',
    sslCert: '/nonexistent/postgresql.crt',
    sslSni: true,
    sslCertMode: 'allow',
    channelBinding: 'prefer',
    keepalives: true,
    keepalivesIdle: 0,
    warnings: [],
    ...more,
  };
}

/** Records a stream; payload bytes are copied. `changed` resolves at the next callback. */
export class Recorder implements CopyBothHandler {
  readonly calls: string[] = [];
  readonly chunks: Buffer[] = [];
  startLsn: bigint | undefined;
  length = 0;
  keepalives = 0;
  serverDone = false;
  failure: WalkeepError | undefined;
  failures = 0;
  #wake: (() => void)[] = [];

  onWalHeader(walStart: bigint, walEnd: bigint, sendTime: bigint, length: number): void {
    this.startLsn ??= walStart;
    this.calls.push(`wal ${walStart} ${walEnd} ${sendTime} ${length}`);
  }
  onWalBytes(chunk: Buffer): void {
    this.chunks.push(Buffer.from(chunk));
    this.length += chunk.length;
  }
  onWalMessageEnd(): void {
    this.calls.push('end');
  }
  onKeepalive(walEnd: bigint, sendTime: bigint, replyRequested: boolean): void {
    this.keepalives++;
    this.calls.push(`keepalive ${walEnd} ${sendTime} ${replyRequested}`);
  }
  onReadEnd(): void {
    this.#changed();
  }
  onServerCopyDone(): void {
    this.serverDone = true;
    this.#changed();
  }
  onFailure(error: WalkeepError): void {
    this.failure = error;
    this.failures++;
    this.#changed();
  }
  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
  /** Resolves when the condition holds after a callback. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }
  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

/** The rejection of a promise; throws if it resolves. */
export async function rejection<T extends Error>(promise: Promise<unknown>): Promise<T> {
  try {
    await promise;
  } catch (error) {
    return error as T;
  }
  throw new Error('expected a rejection');
}
