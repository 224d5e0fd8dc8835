import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import type { ConnectionSettings } from '../../src/connection/conninfo/settings.js';
import type { WalkeepError } from '../../src/errors.js';
import { rejection, settingsFor } from '../connection/fixtures.js';
import { disposer } from '../support/cleanup.js';
import { ScramServer } from '../support/scram-server.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';
import { readMessages } from '../support/socket-server.js';

const keep = disposer();
const PASSWORD = 's3cret-pencil';

/** Answers to the client's messages in their order; the first is the startup packet. */
type Answers = ((message: Buffer) => Uint8Array)[];

/** A server that answers so, byte by byte where asked to; `heard` is all that the client said. */
async function peer(answers: Answers, slowly = false) {
  const heard: Buffer[] = [];
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.setNoDelay(true).on('error', () => {});
    const queue = [...answers];
    readMessages(socket, (_type, body) => {
      heard.push(Buffer.from(body));
      const bytes = queue.shift()?.(body) ?? Buffer.alloc(0);
      if (slowly) for (const byte of bytes) socket.write(Uint8Array.of(byte));
      else socket.write(bytes);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  keep({
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  });
  const { port } = server.address() as { port: number };
  return { port, heard: () => Buffer.concat(heard).toString('latin1') };
}

const sasl = (...names: string[]) =>
  backend.authentication(10, Buffer.from(`${names.join('\0')}\0\0`));
const goOn = (text: string) => backend.authentication(11, Buffer.from(text));
const final = (text: string) => backend.authentication(12, Buffer.from(text));
const done = () => Buffer.concat([backend.authenticationOk(), backend.readyForQuery()]);
const send = (bytes: Uint8Array) => () => bytes;
const offer = send(sasl('SCRAM-SHA-256'));
/** The client's nonce: SASLInitialResponse ends with it. */
const nonceOf = (message: Buffer) => /r=([^,]*)$/.exec(message.toString())?.[1] ?? '';

/** An honest server up to its challenge, then what `change` makes of that. */
const challenge = (change: (text: string, nonce: string) => string): Answers => {
  return [offer, (m) => goOn(change(`r=${nonceOf(m)}server,s=c2FsdA==,i=4096`, nonceOf(m)))];
};

/** The whole honest exchange; `last` makes the message that should be its proof. */
function exchange(last: (proof: string) => Uint8Array): Answers {
  const scram = new ScramServer(PASSWORD, 4096);
  return [
    offer,
    (m) => goOn(scram.first(m.subarray('SCRAM-SHA-256\0____'.length).toString())),
    (m) => last(scram.final(m.toString())),
  ];
}

const proof = (text: string) => Buffer.concat([final(text), done()]);
const wrong = `v=${Buffer.alloc(32, 7).toString('base64')}`;

interface Row {
  answers: Answers;
  code: string;
  message: RegExp;
  settings?: Partial<ConnectionSettings>;
}
const scramOnly = { requireAuth: { methods: ['scram-sha-256' as const], negated: false } };
const auth = (answers: Answers, message: RegExp, settings = {}): Row => {
  return { answers, code: 'WK_AUTHENTICATION', message, settings };
};
const protocol = (answers: Answers, message: RegExp): Row => {
  return { answers, code: 'WK_PROTOCOL', message };
};

test.each<[string, Row]>([
  [
    'a wrong signature',
    auth(
      exchange(() => proof(wrong)),
      /incorrect server signature$/,
    ),
  ],
  [
    'a signature that is cut',
    protocol(
      exchange((p) => final(p.slice(0, 20))),
      /signature\)$/,
    ),
  ],
  [
    'an empty proof',
    protocol(
      exchange(() => final('')),
      /empty message/,
    ),
  ],
  [
    'an error for a proof',
    auth(
      exchange(() => final('e=other-error')),
      /other-error$/,
    ),
  ],
  ['no proof, OK', auth(exchange(done), /did not complete authentication$/)],
  ['OK for a challenge', auth([offer, done], /did not complete authentication$/)],
  ['a proof for a challenge', protocol([offer, send(proof(wrong))], /out of order/)],
  [
    'a second challenge',
    protocol(
      [...challenge((t) => t), send(goOn('r=x,s=c2FsdA==,i=1'))],
      /unexpected second SCRAM challenge/,
    ),
  ],
  ['a second offer', protocol([offer, offer], /duplicate SASL authentication request/)],
  ['a challenge without an offer', protocol([send(goOn('r=x'))], /AUTH_REQ_SASL_CONT without/)],
  [
    'another nonce',
    auth(
      challenge((t) => t.replace(/r=[^,]*/, 'r=other')),
      /nonce mismatch/,
    ),
  ],
  [
    'our nonce alone',
    auth(
      challenge((t) => t.replace('server', '')),
      /nonce mismatch/,
    ),
  ],
  [
    'no nonce',
    protocol(
      challenge(() => 's=c2FsdA==,i=4096'),
      /attribute "r" expected/,
    ),
  ],
  [
    'no salt',
    protocol(
      challenge((_t, n) => `r=${n}x,i=4096`),
      /attribute "s" expected/,
    ),
  ],
  [
    'no count',
    protocol(
      challenge((_t, n) => `r=${n}x,s=c2FsdA==`),
      /attribute "i" expected/,
    ),
  ],
  ...['0', '-1', '', '1e9', '4096x', '99999999999'].map((count): [string, Row] => [
    `${JSON.stringify(count)} iterations`,
    protocol(
      challenge((t) => t.replace('4096', count)),
      /invalid iteration count/,
    ),
  ]),
  ...['1000001', '2147483647', '4294967296'].map((count): [string, Row] => [
    `${count} iterations`,
    auth(
      challenge((t) => t.replace('4096', count)),
      /more than the 1000000 allowed/,
    ),
  ]),
  ['an unknown mechanism', auth([send(sasl('SCRAM-MD5', 'PLAIN'))], /none of the server's SASL/)],
  ['no mechanism', auth([send(sasl(''))], /none of the server's SASL/)],
  ['PLUS without TLS', auth([send(sasl('SCRAM-SHA-256-PLUS'))], /over a non-SSL connection$/)],
  ['OK at once, require_auth', auth([done], /requirement "scram-sha-256" failed/, scramOnly)],
  [
    'a cleartext request, require_auth',
    auth([send(backend.authentication(3))], /requested a cleartext password$/, scramOnly),
  ],
  [
    'an MD5 request, require_auth',
    auth(
      [send(backend.authentication(5, Buffer.from('salt')))],
      /requested a hashed password$/,
      scramOnly,
    ),
  ],
  [
    'OK at once, channel_binding',
    auth([done], /without channel binding$/, { channelBinding: 'require' }),
  ],
  [
    'SCRAM without TLS, channel_binding',
    auth([offer], /required, but SSL not in use$/, { channelBinding: 'require' }),
  ],
  ['ReadyForQuery at once', protocol([send(backend.readyForQuery())], /skipped authentication$/)],
  ['a row', protocol([send(backend.dataRow(['x']))], /received dataRow$/)],
  ['CopyBothResponse', protocol([send(backend.copyBoth())], /received copyBothResponse$/)],
  ['CopyData', protocol([send(backend.copyData(Buffer.from('x')))], /unexpected CopyData/)],
  ['a second login', protocol([send(Buffer.concat([done(), done()]))], /authentication/)],
  [
    'an MD5 request without its salt',
    protocol([send(backend.authentication(5, Buffer.from('sal')))], /invalid MD5/),
  ],
  [
    'an error of 70 kB',
    protocol([send(backend.errorResponse('XX000', 'x'.repeat(70_000)))], /invalid length/),
  ],
])(
  'a server that answers the login with %s',
  async (_what, { answers, code, message, settings }) => {
    for (const slowly of [false, true]) {
      const { port, heard } = await peer(answers, slowly);
      const options = settingsFor('127.0.0.1', port, { password: PASSWORD, ...settings });
      // Where the login is over before the second one comes, the next command fails of it.
      const error = await rejection<WalkeepError>(
        connect(options).then((connection) => connection.query('X')),
      );
      expect(error).toMatchObject({ code });
      expect(error.message).toMatch(message);
      expect(typeof error.retryable).toBe('boolean');
      expect(JSON.stringify(error) + error.stack + heard()).not.toContain(PASSWORD);
    }
  },
);

describe('a login one byte at a time', () => {
  test('succeeds where the server is honest', async () => {
    const { port } = await peer(exchange(proof), true);
    const settings = settingsFor('127.0.0.1', port, { password: PASSWORD, ...scramOnly });
    const connection = await connect(settings);
    connection.destroy();
  });

  test('ends at connect_timeout where it has no end', async () => {
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        const notice = backend.noticeResponse('wait');
        for (let i = 0; !c.ended; i++) {
          c.send(notice.subarray(i % notice.length, (i % notice.length) + 1));
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      }),
    );
    const error = await rejection(
      connect(settingsFor('127.0.0.1', server.port, { connectTimeout: 200 })),
    );
    expect(error).toMatchObject({ code: 'WK_TIMEOUT', retryable: true });
  });
});
