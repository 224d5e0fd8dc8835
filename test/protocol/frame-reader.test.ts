import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InternalError, ProtocolError, ServerError, WalkeepError } from '../../src/errors.js';
import type { BackendMessage } from '../../src/protocol/backend-message.js';
import {
  type CopyBothHandler,
  FrameReader,
  type FrameSink,
  MAX_FRAME,
  MAX_FRAME_BEFORE_AUTH,
  MAX_WAL_FRAME,
} from '../../src/protocol/frame-reader.js';
import * as backend from '../support/backend-messages.js';

/** Everything that was called, in order; adjacent payload pieces are joined. */
class Trace implements FrameSink, CopyBothHandler {
  readonly calls: string[] = [];
  failure: WalkeepError | undefined;
  readEnds = 0;
  readonly reader = new FrameReader(this);
  #payload: string | undefined;

  constructor() {
    this.reader.maxFrame = MAX_FRAME;
  }
  #add(call: string): void {
    if (this.#payload !== undefined) this.calls.push(`bytes ${this.#payload}`);
    this.#payload = undefined;
    this.calls.push(call);
  }
  onMessage(message: BackendMessage): void {
    this.#add(JSON.stringify(message));
    if (message.name === 'copyBothResponse') this.reader.enterCopyBoth(this);
  }
  onCopyData(chunk: Buffer): void {
    this.#add(`copy ${chunk.toString('hex')}`);
  }
  onReaderFailure(error: WalkeepError): void {
    this.#add(`failure ${error.message}`);
    this.failure = error;
  }
  onWalHeader(walStart: bigint, walEnd: bigint, sendTime: bigint, length: number): void {
    this.#add(`wal ${walStart} ${walEnd} ${sendTime} ${length}`);
  }
  onWalBytes(chunk: Buffer): void {
    this.#payload = (this.#payload ?? '') + chunk.toString('hex');
  }
  onWalMessageEnd(): void {
    this.#add('end');
  }
  onKeepalive(walEnd: bigint, sendTime: bigint, replyRequested: boolean): void {
    this.#add(`keepalive ${walEnd} ${sendTime} ${replyRequested}`);
  }
  onReadEnd(): void {
    this.readEnds++;
  }
  onServerCopyDone(): void {}
  onFailure(): void {}
}

function traceOf(chunks: Iterable<Buffer>): Trace {
  const trace = new Trace();
  // One buffer for all reads, as the socket does it: a kept view would show.
  const read = Buffer.alloc(1 << 16);
  for (const chunk of chunks) {
    chunk.copy(read);
    trace.reader.push(read.subarray(0, chunk.length));
    read.fill(0xee);
  }
  return trace;
}

function* oneByOne(bytes: Buffer): Generator<Buffer> {
  for (let i = 0; i < bytes.length; i++) yield bytes.subarray(i, i + 1);
}

const xlog = (walStart: bigint, data: Buffer, walEnd = 0xfedcba9876543210n) => {
  const header = Buffer.alloc(25);
  header.write('w');
  header.writeBigUInt64BE(walStart, 1);
  header.writeBigUInt64BE(walEnd, 9);
  header.writeBigInt64BE(-5n, 17);
  return backend.copyData(Buffer.concat([header, data]));
};
const keepalive = (reply: number, extra = 0) => {
  const body = Buffer.alloc(18 + extra);
  body.write('k');
  body.writeBigUInt64BE(0x1_0000_0001n, 1);
  body.writeBigInt64BE(77n, 9);
  body[17] = reply;
  return backend.copyData(body);
};

const SESSION = Buffer.concat([
  backend.authentication(5, Buffer.from('salt')),
  backend.authenticationOk(),
  backend.parameterStatus('server_version', '18.4'),
  backend.message('v', Buffer.alloc(8)),
  backend.backendKeyData(),
  backend.readyForQuery(),
  backend.resultSet({ a: 'x', b: null, c: Buffer.from([0xff, 0x00]) }),
  backend.noticeResponse('careful'),
  backend.errorResponse('42704', 'no slot', { D: 'detail', H: 'hint' }),
  backend.readyForQuery(),
  backend.copyData(Buffer.from('outside')),
  backend.copyBoth(),
  xlog(0x1234_5678_9abc_def0n, Buffer.from('0123456789')),
  keepalive(0),
  keepalive(1, 3),
  xlog(1n, Buffer.alloc(0)),
  backend.parameterStatus('application_name', 'in stream'),
  xlog(2n, Buffer.from('z')),
  backend.copyDone(),
  backend.rowDescription(['next_tli', 'next_tli_startpos']),
  backend.dataRow(['2', '0/3000000']),
  backend.commandComplete('START_STREAMING'),
  backend.readyForQuery(),
]);

describe('cuts', () => {
  const whole = traceOf([SESSION]);

  test('the whole session in one read', () => {
    expect(whole.failure).toBeUndefined();
    expect(whole.calls).toMatchSnapshot();
    expect(whole.readEnds).toBe(1);
  });

  test('cut in two at every offset', () => {
    for (let cut = 1; cut < SESSION.length; cut++) {
      const trace = traceOf([SESSION.subarray(0, cut), SESSION.subarray(cut)]);
      expect(trace.calls, `cut at ${cut}`).toEqual(whole.calls);
    }
  });

  test('one byte at a time', () => {
    expect(traceOf(oneByOne(SESSION)).calls).toEqual(whole.calls);
  });

  test('random cuts', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (sizes) => {
        const chunks: Buffer[] = [];
        for (let at = 0, i = 0; at < SESSION.length; i++) {
          const size = sizes[i % sizes.length] as number;
          chunks.push(SESSION.subarray(at, at + size));
          at += size;
        }
        expect(traceOf(chunks).calls).toEqual(whole.calls);
      }),
      { numRuns: 200 },
    );
  });
});

describe('hostile bytes', () => {
  const fails = (bytes: Buffer, message: RegExp, setUp?: (trace: Trace) => void) => {
    for (const chunks of [[bytes], oneByOne(bytes)]) {
      const trace = new Trace();
      setUp?.(trace);
      for (const chunk of chunks) trace.reader.push(chunk);
      expect(trace.failure).toBeInstanceOf(ProtocolError);
      expect(trace.failure?.message).toMatch(message);
      const calls = trace.calls.length;
      trace.reader.push(backend.readyForQuery());
      expect(trace.calls.length).toBe(calls);
    }
  };
  const inStream = (trace: Trace) => trace.reader.enterCopyBoth(trace);

  test('unknown types and wrong lengths', () => {
    fails(Buffer.from('\x16\x03\x01\x02\x00'), /unexpected message type 0x16/);
    fails(Buffer.from('HTTP/1.1 400 Bad Request'), /invalid length 1414811695 of message type "H"/);
    fails(Buffer.from('SSH-2.0-OpenSSH'), /invalid length/);
    fails(backend.message('Z', Buffer.from('I'), 3), /invalid length 3 of message type "Z"/);
    fails(backend.message('S', Buffer.alloc(0), MAX_FRAME + 1), /invalid length/);
    fails(
      backend.message('S', Buffer.alloc(0), MAX_FRAME_BEFORE_AUTH + 1),
      /invalid length/,
      (t) => {
        t.reader.maxFrame = MAX_FRAME_BEFORE_AUTH;
      },
    );
    fails(backend.message('d', Buffer.alloc(1), MAX_WAL_FRAME + 1), /invalid length/, inStream);
  });

  test('wrong streaming messages', () => {
    fails(backend.copyData(Buffer.alloc(0)), /streaming header too small: 0/, inStream);
    fails(backend.copyData(Buffer.from('x12345')), /unrecognized streaming header: "x"/, inStream);
    fails(backend.copyData(Buffer.alloc(24, 'w')), /streaming header too small: 24/, inStream);
    fails(backend.copyData(Buffer.alloc(17, 'k')), /streaming header too small: 17/, inStream);
  });

  test('bodies that do not fit their type', () => {
    fails(backend.message('E', Buffer.from('SERROR\0')), /unterminated error message/);
    fails(backend.message('E', Buffer.from('SERROR')), /unterminated error message/);
    fails(backend.message('N'), /unterminated error message/);
    fails(backend.message('D', Buffer.from([0, 2, 0, 0, 0, 9, 1])), /insufficient data/);
    fails(
      backend.message('D', Buffer.from([0, 1, 0xff, 0xff, 0xff, 0xfe])),
      /invalid value length/,
    );
    fails(backend.message('D', Buffer.from([0, 0, 1])), /extraneous data/);
    fails(backend.message('R', Buffer.from([0])), /invalid message of type "R"/);
    fails(backend.message('T', Buffer.from([0xff, 0xff])), /invalid message of type "T"/);
    fails(backend.message('K'), /invalid message of type "K"/);
  });

  test('any bytes end in callbacks or one typed error', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      // A valid session with a few bytes changed reaches further.
      fc
        .array(fc.tuple(fc.nat(SESSION.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
        .map((changes) => {
          const copy = Buffer.from(SESSION);
          for (const [at, value] of changes) copy[at] = value;
          return copy;
        }),
    );
    fc.assert(
      fc.property(bytes, fc.boolean(), (input, streaming) => {
        const run = (chunks: Iterable<Buffer>) => {
          const trace = new Trace();
          if (streaming) trace.reader.enterCopyBoth(trace);
          for (const chunk of chunks) trace.reader.push(chunk);
          if (trace.failure) expect(trace.failure).toBeInstanceOf(WalkeepError);
          expect(trace.failure).not.toBeInstanceOf(InternalError);
          return trace.calls;
        };
        const buffer = Buffer.from(input);
        expect(run(oneByOne(buffer))).toEqual(run([buffer]));
      }),
      { numRuns: 3000 },
    );
  });
});

describe('handlers', () => {
  test('an exception ends the reader and is not delivered again', () => {
    const trace = new Trace();
    trace.reader.enterCopyBoth(trace);
    let calls = 0;
    const error = new ServerError('disk');
    trace.onWalBytes = () => {
      calls++;
      throw error;
    };
    const message = xlog(1n, Buffer.from('abc'));
    trace.reader.push(Buffer.concat([message, message]));
    trace.reader.push(message);
    expect(calls).toBe(1);
    expect(trace.failure).toBe(error);
    expect(trace.readEnds).toBe(0);
  });

  test('a foreign exception becomes an internal error with its cause', () => {
    const trace = new Trace();
    trace.reader.enterCopyBoth(trace);
    const cause = new TypeError('x is not a function');
    trace.onKeepalive = () => {
      throw cause;
    };
    trace.reader.push(keepalive(1));
    expect(trace.failure).toBeInstanceOf(InternalError);
    expect(trace.failure?.cause).toBe(cause);
  });

  test('a reader destroyed by a handler delivers nothing more of the read', () => {
    const trace = new Trace();
    trace.reader.enterCopyBoth(trace);
    trace.onWalHeader = () => trace.reader.destroy();
    trace.reader.push(Buffer.concat([xlog(1n, Buffer.from('abc')), keepalive(0)]));
    expect(trace.calls).toEqual([]);
    expect(trace.readEnds).toBe(0);
  });

  test('payload is a view of the read, not a copy', () => {
    const trace = new Trace();
    trace.reader.enterCopyBoth(trace);
    const read = xlog(1n, Buffer.alloc(10_000, 1));
    let seen: Buffer | undefined;
    trace.onWalBytes = (chunk) => {
      seen = chunk;
    };
    trace.reader.push(read);
    expect(seen?.buffer).toBe(read.buffer);
  });
});
