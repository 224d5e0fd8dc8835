import { InternalError, ProtocolError, type WalkeepError } from '../errors.js';
import type { BackendMessage, ResultField } from '../protocol/backend-message.js';
import type { QueryResult } from '../protocol/replication.js';
import { toServerError } from '../protocol/server-error.js';

/** What a connection is busy with: it takes the server's messages until ReadyForQuery. */
export interface Operation {
  onMessage(message: BackendMessage): void;
  /**
   * The connection is gone and nothing more will come. `local`: we closed it ourselves.
   */
  onClosed(error: WalkeepError, local: boolean): void;
  /** Set once it has failed: resolves at the server's ReadyForQuery, which may come in a later read. */
  readonly ending?: Promise<void> | undefined;
}

/** Memory for the rows of one command, bytes: no replication command returns near as much. */
const MAX_RESULT = 64 * 1024 * 1024;
/** What a row and each of its values take beside their bytes, roughly: a flood of empty rows does. */
const VALUE_COST = 128;

/** Gathers the messages of one result. Of several results of one command the last one counts. */
export class ResultBuilder {
  private fields: ResultField[] = [];
  private rows: (Buffer | null)[][] = [];
  private size = 0;
  private tag = '';

  /** True if the message was part of a result. @throws ProtocolError if it grows beyond reason. */
  add(message: BackendMessage): boolean {
    switch (message.name) {
      case 'rowDescription':
        this.fields = message.fields;
        this.rows = [];
        return true;
      case 'dataRow':
        this.size += message.byteLength + VALUE_COST * (1 + message.values.length);
        if (this.size > MAX_RESULT) throw new ProtocolError('result of a command is too large');
        this.rows.push(message.values);
        return true;
      case 'commandComplete':
        this.tag = message.text;
        return true;
      case 'emptyQuery':
        return true;
      default:
        return false;
    }
  }

  build(): QueryResult {
    return { fields: this.fields, rows: this.rows, commandTag: this.tag };
  }
}

/** One simple query. */
export class QueryOperation implements Operation {
  readonly result: Promise<QueryResult>;
  private resolve!: (result: QueryResult) => void;
  private reject!: (error: unknown) => void;
  private readonly builder = new ResultBuilder();
  private readonly context: string;
  private readonly onReady: () => void;
  private error: WalkeepError | undefined;

  /** `context` is put before the server's text in an error; `onReady` frees the connection. */
  constructor(context: string, onReady: () => void) {
    this.context = context;
    this.onReady = onReady;
    this.result = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  onMessage(message: BackendMessage): void {
    if (this.builder.add(message)) return;
    if (message.name === 'error') {
      this.error ??= toServerError(message.notice, this.context);
    } else if (message.name === 'readyForQuery') {
      this.onReady();
      if (this.error) this.reject(this.error);
      else this.resolve(this.builder.build());
    } else {
      throw new ProtocolError(`unexpected message ${message.name} in answer to a command`);
    }
  }

  onClosed(error: WalkeepError): void {
    // A FATAL error is followed by the end of the connection: the first says more.
    this.reject(this.error ?? error);
  }
}

/** More messages than a startup ever has; a server that floods us is cut off. */
const MAX_QUEUED = 1000;

/**
 * Hands messages to an async function one by one: for the startup, where nothing is hot. The
 * connection is freed as ReadyForQuery comes in, not as it is taken: what follows in the same read
 * (a FATAL error) is not the startup's any more.
 */
export class MessageQueue implements Operation {
  private readonly onReady: () => void;
  private readonly messages: BackendMessage[] = [];
  private closed: WalkeepError | undefined;
  private waiter: { resolve(m: BackendMessage): void; reject(e: unknown): void } | undefined;

  constructor(onReady: () => void) {
    this.onReady = onReady;
  }

  onMessage(message: BackendMessage): void {
    if (message.name === 'readyForQuery') this.onReady();
    const waiter = this.waiter;
    this.waiter = undefined;
    if (waiter) waiter.resolve(message);
    else if (this.messages.push(message) > MAX_QUEUED) {
      throw new ProtocolError('too many messages from server during startup');
    }
  }

  onClosed(error: WalkeepError): void {
    this.closed = error;
    this.waiter?.reject(error);
    this.waiter = undefined;
  }

  /** The next message. Rejects once the connection is gone and all messages were taken. */
  next(): Promise<BackendMessage> {
    const message = this.messages.shift();
    if (message) return Promise.resolve(message);
    if (this.closed) return Promise.reject(this.closed);
    if (this.waiter) return Promise.reject(new InternalError('two readers on one queue'));
    return new Promise((resolve, reject) => {
      this.waiter = { resolve, reject };
    });
  }
}
