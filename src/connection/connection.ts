import { performance } from 'node:perf_hooks';
import { ConnectionError, ProtocolError, UsageError, type WalkeepError } from '../errors.js';
import type { BackendMessage, ServerNotice } from '../protocol/backend-message.js';
import {
  type BaseBackupOptions,
  baseBackupCommand,
  uploadManifestCommand,
} from '../protocol/base-backup.js';
import { type CopyBothHandler, FrameReader, MAX_FRAME } from '../protocol/frame-reader.js';
import { encodeQuery, TERMINATE } from '../protocol/frontend-message.js';
import {
  createPhysicalSlotCommand,
  dropSlotCommand,
  identifySystemCommand,
  parseCreateSlot,
  parseDropSlot,
  parseIdentifySystem,
  parseReadReplicationSlot,
  parseShow,
  parseTimelineHistory,
  type QueryResult,
  readReplicationSlotCommand,
  type SlotOptions,
  type SlotPosition,
  type StartReplicationOptions,
  type StreamEnd,
  type SystemIdentification,
  showCommand,
  startReplicationCommand,
  type TimelineHistoryFile,
  timelineHistoryCommand,
} from '../protocol/replication.js';
import { toServerError } from '../protocol/server-error.js';
import { parseSegmentSize } from '../wal/file-name.js';
import {
  type BaseBackupHandler,
  BaseBackupOperation,
  type BaseBackupStream,
} from './base-backup.js';
import type { HostTarget } from './conninfo/settings.js';
import { type Operation, QueryOperation } from './operation.js';
import { UploadOperation } from './upload.js';
import { StreamOperation, type WalStream } from './wal-stream.js';
import type { Wire } from './wire.js';

/** How long `close` waits for the server to end its side, milliseconds. */
const CLOSE_TIMEOUT = 2000;
/** A server reports some 15 parameters; one that reports without end is cut off. */
const MAX_PARAMETERS = 1000;
/** Characters of all their names and values together. */
const MAX_PARAMETER_TEXT = 1024 * 1024;

/**
 * A session with a PostgreSQL server, made by `connect`. One command at a time. Every method
 * rejects with a ServerError, ConnectionError, ProtocolError or UsageError.
 */
export class ReplicationConnection {
  readonly target: HostTarget;
  /** `server at "h" (1.2.3.4), port 5432`, for messages. */
  readonly description: string;
  readonly tls: boolean;
  /** performance.now() of the last bytes from the server. */
  lastReceivedAt: number = performance.now();
  /** performance.now() when the command was sent that is under way; undefined between commands. */
  commandSince: number | undefined;

  private readonly wire: Wire;
  private readonly reader: FrameReader;
  private readonly parameterMap = new Map<string, string>();
  private parameterText = 0;
  private readonly onNotice: ((notice: ServerNotice) => void) | undefined;
  private operation: Operation | undefined;
  private failure: WalkeepError | undefined;

  /** For `connect` only: the startup exchange is still to be run on it. @internal */
  constructor(wire: Wire, onNotice?: (notice: ServerNotice) => void) {
    this.wire = wire;
    this.target = wire.endpoint.target;
    this.description = wire.endpoint.description;
    this.tls = wire.tls;
    this.onNotice = onNotice;
    this.reader = new FrameReader({
      onMessage: (message) => this.onMessage(message),
      onCopyData: () => {
        throw new ProtocolError('unexpected CopyData from server');
      },
      onReaderFailure: (error) => this.fail(error, false),
    });
    wire.start(
      (chunk, length) => {
        this.lastReceivedAt = performance.now();
        this.reader.push(chunk, length);
      },
      (error) => this.fail(error, false),
    );
  }

  /** ParameterStatus values of the server. */
  get parameters(): ReadonlyMap<string, string> {
    return this.parameterMap;
  }

  /** server_version as a number, 180004 for 18.4; 0 if the server did not say. */
  get serverVersion(): number {
    return parseServerVersion(this.parameterMap.get('server_version') ?? '');
  }

  /** True once the connection is of no more use. */
  get closed(): boolean {
    return this.failure !== undefined;
  }

  /** Resolves when the connection is gone, whoever ended it: what a stream's handler is not told. */
  get ended(): Promise<void> {
    return this.wire.closed;
  }

  /**
   * Runs a simple query or replication command and returns its (last) result. An aborted signal
   * breaks the connection off and rejects with its reason.
   */
  async query(sql: string, signal?: AbortSignal): Promise<QueryResult> {
    return this.run(sql, '', signal);
  }

  async identifySystem(): Promise<SystemIdentification> {
    return parseIdentifySystem(await this.command(identifySystemCommand()));
  }

  async show(name: string): Promise<string> {
    return parseShow(await this.command(showCommand(name)), name);
  }

  /** Bytes of a WAL segment (wal_segment_size). @throws ParseError if it is none */
  async segmentSize(): Promise<number> {
    return parseSegmentSize(await this.show('wal_segment_size'));
  }

  async createPhysicalSlot(name: string, options: SlotOptions = {}): Promise<void> {
    const sql = createPhysicalSlotCommand(name, options, this.serverVersion);
    parseCreateSlot(await this.command(sql), name);
  }

  async dropSlot(name: string): Promise<void> {
    parseDropSlot(await this.command(dropSlotCommand(name)), name);
  }

  /** Undefined if the server has no such slot. PostgreSQL 15 and newer. */
  async readReplicationSlot(name: string): Promise<SlotPosition | undefined> {
    const sql = readReplicationSlotCommand(name, this.serverVersion);
    return parseReadReplicationSlot(await this.command(sql), name);
  }

  async timelineHistory(timeline: number): Promise<TimelineHistoryFile> {
    return parseTimelineHistory(await this.command(timelineHistoryCommand(timeline)), timeline);
  }

  /**
   * Starts streaming. Resolves with the stream, or at once with its end if the timeline ends at
   * `startLsn`. The handler may be called before the promise has resolved.
   */
  async startReplication(
    options: StartReplicationOptions,
    handler: CopyBothHandler,
  ): Promise<WalStream | StreamEnd> {
    const sql = startReplicationCommand(options);
    if (this.operation?.ending) await this.operation.ending;
    this.checkFree();
    const operation = new StreamOperation(this.wire, this.reader, handler, () => this.release());
    this.operation = operation;
    this.commandSince = performance.now();
    this.wire.write(encodeQuery(sql));
    return operation.started;
  }

  /**
   * Takes a base backup: its content goes to `handler` as it comes. All errors come by `done`. An
   * aborted signal breaks the connection off.
   */
  baseBackup(
    options: BaseBackupOptions,
    handler: BaseBackupHandler,
    signal?: AbortSignal,
  ): BaseBackupStream {
    const { wire, reader, serverVersion } = this;
    const operation = new BaseBackupOperation(
      { wire, reader, serverVersion, onReady: () => this.release() },
      options,
      handler,
    );
    const sql = () => baseBackupCommand(options, serverVersion);
    const done = this.execute(sql, operation, signal);
    // Who waits for the data first, and then for this, must not find the process gone.
    done.catch(() => {});
    return { pause: () => operation.pause(), resume: () => operation.resume(), done };
  }

  /**
   * Gives the server the manifest of the backup that the next one of this session is based on
   * (PostgreSQL 17 and newer). An aborted signal breaks the connection off.
   */
  async uploadManifest(manifest: Buffer, signal?: AbortSignal): Promise<void> {
    const onReady = () => this.release();
    const context = 'could not upload the manifest: ';
    const operation = new UploadOperation(this.wire, manifest, context, onReady);
    return this.execute(() => uploadManifestCommand(this.serverVersion), operation, signal);
  }

  /** Says Terminate and waits, a bounded time, for the server to close. Never rejects. */
  async close(): Promise<void> {
    if (this.failure) return;
    this.endLocally();
    this.wire.write(TERMINATE);
    this.wire.end();
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_TIMEOUT);
    });
    await Promise.race([this.wire.closed, timeout]);
    clearTimeout(timer);
    this.wire.destroy();
  }

  /** As `close`: `await using session = await connect(settings)`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Drops the connection at once. A command under way rejects; a stream's handler is not called. */
  destroy(): void {
    if (!this.failure) this.endLocally();
    this.wire.destroy();
  }

  /** Makes `operation` the receiver of messages. @internal */
  begin(operation: Operation): void {
    this.checkFree();
    this.operation = operation;
  }

  /** The startup exchange is over; larger messages are accepted from now on. @internal */
  authenticated(): void {
    this.reader.maxFrame = MAX_FRAME;
  }

  /** The connection is free for the next command. @internal */
  release(): void {
    this.operation = undefined;
    this.commandSince = undefined;
  }

  /** Sends a message of the startup exchange. @internal */
  send(message: Buffer): void {
    this.wire.write(message);
  }

  private onMessage(message: BackendMessage): void {
    switch (message.name) {
      case 'parameterStatus':
        this.noteParameter(message.parameterName, message.parameterValue);
        return;
      case 'notice':
        this.onNotice?.(message.notice);
        return;
      case 'notification':
        return;
      default:
        if (this.operation) this.operation.onMessage(message);
        else if (message.name === 'error') this.fail(toServerError(message.notice), false);
        else throw new ProtocolError(`unexpected message ${message.name} from idle server`);
    }
  }

  private noteParameter(name: string, value: string): void {
    const map = this.parameterMap;
    const before = map.get(name);
    this.parameterText += before === undefined ? name.length : -before.length;
    this.parameterText += value.length;
    map.set(name, value);
    if (map.size > MAX_PARAMETERS || this.parameterText > MAX_PARAMETER_TEXT) {
      throw new ProtocolError('too many parameters reported by server');
    }
  }

  private command(sql: string): Promise<QueryResult> {
    return this.run(sql, `could not send replication command "${sql}": `);
  }

  private run(sql: string, context: string, signal?: AbortSignal): Promise<QueryResult> {
    return this.execute(() => sql, new QueryOperation(context, () => this.release()), signal);
  }

  private async execute<T>(
    sql: () => string,
    operation: Operation & { readonly result: Promise<T> },
    signal?: AbortSignal,
  ): Promise<T> {
    signal?.throwIfAborted();
    const message = encodeQuery(sql());
    if (this.operation?.ending) await this.operation.ending;
    signal?.throwIfAborted();
    this.checkFree();
    this.operation = operation;
    this.commandSince = performance.now();
    const onAbort = (): void => this.destroy();
    signal?.addEventListener('abort', onAbort, { once: true });
    this.wire.write(message);
    try {
      return await operation.result;
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  private checkFree(): void {
    if (this.failure) throw this.failure;
    if (this.operation) throw new UsageError('another command is in progress on this connection');
  }

  private endLocally(): void {
    this.fail(new ConnectionError('the connection was closed'), true);
  }

  private fail(error: WalkeepError, local: boolean): void {
    if (this.failure) return;
    this.failure = error;
    this.reader.destroy();
    if (!local) this.wire.destroy();
    const operation = this.operation;
    this.operation = undefined;
    operation?.onClosed(error, local);
  }
}

/** `18.4` → 180004; also `18beta1`, `16.4 (Debian 16.4-1)` and the three-part `9.6.24`. */
export function parseServerVersion(text: string): number {
  const m = /^(\d+)(?:\.(\d+))?(?:\.(\d+))?/.exec(text);
  if (!m) return 0;
  const [major, minor, patch] = [m[1], m[2], m[3]].map((part) => Number(part ?? 0)) as [
    number,
    number,
    number,
  ];
  return major >= 10 ? major * 10000 + minor : major * 10000 + minor * 100 + patch;
}
