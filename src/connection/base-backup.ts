import { ProtocolError, type WalkeepError } from '../errors.js';
import type { BackendMessage } from '../protocol/backend-message.js';
import { BackupStreamReader, type BaseBackupHandler } from '../protocol/backup-stream.js';
import {
  type BackupPosition,
  type BaseBackupOptions,
  hasFramedBackup,
  parseBackupPosition,
  parseBackupTablespaces,
  wantsManifest,
} from '../protocol/base-backup.js';
import type { CopyOutHandler, FrameReader } from '../protocol/frame-reader.js';
import { toServerError } from '../protocol/server-error.js';
import { type Operation, ResultBuilder } from './operation.js';
import type { Wire } from './wire.js';

export type { BackupArchive, BaseBackupHandler } from '../protocol/backup-stream.js';

/** A base backup under way. */
export interface BaseBackupStream {
  /** Stops reading; what was already read is still delivered. */
  pause(): void;
  resume(): void;
  /**
   * Resolves behind the server's ReadyForQuery only: damaged pages are an error that comes behind
   * all data. Rejects with the server's error, that of the connection, the reason of the signal, or
   * what the handler threw.
   */
  readonly done: Promise<{ end: BackupPosition }>;
}

/** What the operation works with. */
export interface BaseBackupSession {
  wire: Wire;
  reader: FrameReader;
  serverVersion: number;
  /** Frees the connection. */
  onReady(): void;
}

/** What the server's messages belong to. */
const Phase = { start: 0, tablespaces: 1, data: 2, copy: 3, end: 4, over: 5 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

/** BASE_BACKUP from the command to ReadyForQuery. */
export class BaseBackupOperation implements Operation, CopyOutHandler {
  readonly result: Promise<{ end: BackupPosition }>;
  private resolve!: (result: { end: BackupPosition }) => void;
  private reject!: (error: unknown) => void;
  private readonly session: BaseBackupSession;
  private readonly options: BaseBackupOptions;
  private readonly handler: BaseBackupHandler;

  private phase: Phase = Phase.start;
  private builder = new ResultBuilder();
  private start: BackupPosition | undefined;
  private stream: BackupStreamReader | undefined;
  private end: BackupPosition | undefined;
  private serverError: WalkeepError | undefined;
  /** As it was thrown by a handler, or by what reads the data. */
  private thrown: { error: unknown } | undefined;
  private settled = false;

  constructor(session: BaseBackupSession, options: BaseBackupOptions, handler: BaseBackupHandler) {
    this.session = session;
    this.options = options;
    this.handler = handler;
    this.result = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  pause(): void {
    // What follows an error, and the next command, must be read by all means.
    if (!this.settled && !this.serverError && this.start) this.session.wire.pause();
  }

  resume(): void {
    if (!this.settled) this.session.wire.resume();
  }

  onMessage(message: BackendMessage): void {
    try {
      this.take(message);
    } catch (error) {
      this.thrown = { error };
      throw error;
    }
  }

  onClosed(error: WalkeepError): void {
    this.settled = true;
    // A FATAL error is followed by the end of the connection: the first says more.
    if (this.thrown) this.reject(this.thrown.error);
    else this.reject(this.serverError ?? error);
  }

  onCopyHeader(length: number): void {
    try {
      this.stream?.onCopyHeader(length);
    } catch (error) {
      this.thrown = { error };
      throw error;
    }
  }

  onCopyBytes(chunk: Buffer): void {
    try {
      this.stream?.onCopyBytes(chunk);
    } catch (error) {
      this.thrown = { error };
      throw error;
    }
  }

  onCopyEnd(): void {
    try {
      this.stream?.onCopyEnd();
    } catch (error) {
      this.thrown = { error };
      throw error;
    }
  }

  private take(message: BackendMessage): void {
    if (message.name === 'error') {
      const context = this.stream ? 'base backup failed: ' : 'could not initiate base backup: ';
      this.serverError ??= toServerError(message.notice, context);
      this.session.wire.resume();
      return;
    }
    if (message.name === 'readyForQuery') {
      this.finish(message);
      return;
    }
    if (this.serverError) throw unexpected(message);
    switch (this.phase) {
      case Phase.data:
        if (message.name === 'copyOutResponse') this.beginCopy();
        else if (message.name === 'rowDescription' && this.stream?.complete) {
          this.phase = Phase.end;
          this.builder.add(message);
        } else throw unexpected(message);
        return;
      case Phase.copy:
        if (message.name !== 'copyDone') throw unexpected(message);
        this.stream?.onCopyDone();
        this.phase = Phase.data;
        return;
      case Phase.over:
        if (message.name !== 'commandComplete') throw unexpected(message);
        return;
      default:
        if (!this.builder.add(message)) throw unexpected(message);
        if (message.name === 'commandComplete') this.endResult();
    }
  }

  private endResult(): void {
    const result = this.builder.build();
    this.builder = new ResultBuilder();
    if (this.phase === Phase.start) {
      this.start = parseBackupPosition(result, 'start');
      this.phase = Phase.tablespaces;
    } else if (this.phase === Phase.tablespaces) {
      const tablespaces = parseBackupTablespaces(result);
      const { session, options, handler } = this;
      this.stream = new BackupStreamReader(
        {
          tablespaces,
          framed: hasFramedBackup(session.serverVersion),
          manifest: wantsManifest(options),
          compression: options.compression?.method,
        },
        handler,
      );
      this.phase = Phase.data;
      handler.onStart(this.start as BackupPosition, tablespaces);
    } else {
      this.end = parseBackupPosition(result, 'end');
      this.phase = Phase.over;
    }
  }

  private beginCopy(): void {
    this.phase = Phase.copy;
    this.session.reader.enterCopyOut(this);
    this.stream?.onCopyStart();
  }

  private finish(message: BackendMessage): void {
    const { end, serverError } = this;
    if (!serverError && !end) throw unexpected(message);
    this.settled = true;
    // Paused by a handler in this very read, nothing of the next answer would come.
    this.session.wire.resume();
    this.session.onReady();
    if (serverError) this.reject(serverError);
    else this.resolve({ end: end as BackupPosition });
  }
}

function unexpected({ name }: BackendMessage): ProtocolError {
  return new ProtocolError(`unexpected message ${name} in a base backup`);
}
