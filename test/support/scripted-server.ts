import { createServer, type Server, type Socket } from 'node:net';
import { formatLsn, type Lsn, parseLsn } from '../../src/lsn.js';
import * as backend from './backend-messages.js';
import { formatConninfo } from './server-config.js';
import { waitFor } from './wait.js';

export { backend };

/** A message of the client after the startup: type letter and body. */
export interface FrontendMessage {
  type: string;
  body: Buffer;
}

/** A standby status update as the client sent it. */
export interface StatusReply {
  write: bigint;
  flush: bigint;
  apply: bigint;
  replyRequested: boolean;
  /** performance.now() when it arrived. */
  at: number;
}

/** What `serve` answers with. Absent: a healthy PostgreSQL 18 on timeline 1. */
export interface Identity {
  systemId?: string;
  timeline?: number;
  flushLsn?: bigint;
  segmentSizeMb?: number;
  serverVersion?: string;
  /** By timeline: the content of its history file. */
  histories?: Record<number, string>;
  slot?: { restartLsn: bigint | null; restartTimeline: number | null };
  /** Asked first for every query; bytes returned are the whole answer. */
  answer?: (query: string) => Buffer | undefined;
}

export interface StartReplication {
  query: string;
  slot: string | undefined;
  lsn: Lsn;
  timeline: number;
}

const SSL_REQUEST = 80877103;
const GSS_REQUEST = 80877104;

/** One client's connection, as the script sees it. */
export class ScriptedConnection {
  readonly socket: Socket;
  /** Startup parameters: user, database, replication, application_name… */
  readonly startup: Record<string, string> = {};
  /** Everything after the startup packet, in order. */
  readonly received: FrontendMessage[] = [];
  readonly queries: string[] = [];
  readonly statusReplies: StatusReply[] = [];
  /** The client closed its side. */
  ended = false;
  #input = Buffer.alloc(0);
  #started = false;
  #taken = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (data) => this.#read(data));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.ended = true;
    });
    socket.on('end', () => {
      this.ended = true;
    });
  }

  #read(data: Buffer): void {
    this.#input = Buffer.concat([this.#input, data]);
    for (;;) {
      const header = this.#started ? 5 : 4;
      if (this.#input.length < header) return;
      const length = this.#input.readInt32BE(header - 4) + header - 4;
      if (this.#input.length < length) return;
      const body = Buffer.from(this.#input.subarray(header, length));
      const type = String.fromCharCode(this.#input[0] as number);
      this.#input = this.#input.subarray(length);
      if (this.#started) this.#take(type, body);
      else this.#takeStartup(body);
    }
  }

  #takeStartup(body: Buffer): void {
    const code = body.readInt32BE(0);
    if (code === SSL_REQUEST || code === GSS_REQUEST) {
      this.socket.write('N');
      return;
    }
    const words = body.subarray(4).toString().split('\0');
    for (let i = 0; words[i]; i += 2) this.startup[words[i] as string] = words[i + 1] ?? '';
    this.#started = true;
  }

  #take(type: string, body: Buffer): void {
    this.received.push({ type, body });
    if (type === 'Q') this.queries.push(body.toString('utf8', 0, body.length - 1));
    if (type === 'd' && body[0] === 0x72) {
      this.statusReplies.push({
        write: body.readBigUInt64BE(1),
        flush: body.readBigUInt64BE(9),
        apply: body.readBigUInt64BE(17),
        replyRequested: body[33] === 1,
        at: performance.now(),
      });
    }
  }

  /** Sends bytes as one write. */
  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** Sends bytes in pieces of `size`, each a write of its own. */
  async sendInPieces(bytes: Uint8Array, size = 1): Promise<void> {
    this.socket.setNoDelay(true);
    for (let at = 0; at < bytes.length; at += size) {
      const piece = bytes.subarray(at, at + size);
      await new Promise<void>((resolve) => this.socket.write(piece, () => resolve()));
    }
  }

  /** The next message not taken yet. Rejects if the client goes instead. */
  async next(timeoutMs = 30_000): Promise<FrontendMessage> {
    await waitFor(() => this.received.length > this.#taken || this.ended, {
      what: 'a message of the client',
      timeoutMs,
      intervalMs: 1,
    });
    const message = this.received[this.#taken];
    if (!message) throw new Error('the client closed the connection');
    this.#taken += 1;
    return message;
  }

  /** Skips to the next message of a type: `Q` query, `c` CopyDone, `X` Terminate, `d` CopyData. */
  async nextOf(type: string, timeoutMs = 30_000): Promise<FrontendMessage> {
    for (;;) {
      const message = await this.next(timeoutMs);
      if (message.type === type) return message;
    }
  }

  async nextQuery(): Promise<string> {
    const { body } = await this.nextOf('Q');
    return body.toString('utf8', 0, body.length - 1);
  }

  /** Waits for a status reply, also an earlier one, that satisfies `condition`. */
  async waitStatus(
    condition: (reply: StatusReply) => boolean,
    timeoutMs = 30_000,
  ): Promise<StatusReply> {
    return waitFor(() => this.statusReplies.find(condition), {
      what: 'a status reply',
      timeoutMs,
      intervalMs: 1,
    });
  }

  /** Takes the startup packet and lets the client in without a password. */
  async accept(serverVersion = '18.4'): Promise<void> {
    await waitFor(() => this.#started, { what: 'the startup packet', intervalMs: 1 });
    this.send(
      backend.authenticationOk(),
      backend.parameterStatus('server_version', serverVersion),
      backend.parameterStatus('server_encoding', 'UTF8'),
      backend.parameterStatus('client_encoding', 'UTF8'),
      backend.parameterStatus('integer_datetimes', 'on'),
      backend.parameterStatus('standard_conforming_strings', 'on'),
      backend.backendKeyData(),
      backend.readyForQuery(),
    );
  }

  /** Answers what a receiver asks, until START_REPLICATION, which it gives back unanswered. */
  async serve(identity: Identity = {}): Promise<StartReplication> {
    for (;;) {
      const query = await this.nextQuery();
      const own = identity.answer?.(query);
      if (own) {
        this.send(own);
        continue;
      }
      const start =
        /^START_REPLICATION (?:SLOT "([^"]*)" )?(?:PHYSICAL )?(\S+?)(?: TIMELINE (\d+))?;?$/i.exec(
          query,
        );
      if (start) {
        const [, slot, lsn, timeline] = start;
        return { query, slot, lsn: parseLsn(lsn as string), timeline: Number(timeline ?? 1) };
      }
      this.send(standardAnswer(query, identity));
    }
  }

  /** `accept` and `serve`, then CopyBothResponse: the script goes on inside the stream. */
  async startStream(identity: Identity = {}): Promise<StartReplication> {
    await this.accept(identity.serverVersion);
    const start = await this.serve(identity);
    this.send(backend.copyBoth());
    return start;
  }

  /** Ends the stream as a server does: CopyDone, waits for the client's, then `after`. */
  async endStream(...after: Uint8Array[]): Promise<void> {
    this.send(backend.copyDone());
    await this.nextOf('c');
    this.send(...after);
  }

  /** Closes with FIN. */
  close(): void {
    this.socket.end();
  }

  /** Closes with RST: a crashed peer. */
  reset(): void {
    this.socket.resetAndDestroy();
  }
}

function standardAnswer(query: string, identity: Identity): Buffer {
  const { timeline = 1, flushLsn = 0x3000000n, segmentSizeMb = 16 } = identity;
  if (/data_directory_mode/i.test(query)) return backend.resultSet({ data_directory_mode: '0700' });
  if (/wal_segment_size/i.test(query)) {
    return backend.resultSet({ wal_segment_size: `${segmentSizeMb}MB` });
  }
  if (/wal_block_size/i.test(query)) return backend.resultSet({ wal_block_size: '8192' });
  if (/^IDENTIFY_SYSTEM/i.test(query)) {
    return backend.resultSet({
      systemid: identity.systemId ?? '7000000000000000001',
      timeline: String(timeline),
      xlogpos: formatLsn(flushLsn),
      dbname: null,
    });
  }
  if (/^READ_REPLICATION_SLOT/i.test(query)) {
    const slot = identity.slot;
    return backend.resultSet({
      slot_type: slot ? 'physical' : null,
      restart_lsn: slot?.restartLsn != null ? formatLsn(slot.restartLsn) : null,
      restart_tli: slot?.restartTimeline != null ? String(slot.restartTimeline) : null,
    });
  }
  const history = /^TIMELINE_HISTORY (\d+)/i.exec(query);
  const content = history && identity.histories?.[Number(history[1])];
  if (history && content !== undefined && content !== null) {
    const name = `${Number(history[1]).toString(16).toUpperCase().padStart(8, '0')}.history`;
    return backend.resultSet({ filename: name, content });
  }
  return Buffer.concat([
    backend.errorResponse('42601', `the script has no answer to: ${query}`),
    backend.readyForQuery(),
  ]);
}

export type Script = (connection: ScriptedConnection, index: number) => Promise<void>;

/** A TCP server on 127.0.0.1 that runs `script` for each connection (`index` counts from 0). */
export class ScriptedServer {
  readonly connections: ScriptedConnection[] = [];
  /** What scripts threw; a test ends with `expect(server.errors).toEqual([])`. */
  readonly errors: unknown[] = [];
  readonly #server: Server;

  private constructor(script: Script) {
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      const connection = new ScriptedConnection(socket);
      const index = this.connections.push(connection) - 1;
      script(connection, index).catch((error) => this.errors.push(error));
    });
  }

  static async listen(script: Script): Promise<ScriptedServer> {
    const server = new ScriptedServer(script);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', () => resolve()));
    return server;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  conninfo(keywords: Record<string, string | number> = {}): string {
    return formatConninfo({ host: '127.0.0.1', port: this.port, user: 'postgres', ...keywords });
  }

  /** Waits for the connection with that index. */
  async connection(index: number): Promise<ScriptedConnection> {
    return waitFor(() => this.connections[index], { what: `connection ${index}` });
  }

  async close(): Promise<void> {
    for (const { socket } of this.connections) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
