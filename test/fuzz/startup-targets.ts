import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import fc from 'fast-check';
import { connect } from '../../src/connection/connect.js';
import type { ConnectionSettings } from '../../src/connection/conninfo/settings.js';
import { settingsFor } from '../connection/fixtures.js';
import * as backend from '../support/backend-messages.js';
import { ScramServer } from '../support/scram-server.js';
import { readMessages, SocketServer } from '../support/socket-server.js';
import { asyncTarget, typedAsync } from './harness.js';
import { anyMessage } from './protocol-targets.js';

const PASSWORD = 'pencil';

type Move =
  /** What an honest server does next: offer SCRAM, challenge, prove, OK, ready. */
  | { kind: 'honest' }
  | { kind: 'send'; bytes: Buffer }
  | { kind: 'sasl'; code: 11 | 12; text: string }
  | { kind: 'close' };

const sasl = (text: string) => backend.authentication(10, Buffer.from(text));
const sent = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom(
      backend.authenticationOk(),
      backend.authentication(3),
      backend.authentication(5, Buffer.from('salt')),
      backend.authentication(5, Buffer.from('sal')),
      backend.authentication(7),
      sasl('SCRAM-SHA-256\0\0'),
      sasl('SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0'),
      sasl('OAUTHBEARER\0\0'),
      sasl('\0'),
      backend.readyForQuery(),
      backend.backendKeyData(),
      backend.parameterStatus('server_version', '18.4'),
      backend.errorResponse('28P01', 'password authentication failed', {}, 'FATAL'),
      backend.noticeResponse('careful'),
      backend.copyBoth(),
      backend.dataRow(['x']),
    ),
  },
  { weight: 1, arbitrary: anyMessage },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 30 }).map((b) => Buffer.from(b)) },
);
const saslText = fc.constantFrom(
  ...['r=x,s=c2FsdA==,i=1', 'r=NONCEx,s=c2FsdA==,i=1', 'r=NONCEx,s=c2FsdA==,i=2147483647'],
  ...['r=NONCEx,s=c2FsdA==,i=-1', 'r=NONCE,s=c2FsdA==,i=1', 'r=NONCEx,i=1', '', 'e=other-error'],
  `v=${Buffer.alloc(32).toString('base64')}`,
);
const move: fc.Arbitrary<Move> = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Move>({ kind: 'honest' }) },
  { weight: 3, arbitrary: sent.map((bytes): Move => ({ kind: 'send', bytes })) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(11 as const, 12 as const), saslText)
      .map(([code, text]): Move => ({ kind: 'sasl', code, text })),
  },
  { weight: 1, arbitrary: fc.constant<Move>({ kind: 'close' }) },
);
/** Often good for a while, so that what comes later is reached. */
const moves = fc.tuple(fc.nat(5), fc.array(move, { maxLength: 6 })).map(([good, others]) => {
  return [...Array.from({ length: good }, (): Move => ({ kind: 'honest' })), ...others];
});
const input = fc.record({
  moves,
  size: fc.constantFrom(1, 7, 1000),
  scramOnly: fc.boolean(),
  bound: fc.boolean(),
});

/** Plays the moves to one client, then closes. */
class Peer {
  /** Sent a signature that only a server with the password can make. */
  proved = false;
  offered = false;
  saidOk = false;
  heard = Buffer.alloc(0);
  private readonly socket: Socket;
  private readonly moves: Move[];
  private readonly size: number;
  private readonly scram = new ScramServer(PASSWORD);
  private readonly messages: Buffer[] = [];
  private state = 0;

  constructor(socket: Socket, moves: readonly Move[], size: number) {
    this.socket = socket;
    this.moves = [...moves];
    this.size = size;
    readMessages(socket, (type, body) => {
      if (type !== '') this.heard = Buffer.concat([this.heard, body]);
      this.messages.push(body);
      this.play();
    });
  }

  private play(): void {
    for (let next = this.moves[0]; next; next = this.moves[0]) {
      if (next.kind === 'honest' && !this.honest()) return;
      if (next.kind === 'close') break;
      if (next.kind === 'send') this.send(next.bytes);
      if (next.kind === 'sasl') {
        const text = next.text.replace('NONCE', /r=([^,]*)/.exec(this.heard.toString())?.[1] ?? '');
        this.send(backend.authentication(next.code, Buffer.from(text)));
      }
      this.moves.shift();
    }
    this.socket.end();
  }

  /** False while the client's message is not there that it answers. */
  private honest(): boolean {
    const message = this.messages[this.state]?.toString();
    if (this.state < 3 && message === undefined) return false;
    if (this.state === 0) this.send(sasl('SCRAM-SHA-256\0\0'));
    // Behind the mechanism's name and the length.
    const text = message?.slice('SCRAM-SHA-256\0____'.length) ?? '';
    if (this.state === 1)
      this.send(backend.authentication(11, Buffer.from(this.scram.first(text))));
    if (this.state === 2) {
      const final = this.scram.final(message ?? '');
      this.send(backend.authentication(12, Buffer.from(final)));
      this.proved = this.scram.proved;
    }
    if (this.state === 3) this.send(backend.authenticationOk());
    if (this.state === 4) this.send(backend.readyForQuery());
    this.state += 1;
    return true;
  }

  private send(bytes: Buffer): void {
    // What comes behind the server's consent asks for nothing any more.
    this.offered ||= !this.saidOk && bytes.equals(sasl('SCRAM-SHA-256\0\0'));
    this.saidOk ||= bytes.equals(backend.authenticationOk());
    for (let at = 0; at < bytes.length; at += this.size) {
      this.socket.write(bytes.subarray(at, at + this.size));
    }
  }
}

const startup = asyncTarget('connection start-up', 90, input, async () => {
  let moves: readonly Move[] = [];
  let size = 1;
  let peer: Peer | undefined;
  const seen = { inputs: 0, connected: 0 };
  const server = await SocketServer.listen((socket) => {
    peer = new Peer(socket, moves, size);
  });
  return {
    check: async ({ scramOnly, bound, ...script }) => {
      ({ moves, size } = script);
      peer = undefined;
      const settings: ConnectionSettings = settingsFor(server.directory, 5432, {
        password: PASSWORD,
        // Behind half a message each side waits for the other.
        connectTimeout: 250,
        channelBinding: bound ? 'require' : 'prefer',
        ...(scramOnly ? { requireAuth: { methods: ['scram-sha-256'], negated: false } } : {}),
      });
      const connection = await typedAsync(() => connect(settings));
      connection?.destroy();
      seen.inputs += 1;
      if (connection) seen.connected += 1;
      assert(peer);
      const { proved, offered, saidOk, heard } = peer as Peer;
      if (connection) {
        assert(saidOk && !bound);
        assert(proved || !(offered || scramOnly), 'a server got in without its proof');
      }
      // Nonces are random text: three letters alone come up in one of some thousands.
      const told = heard.includes(PASSWORD) || /md5[0-9a-f]{32}/.test(heard.toString('latin1'));
      assert(!told || !(scramOnly || bound), 'the password was told');
    },
    done: async () => {
      await server.close();
      assert(seen.connected > 0 || seen.inputs < 100, 'no input got as far as a connection');
    },
  };
});

export const startupTargets = [startup];
