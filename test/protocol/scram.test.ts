import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AuthenticationError, WalkeepError } from '../../src/errors.js';
import { prepareScramPassword } from '../../src/protocol/saslprep.js';
import { type ChannelBinding, MAX_ITERATIONS, ScramClient } from '../../src/protocol/scram.js';

/** RFC 7677 section 3. */
const NONCE = 'rOprNGfwEbeRWgbNEkqO';
const SERVER_NONCE = `${NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0`;
const SERVER_FIRST = `r=${SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`;
const SERVER_FINAL = 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=';
const client = (binding: ChannelBinding = 'none') =>
  new ScramClient('pencil', binding, NONCE, 'user');

describe('exchange', () => {
  test('the example of RFC 7677', async () => {
    const scram = client();
    expect(scram.mechanism).toBe('SCRAM-SHA-256');
    expect(scram.firstMessage).toBe(`n,,n=user,r=${NONCE}`);
    expect(await scram.respond(SERVER_FIRST)).toBe(
      `c=biws,r=${SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`,
    );
    expect(scram.finished).toBe(false);
    scram.verify(SERVER_FINAL);
    expect(scram.finished).toBe(true);
    expect(scram.channelBound).toBe(false);
  });

  test('the channel goes into the header and into the proof', async () => {
    const endPoint = Buffer.from('0123456789abcdef');
    const scram = client({ endPoint });
    expect(scram.mechanism).toBe('SCRAM-SHA-256-PLUS');
    expect(scram.firstMessage).toMatch(/^p=tls-server-end-point,,n=user,r=/);
    const final = await scram.respond(SERVER_FIRST);
    const channel = Buffer.from((/^c=([^,]*)/.exec(final)?.[1] as string) ?? '', 'base64');
    expect(channel.toString()).toBe('p=tls-server-end-point,,0123456789abcdef');
    expect(() => scram.verify(SERVER_FINAL)).toThrow('incorrect server signature');
    expect(await client('unused').respond(SERVER_FIRST)).toMatch(/^c=eSws,/);
  });

  test('nonces are long and differ', () => {
    const [one, two] = [new ScramClient('p', 'none'), new ScramClient('p', 'none')];
    expect(one.firstMessage).toMatch(/^n,,n=,r=[A-Za-z0-9+/]{24}$/);
    expect(one.firstMessage).not.toBe(two.firstMessage);
  });
});

describe('hostile servers', () => {
  test.each([
    [`r=${NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`, /nonce mismatch/],
    ['r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096', /nonce mismatch/],
    [`r=${SERVER_NONCE},s=,i=4096`, /invalid salt/],
    [`r=${SERVER_NONCE},s=!!!!,i=4096`, /invalid salt/],
    [`r=${SERVER_NONCE},s=W22Z,i=0`, /invalid iteration count/],
    [`r=${SERVER_NONCE},s=W22Z,i=-1`, /invalid iteration count/],
    [`r=${SERVER_NONCE},s=W22Z,i=1e3`, /invalid iteration count/],
    [`r=${SERVER_NONCE},s=W22Z,i=${MAX_ITERATIONS + 1}`, /more than the 1000000 allowed/],
    [`r=${SERVER_NONCE},s=W22Z,i=4096,x=1`, /garbage at end/],
    [`m=ext,r=${SERVER_NONCE},s=W22Z,i=4096`, /attribute "r" expected/],
    ['r', /expected character "="/],
    ['', /empty message/],
    [`r=${SERVER_NONCE}\0`, /length mismatch/],
  ])('first message %j', async (message, error) => {
    await expect(client().respond(message)).rejects.toThrow(error);
    await expect(client().respond(message)).rejects.toBeInstanceOf(WalkeepError);
  });

  test.each([
    ['v=AAAA', /invalid server signature/],
    ['e=invalid-proof', /error received from server in SCRAM exchange: invalid-proof/],
    [`v=${Buffer.alloc(32).toString('base64')}`, /incorrect server signature/],
    [`${SERVER_FINAL},x=1`, /garbage at end/],
    ['x', /attribute "v" expected/],
    ['', /empty message/],
  ])('final message %j', async (message, error) => {
    const scram = client();
    await scram.respond(SERVER_FIRST);
    expect(() => scram.verify(message)).toThrow(error);
    expect(scram.finished).toBe(false);
  });

  test('messages out of order', async () => {
    const scram = client();
    expect(() => scram.verify(SERVER_FINAL)).toThrow('out of order');
    await scram.respond(SERVER_FIRST);
    await expect(scram.respond(SERVER_FIRST)).rejects.toThrow('second SCRAM challenge');
  });

  test('any text gives a typed error, and never success', async () => {
    const first = fc.oneof(
      fc.string(),
      fc
        .tuple(fc.string(), fc.base64String(), fc.nat(3))
        .map(([n, salt, i]) => `r=${NONCE}${n},s=${salt},i=${i}`),
    );
    await fc.assert(
      fc.asyncProperty(first, fc.string(), async (serverFirst, serverFinal) => {
        const scram = client();
        try {
          await scram.respond(serverFirst);
          scram.verify(serverFinal);
        } catch (error) {
          expect(error).toBeInstanceOf(WalkeepError);
        }
        expect(scram.finished).toBe(false);
      }),
      { numRuns: 500 },
    );
  });

  test('an error never shows the password', async () => {
    const scram = new ScramClient('s3cret', 'none', NONCE);
    const error = await scram.respond(`r=${NONCE}x,s=s3cret!,i=1`).catch((e) => e);
    expect(error.message).not.toContain('s3cret');
    expect(new AuthenticationError('x').needsPassword).toBe(false);
  });
});

test('a server that computes by itself accepts the proof', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ minLength: 1 }), fc.integer({ min: 1, max: 50 }), async (p, i) => {
      const scram = new ScramClient(p, 'none', 'abc');
      const salt = Buffer.from('saltsalt');
      const first = `r=abcdef,s=${salt.toString('base64')},i=${i}`;
      const final = await scram.respond(first);
      const salted = pbkdf2Sync(p, salt, i, 32, 'sha256');
      const mac = (key: Buffer, data: string) => createHmac('sha256', key).update(data).digest();
      const stored = createHash('sha256').update(mac(salted, 'Client Key')).digest();
      const [withoutProof, proof] = final.split(',p=') as [string, string];
      const auth = `n=,r=abc,${first},${withoutProof}`;
      const signature = mac(stored, auth);
      const key = Buffer.from(proof, 'base64').map((b, n) => b ^ (signature[n] as number));
      expect(createHash('sha256').update(key).digest()).toEqual(stored);
      scram.verify(`v=${mac(mac(salted, 'Server Key'), auth).toString('base64')}`);
    }),
    { numRuns: 50 },
  );
});

test.each([
  ['plain \x01 ascii', 'plain \x01 ascii'],
  // RFC 4013 section 3.
  ['I\u00ADX', 'IX'],
  ['\u00AA', 'a'],
  ['\u2168', 'IX'],
  ['\u00E4\u0007', '\u00E4\u0007'],
  ['\u06271', '\u06271'],
  ['a\u00A0\u00E4', 'a \u00E4'],
  ['\u00AD', '\u00AD'],
  ['a\u0308', '\u00E4'],
  ['\u05D0\u2168', '\u05D0\u2168'],
])('SASLprep of %j', async (password, prepared) => {
  expect(await prepareScramPassword(password)).toBe(prepared);
});
