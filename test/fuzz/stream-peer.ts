import type { Socket } from 'node:net';
import fc from 'fast-check';
import { formatLsn } from '../../src/lsn.js';
import { SEGMENT, SYSTEM_ID, TimelineWal } from '../simulation/model-wal.js';
import { Random } from '../simulation/random.js';
import * as backend from '../support/backend-messages.js';
import { readMessages } from '../support/socket-server.js';
import { anyMessage } from './protocol-targets.js';

export const START = 5 * SEGMENT;
/** What the server has: a segment and the start of the next one. */
export const WAL = new TimelineWal(1, START);
WAL.grow(SEGMENT + 50_000, new Random(1));

/** One thing that the server does in the stream. Lengths are bytes. */
export type Act =
  | { kind: 'wal'; length: number; walEnd: bigint }
  | { kind: 'shifted'; by: number; length: number }
  | { kind: 'damaged'; length: number; at: number }
  | { kind: 'keepalives'; count: number }
  | { kind: 'send'; bytes: Buffer }
  | { kind: 'rest' };

export interface StreamScript {
  acts: readonly Act[];
  /** Answers that are not an honest server's: by the beginning of the query. */
  answers: Readonly<Record<string, Buffer>>;
  /** Bytes a write. */
  size: number;
}

const row = (next_tli: string, next_tli_startpos: string) =>
  Buffer.concat([
    backend.copyDone(),
    backend.resultSet({ next_tli, next_tli_startpos }),
    backend.commandComplete('START_REPLICATION'),
    backend.readyForQuery(),
  ]);
const length = fc.oneof(fc.nat(300), fc.nat(9000), fc.nat(400_000));
const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .tuple(length, fc.constantFrom(0n, 0n, 1n << 63n, (1n << 64n) - 1n))
      .map(([n, walEnd]): Act => ({ kind: 'wal', length: n, walEnd })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(-9000, -1, 1, 8192, SEGMENT, -START, 2 ** 40), fc.nat(3000))
      .map(([by, n]): Act => ({ kind: 'shifted', by, length: n })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.integer({ min: 1, max: 30_000 }), fc.nat(30_000))
      .map(([n, at]): Act => ({ kind: 'damaged', length: n, at })),
  },
  { weight: 2, arbitrary: fc.nat(300).map((count): Act => ({ kind: 'keepalives', count })) },
  {
    weight: 3,
    arbitrary: fc
      .constantFrom(
        ...[backend.copyDone(), backend.readyForQuery(), backend.copyBoth(), row('2', '0/580000')],
        ...[row('1', '0/500000'), row('0', '0/0'), row('9', 'FFFFFFFF/FFFFFFFF'), row('x', 'y')],
        ...[backend.commandComplete('COPY 0'), backend.dataRow(['2', '0/500000'])],
        backend.resultSet({ next_tli: '2', next_tli_startpos: '0/580000' }),
        backend.rowDescription(['next_tli', 'next_tli_startpos']),
        backend.errorResponse('57P01', 'terminating connection', {}, 'FATAL'),
        backend.errorResponse('58P01', 'requested WAL segment has already been removed'),
        backend.noticeResponse('careful'),
        backend.parameterStatus('application_name', 'x'),
        backend.authenticationOk(),
        backend.message('d', Buffer.alloc(0), 0x7fffffff),
        backend.copyData(Buffer.from('x')),
        backend.copyData(Buffer.from('w123')),
      )
      .map((bytes): Act => ({ kind: 'send', bytes })),
  },
  { weight: 1, arbitrary: anyMessage.map((bytes): Act => ({ kind: 'send', bytes })) },
  {
    weight: 1,
    arbitrary: fc
      .uint8Array({ maxLength: 40 })
      .map((bytes): Act => ({ kind: 'send', bytes: Buffer.from(bytes) })),
  },
);

const history = (filename: string, content: string | null) =>
  backend.resultSet({ filename, content });
const answer = fc.constantFrom(
  ...[history('../../etc/x', '1\t0/580000\n'), history('00000002.history', 'x')],
  ...[history('00000002.history', null), history('00000002.history', '')],
  ...[history('00000002.history', '1\t0/700000\tx\n'), history('00000002.history', '7\t0/0\n')],
  backend.resultSet({ systemid: '1', timeline: '2', xlogpos: '0/500000', dbname: null }),
  backend.resultSet({ systemid: '77', timeline: '1', xlogpos: '0/0', dbname: null }),
  backend.resultSet({ systemid: '77', timeline: '1', xlogpos: 'FFFFFFFF/FFFFFFFF', dbname: null }),
  backend.resultSet({ systemid: 'x', timeline: '-1', xlogpos: '/', dbname: null }),
  backend.resultSet({ x: '3GB' }),
  backend.resultSet({ x: null }),
  Buffer.concat([backend.errorResponse('XX000', 'no'), backend.readyForQuery()]),
  Buffer.concat([backend.copyBoth(), backend.keepalive(0n)]),
  row('2', '0/580000'),
  backend.readyForQuery(),
);
const lie = fc.dictionary(
  fc.constantFrom('IDENTIFY', 'SHOW wal', 'SHOW data', 'START', 'TIMELINE_HISTORY 2'),
  answer,
  { minKeys: 1, maxKeys: 2 },
);

export const script: fc.Arbitrary<StreamScript> = fc.record({
  acts: fc.array(act, { maxLength: 10 }),
  answers: fc.oneof({ weight: 3, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: lie }),
  size: fc.constantFrom(1 << 20, 1 << 20, 8192, 17),
});

export const HONEST: StreamScript = { acts: [{ kind: 'rest' }], answers: {}, size: 1 << 20 };

/** The server's side of one connection. After its acts it closes, unless it sent the rest. */
export class StreamPeer {
  /** End of what came in order, as the server sent it; damage is noted in `sent`. */
  position = START;
  readonly replies: { write: number; flush: number }[] = [];
  onReply: (() => void) | undefined;
  /** The bytes as they were sent, from the start of the stream on. */
  private readonly image: Buffer;
  private readonly socket: Socket;
  private readonly script: StreamScript;
  private stalled = false;

  constructor(socket: Socket, given: StreamScript, image: Buffer) {
    this.socket = socket;
    this.script = given;
    this.image = image;
    readMessages(socket, (type, body) => this.onMessage(type, body));
  }

  private onMessage(type: string, body: Buffer): void {
    if (type === '') {
      this.send(
        backend.authenticationOk(),
        backend.parameterStatus('server_version', '18.4'),
        backend.readyForQuery(),
      );
    }
    if (type === 'Q') this.onQuery(body.toString('utf8', 0, body.length - 1));
    if (type === 'd') {
      const [write, flush] = [Number(body.readBigUInt64BE(1)), Number(body.readBigUInt64BE(9))];
      this.replies.push({ write, flush });
      this.onReply?.();
    }
    if (type === 'c' && this.stalled) {
      this.send(backend.copyDone(), backend.commandComplete('COPY 0'), backend.readyForQuery());
    }
  }

  private onQuery(query: string): void {
    const own = Object.entries(this.script.answers).find(([start]) => query.startsWith(start));
    if (query.startsWith('START')) this.stream(query, own?.[1] ?? backend.copyBoth());
    else this.send(own?.[1] ?? honestAnswer(query));
  }

  private stream(query: string, answer: Buffer): void {
    const [, lsn = ''] = /(\w+\/\w+) TIMELINE/.exec(query) ?? [];
    const [high = '', low = ''] = lsn.split('/');
    this.position = Number.parseInt(high, 16) * 2 ** 32 + Number.parseInt(low, 16);
    const here = this.position >= START && this.position <= WAL.end;
    this.send(here ? answer : honestAnswer(''));
    if (!here) return;
    for (const next of this.script.acts) this.play(next);
    if (!this.stalled) this.socket.end();
  }

  private play(next: Act): void {
    if (next.kind === 'send') this.send(next.bytes);
    else if (next.kind === 'wal') this.wal(next.length, next.walEnd);
    else if (next.kind === 'damaged') {
      this.wal(next.length, 0n, next.at % next.length);
    } else if (next.kind === 'shifted') {
      const at = BigInt.asUintN(64, BigInt(this.position + next.by));
      this.send(backend.xlogData(at, Buffer.alloc(next.length, 0x5a)));
    } else if (next.kind === 'keepalives') {
      const one = backend.keepalive(BigInt(this.position), true);
      this.send(Buffer.concat(Array.from({ length: next.count }, () => one)));
    } else {
      while (this.position < WAL.end) this.wal(100_000, 0n);
      this.stalled = true;
    }
  }

  private wal(wanted: number, walEnd: bigint, damageAt?: number): void {
    const at = this.position % SEGMENT;
    const n = Math.min(wanted, WAL.end - this.position, SEGMENT - at);
    if (n < 0) return;
    const bytes = Buffer.from(
      WAL.segment(Math.floor(this.position / SEGMENT)).subarray(at, at + n),
    );
    if (damageAt !== undefined && damageAt < n) bytes[damageAt] = (bytes[damageAt] ?? 0) ^ 0x55;
    bytes.copy(this.image, this.position - START);
    this.send(backend.xlogData(BigInt(this.position), bytes, walEnd || BigInt(WAL.end)));
    this.position += n;
  }

  private send(...parts: Buffer[]): void {
    const bytes = Buffer.concat(parts);
    const { size } = this.script;
    // Tiny writes of much would take all the time.
    const step = bytes.length > 5000 ? Math.max(size, 8192) : size;
    for (let at = 0; at < bytes.length; at += step)
      this.socket.write(bytes.subarray(at, at + step));
  }
}

function honestAnswer(query: string): Buffer {
  if (query.startsWith('SHOW data')) return backend.resultSet({ m: '0700' });
  if (query.startsWith('SHOW wal')) return backend.resultSet({ s: '1MB' });
  if (query.startsWith('IDENTIFY')) {
    const xlogpos = formatLsn(BigInt(START));
    const systemid = String(SYSTEM_ID);
    return backend.resultSet({ systemid, timeline: '1', xlogpos, dbname: null });
  }
  return Buffer.concat([backend.errorResponse('42704', 'not here'), backend.readyForQuery()]);
}
