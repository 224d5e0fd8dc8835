import { realpath } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { StoreAccessError, StoreUncertainError, WalkeepError } from '../../errors.js';
import { cut } from '../content.js';
import type { GetOptions, Metadata, ObjectStore } from '../store.js';
import { contentOnce } from './content-once.js';
import { Credit, FrameWriter, Inbox } from './flow.js';
import {
  FRAME,
  type Frame,
  FrameDecoder,
  fieldsOf,
  MAGIC,
  MAX_PIECE,
  MAX_REQUESTS,
  VERSION,
  violation,
  WINDOW,
} from './frame.js';
import { encodeEntry, encodeError, encodeHead } from './values.js';

/** What those who ask may do; the server holds to it whatever they send. */
export interface ServerRole {
  /** Nothing is stored and nothing removed. */
  readOnly?: boolean;
  /** Nothing is removed. */
  noRemove?: boolean;
}

export interface ServerOptions extends ServerRole {
  input: Readable;
  output: Writable;
  /** What is served. A client that wants another one is refused. */
  directory?: string;
}

/** Bytes of an entry besides its key. */
const ENTRY = 64;

/**
 * Serves a store until the input ends. Requests under way are given up then; what is created by that
 * time is there, whole, and nothing else is.
 */
export async function serveStore(
  open: () => Promise<ObjectStore>,
  options: ServerOptions,
): Promise<void> {
  const server = new StoreServer(options);
  const store = open();
  store.catch(() => {});
  try {
    await server.run(store);
  } finally {
    await store.then(
      (opened) => opened.close(),
      () => {},
    );
  }
}

interface Request {
  stop: AbortController;
  inbox: Inbox;
  credit: Credit;
}

class StoreServer {
  readonly #options: ServerOptions;
  readonly #writer: FrameWriter;
  readonly #requests = new Map<number, Request>();
  readonly #running = new Set<Promise<void>>();
  #store: ObjectStore | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#writer = new FrameWriter(options.output);
  }

  async run(store: Promise<ObjectStore>): Promise<void> {
    const { input, output } = this.#options;
    const gone = new StoreUncertainError('who asked is gone');
    output.write(MAGIC);
    // Nobody is there any more to whom anything could be said.
    output.once('error', () => input.destroy());
    const decoder = new FrameDecoder();
    let magic = Buffer.alloc(0);
    try {
      for await (const chunk of input as AsyncIterable<Buffer>) {
        let rest = chunk;
        if (magic.length < MAGIC.length) {
          const missing = MAGIC.length - magic.length;
          magic = Buffer.concat([magic, rest.subarray(0, missing)]);
          rest = rest.subarray(missing);
          if (!MAGIC.subarray(0, magic.length).equals(magic)) throw violation('another greeting');
        }
        for (const frame of decoder.push(rest)) {
          if (this.#store) this.#take(frame);
          else if (!(await this.#greet(frame, store))) return;
        }
      }
    } catch (error) {
      // Otherwise the stream broke: there is nobody to tell.
      if (error instanceof WalkeepError) await this.#send(FRAME.error, 0, encodeError(error));
    } finally {
      for (const { stop, inbox, credit } of this.#requests.values()) {
        stop.abort(gone);
        inbox.fail(gone);
        credit.fail(gone);
      }
      await Promise.allSettled(this.#running);
      await new Promise<void>((resolve) => output.end(() => resolve()));
    }
  }

  async #greet(frame: Frame, store: Promise<ObjectStore>): Promise<boolean> {
    if (frame.type !== FRAME.hello) throw violation('no greeting');
    try {
      const { version, directory } = fieldsOf(frame);
      if (version !== VERSION) {
        throw new StoreAccessError(`walkeep there speaks version ${VERSION}, not ${version}`, {
          hint: 'Use the same release of walkeep at both ends.',
        });
      }
      if (typeof directory === 'string') await this.#requireServed(directory);
      this.#store = await store;
      const limits = { requests: MAX_REQUESTS, window: WINDOW };
      await this.#writer.json(FRAME.hello, 0, { version: VERSION, now: Date.now(), ...limits });
      return true;
    } catch (error) {
      await this.#writer.json(FRAME.error, 0, encodeError(error));
      return false;
    }
  }

  /** A key of authorized_keys may lead to one directory, whatever is asked for. */
  async #requireServed(wanted: string): Promise<void> {
    const { directory } = this.#options;
    if (directory === undefined) return;
    const real = (path: string) => realpath(path).catch(() => path);
    if ((await real(wanted)) === (await real(directory))) return;
    throw new StoreAccessError(`"${wanted}" is not served to this key there`, {
      path: wanted,
      hint: `The directory that is served is "${directory}".`,
    });
  }

  #take(frame: Frame): void {
    const { type, id } = frame;
    if (type === FRAME.request) {
      this.#begin(frame);
      return;
    }
    const request = this.#requests.get(id);
    // Answered already, while this was on its way.
    if (!request) return;
    if (type === FRAME.data) request.inbox.push(frame.payload);
    else if (type === FRAME.end) request.inbox.end();
    else if (type === FRAME.credit) request.credit.give(Number(fieldsOf(frame).bytes) || 0);
    else if (type === FRAME.cancel) this.#cancel(request);
    else throw violation(`a frame of type ${type}`);
  }

  #cancel({ stop, inbox, credit }: Request): void {
    const reason = new StoreUncertainError('it is not wanted any more');
    stop.abort(reason);
    inbox.fail(reason);
    credit.fail(reason);
  }

  #begin(frame: Frame): void {
    const { id } = frame;
    if (this.#requests.has(id)) throw violation('a request twice');
    if (this.#requests.size >= MAX_REQUESTS) throw violation('too many requests at once');
    const fields = fieldsOf(frame);
    const credit = (bytes: number) => void this.#send(FRAME.credit, id, { bytes });
    const request = { stop: new AbortController(), inbox: new Inbox(credit), credit: new Credit() };
    this.#requests.set(id, request);
    const running = this.#answer(id, fields, request)
      .then(
        (result) => this.#send(FRAME.result, id, result),
        (error) => this.#send(FRAME.error, id, encodeError(error)),
      )
      .finally(() => {
        this.#requests.delete(id);
        this.#running.delete(running);
      });
    this.#running.add(running);
  }

  /** A failure is noticed by who reads. */
  async #send(type: number, id: number, value: object): Promise<void> {
    await this.#writer.json(type, id, value).catch(() => {});
  }

  async #answer(id: number, fields: Record<string, unknown>, request: Request): Promise<object> {
    const store = this.#store as ObjectStore;
    const { signal } = request.stop;
    const { readOnly, noRemove } = this.#options;
    const key = String(fields.key);
    switch (fields.op) {
      case 'create': {
        if (readOnly) throw refused('nothing may be stored');
        const { size, sha256, meta, token } = fields;
        const content = contentOnce(Number(size), String(sha256), request.inbox);
        const created = await store.create(key, content, {
          signal,
          meta: meta as Metadata | undefined,
          token: typeof token === 'string' ? token : undefined,
        });
        return created.created ? created : { created: false, found: encodeHead(created.found) };
      }
      case 'get':
        return this.#get(id, key, { signal, range: rangeIn(fields) }, request.credit);
      case 'head': {
        const head = await store.head(key, { signal });
        return head ? { head: encodeHead(head) } : { absent: true };
      }
      case 'list':
        return this.#list(id, fields, request);
      case 'remove': {
        if (readOnly || noRemove) throw refused('nothing may be removed');
        const { keys, prune } = fields;
        if (!Array.isArray(keys)) throw violation('no keys to remove');
        return store.remove(keys.map(String), {
          signal,
          prune: typeof prune === 'string' ? prune : undefined,
        });
      }
      case 'probe':
        if (readOnly) throw refused('nothing may be stored');
        // What it removes is its own.
        return { ...(await store.probe({ signal })), now: Date.now() };
      default:
        throw violation(`no request "${String(fields.op)}"`);
    }
  }

  async #get(id: number, key: string, options: GetOptions, credit: Credit): Promise<object> {
    const got = await (this.#store as ObjectStore).get(key, options);
    if (!got) return { absent: true };
    await this.#writer.json(FRAME.head, id, encodeHead(got));
    for await (const whole of got.body) {
      for (const piece of cut(whole, MAX_PIECE)) {
        await credit.take(piece.length);
        await this.#writer.write(FRAME.data, id, piece);
      }
    }
    return {};
  }

  async #list(id: number, fields: Record<string, unknown>, request: Request): Promise<object> {
    const { prefix, after } = fields;
    const { signal } = request.stop;
    const entries = (this.#store as ObjectStore).list(String(prefix), {
      signal,
      after: typeof after === 'string' ? after : undefined,
    });
    let batch: object[] = [];
    let size = 0;
    const send = async () => {
      const payload = Buffer.from(JSON.stringify(batch));
      batch = [];
      size = 0;
      await request.credit.take(payload.length);
      await this.#writer.write(FRAME.data, id, payload);
    };
    for await (const entry of entries) {
      batch.push(encodeEntry(entry));
      // As JSON it is longer than this, and no more than twice as long.
      size += Buffer.byteLength(entry.key) + ENTRY;
      if (size >= MAX_PIECE) await send();
    }
    if (batch.length > 0) await send();
    return {};
  }
}

function rangeIn({ range }: Record<string, unknown>): GetOptions['range'] {
  if (range === undefined) return undefined;
  const { start, end } = range as Record<string, unknown>;
  return { start: Number(start), end: Number(end) };
}

function refused(why: string): StoreAccessError {
  return new StoreAccessError(`${why} by this key there`, {
    hint: 'Its role is set by the options of "walkeep store" there.',
  });
}
