import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import {
  CorruptObjectError,
  StoreAccessError,
  StoreUncertainError,
  StoreUnsupportedError,
} from '../../../src/errors.js';
import { bytesOf, contentOf } from '../../../src/store/content.js';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { S3Store } from '../../../src/store/s3/store.js';
import { waitFor } from '../../support/wait.js';
import { keys, whole } from '../contract.js';
import { ENV, inTurn, type Reaction, type Received, refusal, Service } from './scripted-service.js';

const WAL = contentOf(Buffer.from('WAL'));
/** Of a store that never gets an answer. */
const IMPATIENT = { patience: { whole: 500 } };

let service: Service;
beforeEach(async () => {
  service = await Service.start();
});
afterEach(async () => {
  await service[Symbol.asyncDispose]();
});

const first = () => service.requests[0] as Received;

describe('a request', () => {
  it('says how long it is and what its digest is, and has nothing that other services refuse', async () => {
    const content = contentOf(randomBytes(100_000));
    await service.open().create('key', content);
    const { headers } = first();
    expect(headers['content-length']).toBe('100000');
    expect(headers['x-amz-content-sha256']).toBe(content.sha256);
    const names = Object.keys(headers);
    expect(
      names.filter((name) => /checksum|crc|trailer|transfer-encoding|expect/.test(name)),
    ).toEqual([]);
    expect(headers['content-encoding']).toBeUndefined();
    const signedHeaders = /SignedHeaders=([^,]*)/.exec(headers.authorization ?? '')?.[1];
    expect(signedHeaders?.split(';')).toEqual([
      ...['host', 'if-none-match', 'x-amz-content-sha256', 'x-amz-date'],
      ...['x-amz-meta-walkeep-sha256', 'x-amz-meta-walkeep-token'],
    ]);
  });

  it('goes over a connection that is kept', async () => {
    const store = service.open();
    for (const key of ['a', 'b', 'c']) await store.create(key, WAL);
    await whole(store, 'a');
    await whole(store, 'b');
    expect(service.connections).toBe(1);
  });

  it('is sent again where the connection that was kept is no more', async () => {
    const store = service.open();
    await store.create('a', WAL);
    service.dropIdle();
    await store.create('b', WAL);
    expect([...service.objects.keys()]).toEqual(['a', 'b']);
  });
});

describe('create', () => {
  it('knows its own object again when the answer was lost', async () => {
    service.script = inTurn((request, usual) => {
      usual.usual(request);
      return 'reset';
    });
    expect(await service.open().create('key', WAL)).toEqual({ created: true });
    expect(service.calls).toEqual(['PUT key', 'HEAD key']);
  });

  it('knows it again by the second answer, where it is first said to be under way', async () => {
    service.script = inTurn((request, usual) => {
      usual.usual(request);
      return refusal(500, 'InternalError');
    });
    expect(await service.open().create('key', WAL)).toEqual({ created: true });
    expect(service.calls).toEqual(['PUT key', 'PUT key', 'HEAD key']);
  });

  it('does not take for its own what another one stored, though it is the same', async () => {
    const other = service.open();
    service.script = inTurn(async (): Promise<Reaction> => {
      await other.create('key', WAL);
      return 'reset';
    });
    const created = await service.open().create('key', WAL);
    expect(created).toMatchObject({ created: false, found: { sha256: WAL.sha256 } });
  });

  it('does not take for its own other content with its token', async () => {
    const store = service.open();
    await store.create('key', WAL, { token: 'one' });
    const other = contentOf(Buffer.from('other'));
    expect(await store.create('key', other, { token: 'one' })).toMatchObject({ created: false });
    expect(await store.create('key', WAL, { token: 'one' })).toEqual({ created: true });
  });

  it('looks before it sends all of it again to a service that does not take it', async () => {
    await service.open().create('key', WAL);
    service.requests.length = 0;
    service.unread = (request) => {
      if (request.method === 'PUT') request.socket.resetAndDestroy();
      return request.method === 'PUT' ? 'hang' : undefined;
    };
    const created = await service.open().create('key', contentOf(randomBytes(5_000_000)));
    expect(created).toMatchObject({ created: false, found: { sha256: WAL.sha256 } });
  });

  it('takes an answer that comes before all is sent', async () => {
    service.unread = () => refusal(403, 'AccessDenied', 'not you');
    const create = service.open().create('key', contentOf(randomBytes(20_000_000)));
    await expect(create).rejects.toThrow(StoreAccessError);
  });

  it('does not take for done what was not sent whole', async () => {
    service.unread = () => ({ status: 200, headers: { ETag: '"x"' } });
    const store = service.open(IMPATIENT);
    const create = store.create('key', contentOf(randomBytes(20_000_000)));
    await expect(create).rejects.toThrow(StoreUncertainError);
  });

  it.each([
    ['409', refusal(409, 'ConditionalRequestConflict')],
    ['503', refusal(503, 'SlowDown')],
    ['500 without a text', { status: 500 }],
    ['429', { status: 429, headers: { 'Retry-After': '0' } }],
    ['408', { status: 408 }],
    ['400 RequestTimeout', refusal(400, 'RequestTimeout')],
    ['502 of a proxy', { status: 502, body: '<html><Error>bad gateway' }],
  ])('tries again after %s', async (_, reply) => {
    service.script = inTurn(reply, reply);
    expect(await service.open().create('key', WAL)).toEqual({ created: true });
    expect(service.calls).toEqual(['PUT key', 'PUT key', 'PUT key']);
    expect(service.objects.get('key')?.body.toString()).toBe('WAL');
  });

  it('tries again when there is no answer for too long', async () => {
    service.script = inTurn('hang', 'hang');
    const store = service.open({ patience: { attempt: 100 } });
    expect(await store.create('key', WAL)).toEqual({ created: true });
  });

  it('signs each try anew', async () => {
    let now = Date.parse('2026-01-01T00:00:00Z');
    service.script = inTurn(refusal(500, 'InternalError'));
    const store = service.open({
      now: () => {
        now += 60_000;
        return now;
      },
    });
    await store.create('key', WAL);
    const [one, two] = service.requests.map(({ headers }) => headers);
    expect(one?.['x-amz-date']).not.toBe(two?.['x-amz-date']);
    expect(one?.authorization).not.toBe(two?.authorization);
  });

  it('sends a checksum where the service wants one with all that it locks', async () => {
    service.script = (request, usual) =>
      request.headers['x-amz-checksum-sha256']
        ? usual.usual(request)
        : refusal(400, 'InvalidRequest', 'Content-MD5 OR x-amz-checksum- HTTP header is required');
    const store = service.open();
    expect(await store.create('key', WAL)).toEqual({ created: true });
    expect(await store.create('other', WAL)).toEqual({ created: true });
    expect(service.calls).toEqual(['PUT key', 'PUT key', 'PUT other']);
    const sent = service.requests[2]?.headers['x-amz-checksum-sha256'];
    expect(sent).toBe(Buffer.from(WAL.sha256, 'hex').toString('base64'));
  });

  it('does not believe what only looks like a service', async () => {
    service.script = () => ({ status: 200, body: '<html>Log in to the network</html>' });
    await expect(service.open().create('key', WAL)).rejects.toThrow(StoreAccessError);
  });

  it('goes on when the object that was in the way is gone', async () => {
    service.script = inTurn(refusal(412, 'PreconditionFailed'));
    expect(await service.open().create('key', WAL)).toEqual({ created: true });
  });
});

describe('a service that has too much to do', () => {
  it('gets half as many requests at once, then more again, and does them all', async () => {
    let refused = 0;
    let running = 0;
    /** After the refusals. */
    let most = 0;
    let left = 96;
    let held: (() => void)[] = [];
    service.script = async (request, usual) => {
      const number = service.requests.length;
      running++;
      if (number > 32) most = Math.max(most, running);
      // Answered when as many have come as are to come at once.
      await new Promise<void>((resolve) => {
        held.push(resolve);
        if (held.length < Math.min(number > 32 ? 16 : 32, left)) return;
        if (number > 32) left -= held.length;
        for (const release of held) setImmediate(release);
        held = [];
      });
      running--;
      if (number <= 32) {
        refused++;
        return refusal(503, 'SlowDown');
      }
      return usual.usual(request);
    };
    const store = service.open();
    const created = await Promise.all(
      Array.from({ length: 96 }, (_, i) => store.create(`key/${i}`, WAL)),
    );
    expect(created.every((one) => one.created)).toBe(true);
    expect(refused).toBe(32);
    expect(service.requests.length).toBe(96 + 32);
    expect(most).toBeLessThanOrEqual(16 + 96 / 16);
  });
});

describe('a service without conditional writes', () => {
  beforeEach(() => {
    service.fenced = false;
  });

  it('that says so is refused', async () => {
    service.script = () => refusal(501, 'NotImplemented', 'A header you provided');
    const store = service.open();
    await expect(store.create('key', WAL)).rejects.toThrow(StoreUnsupportedError);
    expect(await store.create('key', WAL).catch(({ hint }) => hint)).toMatch(/unfenced/);
  });

  const ignores = (request: Received, usual: Service) => {
    delete request.headers['if-none-match'];
    return request.method === 'POST'
      ? { status: 200, body: deleteResult(request) }
      : usual.usual(request);
  };

  it('that overwrites is found out before anything is created', async () => {
    service.script = ignores;
    const store = service.open();
    await expect(store.create('key', WAL)).rejects.toThrow(StoreUnsupportedError);
    expect(service.objects.has('key')).toBe(false);
    expect(await store.probe()).toMatchObject({ conditionalCreate: false });
    await expect(store.create('key', WAL)).rejects.toThrow(StoreUnsupportedError);
    expect(service.objects.has('key')).toBe(false);
  });

  it('is told from one with them by one object that is left, by one request', async () => {
    const mark = '.walkeep-store/created-once';
    await service.open().create('one', WAL);
    expect(service.calls).toEqual([`PUT ${mark}`, `PUT ${mark}`, 'PUT one']);
    service.requests.length = 0;
    const store = service.open();
    await Promise.all([store.create('two', WAL), store.create('three', WAL)]);
    expect(service.calls.sort()).toEqual([`PUT ${mark}`, 'PUT three', 'PUT two']);
  });

  it.each([
    [403, 'AccessDenied', 'WK_STORE_ACCESS'],
    [404, 'NoSuchBucket', 'WK_STORE_ACCESS'],
    [400, 'InvalidRequest', 'WK_STORE_ACCESS'],
  ])('is not told by a refusal for another reason: %i %s', async (status, code, error) => {
    let refused = true;
    service.script = (request, usual) =>
      refused && request.path.includes('.walkeep-store')
        ? refusal(status, code)
        : usual.usual(request);
    const store = service.open();
    await expect(store.create('one', WAL)).rejects.toMatchObject({ code: error });
    expect(service.objects.has('one')).toBe(false);
    // Asked again, once that is mended.
    refused = false;
    expect(await store.create('one', WAL)).toEqual({ created: true });
  });

  it('is told with a checksum where the service wants one with all that it locks', async () => {
    service.script = (request, usual) =>
      request.method === 'PUT' && !request.headers['x-amz-checksum-sha256']
        ? refusal(400, 'InvalidRequest', 'Content-MD5 or x-amz-checksum- HTTP header is required')
        : usual.usual(request);
    expect(await service.open().create('one', WAL)).toEqual({ created: true });
  });

  it('is told within the time for all of a create', async () => {
    service.script = (request, usual) =>
      request.path.includes('.walkeep-store') ? 'hang' : usual.usual(request);
    const store = service.open({ patience: { attempt: 60_000, whole: 300 } });
    const began = performance.now();
    await expect(store.create('one', WAL)).rejects.toThrow(StoreUncertainError);
    expect(performance.now() - began).toBeLessThan(30_000);
  });

  it('is asked again where it did not answer, and by each call for itself', async () => {
    let asked = 0;
    service.script = (request, usual) => {
      if (!request.path.includes('.walkeep-store')) return usual.usual(request);
      return asked++ === 0 ? 'hang' : usual.usual(request);
    };
    const store = service.open({ patience: { whole: 500 } });
    const stop = new AbortController();
    const given = store.create('one', WAL, { signal: stop.signal });
    const other = store.create('one', WAL);
    await waitFor(() => asked > 0);
    stop.abort(new Error('stop'));
    await expect(given).rejects.toThrow('stop');
    await expect(other).rejects.toThrow(StoreUncertainError);
    expect(await store.create('one', WAL)).toEqual({ created: true });
  });

  it('serves a single writer that asks for it', async () => {
    service.script = ignores;
    const store = service.open({ unfenced: true });
    expect(await store.create('key', WAL)).toEqual({ created: true });
    const other = contentOf(Buffer.from('other'));
    expect(await store.create('key', other)).toMatchObject({
      created: false,
      found: { sha256: WAL.sha256 },
    });
    expect(await store.probe()).toMatchObject({ conditionalCreate: false });
    expect(await store.create('third', WAL)).toEqual({ created: true });
  });

  it('is used without the condition where it does not know it', async () => {
    service.script = (request, usual) =>
      request.headers['if-none-match'] ? refusal(501, 'NotImplemented') : usual.usual(request);
    const store = service.open({ unfenced: true });
    expect(await store.create('key', WAL)).toEqual({ created: true });
    expect(await store.create('key', WAL)).toMatchObject({ created: false });
  });
});

it('asks for all that it has to know of an object within one limit', async () => {
  // Each question is answered late in its own time: what was asked for comes and goes.
  const later = () => new Promise((resolve) => setTimeout(resolve, 150));
  service.script = async ({ method }) => {
    await later();
    return method === 'HEAD'
      ? refusal(404, '')
      : { status: 200, headers: { 'Last-Modified': new Date().toUTCString() }, body: 'x' };
  };
  const store = service.open({ patience: { whole: 400 } });
  await expect(store.head('key')).rejects.toThrow(/longer than 400 ms/);
  expect(service.requests.length).toBeLessThan(6);
});

describe('absent', () => {
  it('is only what a service of S3 says so of in an answer to GET', async () => {
    const store = service.open();
    expect(await store.get('key')).toBeUndefined();
    expect(await store.head('key')).toBeUndefined();
    expect(service.calls).toEqual(['GET key', 'HEAD key', 'GET key']);
  });

  it.each([
    ['a bucket that is not there', refusal(404, 'NoSuchBucket'), StoreAccessError],
    ['a page that is not found', { status: 404, body: '<html>Not Found' }, StoreAccessError],
    ['an empty 404', { status: 404 }, StoreAccessError],
    ['a refusal', refusal(403, 'AccessDenied'), StoreAccessError],
    ['a wrong key', refusal(403, 'InvalidAccessKeyId'), StoreAccessError],
    ['a redirect that leads nowhere', { status: 301 }, StoreAccessError],
    ['a fault', refusal(500, 'InternalError'), StoreUncertainError],
    ['too much', refusal(503, 'SlowDown'), StoreUncertainError],
    ['a conflict', refusal(409, 'OperationAborted'), StoreUncertainError],
    ['no answer', 'hang', StoreUncertainError],
    ['a connection that breaks', 'reset', StoreUncertainError],
  ] as const)('is not %s', async (_, reaction, error) => {
    service.script = () => reaction;
    const store = service.open(error === StoreUncertainError ? IMPATIENT : {});
    await expect(store.get('key')).rejects.toThrow(error);
    await expect(store.head('key')).rejects.toThrow(error);
    await expect(keys(store.list(''))).rejects.toThrow(error);
    await expect(store.create('key', WAL)).rejects.toThrow(error);
    await expect(store.remove(['key'])).rejects.toThrow(error);
  });

  it('is not what stands where nobody listens', async () => {
    const store = service.open(IMPATIENT);
    const again = new S3Store(service.place(), { env: ENV, ...IMPATIENT });
    await service[Symbol.asyncDispose]();
    await expect(again.get('key')).rejects.toThrow(StoreUncertainError);
    await again.close();
    await expect(store.get('key')).rejects.toThrow(/closed/);
  });

  it('is not what stands behind certificates that cannot be read, and they are read again', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'walkeep-ca-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const ca = join(directory, 'ca.pem');
    const port = service.port;
    const place = parsePlace(`s3://bucket?endpoint=https://127.0.0.1:${port}&ca=${ca}`);
    const store = new S3Store(place as S3Place, { env: ENV, ...IMPATIENT });
    onTestFinished(() => store.close());
    await expect(store.get('key')).rejects.toThrow(`cannot read the certificates`);
    await writeFile(ca, rootCertificates[0] as string);
    // What listens there speaks no TLS.
    await expect(store.get('key')).rejects.toThrow('there is no TLS');
  });

  it('is not what stands on a host that is not there', async () => {
    const place = parsePlace('s3://bucket?endpoint=http://no-such-host.invalid') as S3Place;
    const store = new S3Store(place, { env: ENV, ...IMPATIENT });
    const error = await store.get('key').catch((e) => e);
    await store.close();
    // A machine without a name server cannot tell.
    if (error.cause?.code !== 'EAI_AGAIN') expect(error).toBeInstanceOf(StoreAccessError);
    else expect(error).toBeInstanceOf(StoreUncertainError);
  });
});

describe('the region', () => {
  const scope = ({ headers }: Received) =>
    /Credential=id\/\d+\/([^/]+)\//.exec(headers.authorization ?? '')?.[1];

  it.each([
    ['a redirect', { status: 301, headers: { 'x-amz-bucket-region': 'eu-west-3' } }],
    [
      'a refused signature',
      refusal(400, 'AuthorizationHeaderMalformed', 'wrong', '<Region>eu-west-3</Region>'),
    ],
  ])('is taken from %s, once', async (_, reply) => {
    service.script = (request, usual) =>
      scope(request) === 'eu-west-3' ? usual.usual(request) : reply;
    const store = service.open();
    await store.create('a', WAL);
    await store.create('b', WAL);
    expect(service.requests.map(scope)).toEqual(['us-east-1', 'eu-west-3', 'eu-west-3']);
  });

  it('that is refused for ever is an error that names it', async () => {
    service.script = () =>
      refusal(400, 'AuthorizationHeaderMalformed', 'wrong', '<Region>eu-west-3</Region>');
    const error = await service
      .open()
      .get('key')
      .catch((e) => e);
    expect(error).toBeInstanceOf(StoreAccessError);
    expect(error.hint).toContain('eu-west-3');
    expect(service.requests.length).toBe(2);
  });

  it('may be another host for a while', async () => {
    await using other = await Service.start();
    const location = `http://127.0.0.1:${other.port}/bucket/key`;
    service.script = () => ({ status: 307, headers: { Location: location } });
    expect(await service.open().create('key', WAL)).toEqual({ created: true });
    expect(other.requests[0]?.headers.host).toBe(`127.0.0.1:${other.port}`);
    expect(other.objects.get('key')?.body.toString()).toBe('WAL');
  });
});

describe('the clock', () => {
  it('is put right by what the service says', async () => {
    const theirs = new Date('2030-05-05T05:05:05Z');
    const date = { Date: theirs.toUTCString() };
    service.script = (request, usual) => {
      const reply = request.headers['x-amz-date']?.toString().startsWith('203005')
        ? usual.usual(request)
        : refusal(403, 'RequestTimeTooSkewed');
      return { ...reply, headers: { ...reply.headers, ...date } };
    };
    const store = service.open({ now: () => Date.parse('2026-01-01T00:00:00Z') });
    await store.create('a', WAL);
    await store.create('b', WAL);
    expect(service.calls).toEqual(['PUT a', 'PUT a', 'PUT b']);
  });
});

describe('credentials', () => {
  it.each(['ExpiredToken', 'InvalidAccessKeyId', 'AccessDenied'])(
    'are asked for anew after %s',
    async (code) => {
      let serial = 0;
      let stale = false;
      const credentials = {
        get: async () => {
          if (stale) serial++;
          stale = false;
          return { accessKeyId: `id${serial}`, secretAccessKey: 'secret', sessionToken: 'token' };
        },
        invalidate: () => {
          stale = true;
        },
      };
      service.script = (request, usual) =>
        request.headers.authorization?.includes('id0/')
          ? refusal(code === 'ExpiredToken' ? 400 : 403, code)
          : usual.usual(request);
      expect(await service.open({ credentials }).create('key', WAL)).toEqual({ created: true });
      expect(first().headers['x-amz-security-token']).toBe('token');
      expect(service.calls).toEqual(['PUT key', 'PUT key']);
    },
  );

  it('are asked for anew where HEAD is refused without a word', async () => {
    let current = { accessKeyId: 'id0', secretAccessKey: 'secret' };
    const credentials = {
      get: async () => current,
      invalidate: () => {
        current = { accessKeyId: 'id1', secretAccessKey: 'secret' };
      },
    };
    const store = service.open({ credentials });
    await store.create('key', WAL);
    service.script = (request, usual) =>
      request.headers.authorization?.includes('id0/')
        ? refusal(400, 'ExpiredToken')
        : usual.usual(request);
    expect(await store.head('key')).toMatchObject({ sha256: WAL.sha256 });
    expect(service.calls).toEqual(['PUT key', 'HEAD key', 'GET key', 'GET key', 'HEAD key']);
  });

  it('are not asked for each time where a right is missing', async () => {
    let asked = 0;
    const credentials = {
      get: async () => ({ accessKeyId: 'id', secretAccessKey: `secret${asked}` }),
      invalidate: () => void asked++,
    };
    service.script = () => refusal(403, 'AccessDenied');
    const store = service.open({ credentials });
    for (let i = 0; i < 5; i++) await expect(store.get('key')).rejects.toThrow(StoreAccessError);
    expect(asked).toBe(1);
  });

  it('that stay the same are not tried twice', async () => {
    service.script = () => refusal(403, 'SignatureDoesNotMatch');
    await expect(service.open().get('key')).rejects.toThrow(StoreAccessError);
    expect(service.calls).toEqual(['GET key']);
  });
});

describe('a body', () => {
  const object = contentOf(randomBytes(300_000));
  beforeEach(async () => {
    await service.open().create('key', object);
    service.requests.length = 0;
  });

  it('that ends before its time is no answer', async () => {
    service.script = (request, usual) => ({ cut: usual.usual(request) });
    await expect(whole(service.open(), 'key')).rejects.toThrow(StoreUncertainError);
  });

  it('that stalls is no answer', async () => {
    service.script = (request, usual) => {
      const { status, headers = {}, body } = usual.usual(request);
      return { status, headers: { ...headers, 'Content-Length': '600000' }, body: body ?? '' };
    };
    const store = service.open({ patience: { attempt: 100, whole: 10_000 } });
    await expect(whole(store, 'key')).rejects.toThrow(StoreUncertainError);
  });

  it('of other bytes is corrupt, and so only where all of it is read', async () => {
    const stored = service.objects.get('key');
    stored?.body.writeUInt8((stored.body.readUInt8(5) + 1) % 256, 5);
    const store = service.open();
    await expect(whole(store, 'key')).rejects.toThrow(CorruptObjectError);
  });

  it('of another length than all that is stored is no answer to a range', async () => {
    // As if the service did not know ranges.
    const got = service.open().get('key', { range: { start: 5, end: 10 } });
    await expect(got).rejects.toThrow(StoreUncertainError);
  });

  it('is not limited by the time that its reader takes', async () => {
    service.objects.set('short', { body: Buffer.alloc(140_000), headers: {} });
    const store = service.open({ patience: { attempt: 100 } });
    const got = await store.get('short');
    const reader = got!.body[Symbol.asyncIterator]();
    let size = (await reader.next()).value?.length;
    expect(size).toBeLessThan(140_000);
    const began = Date.now();
    await waitFor(() => Date.now() - began > 1000);
    for (let next = await reader.next(); !next.done; next = await reader.next()) {
      size += next.value.length;
    }
    expect(size).toBe(140_000);
  });

  it('holds no connection once nobody can read it any more', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    service.objects.set('long', { body: Buffer.alloc(20_000_000), headers: {} });
    const store = service.open();
    const before = service.openConnections;
    const drop = async (read: boolean) => {
      const got = await store.get('long');
      if (read) await got!.body[Symbol.asyncIterator]().next();
    };
    await drop(false);
    await drop(true);
    expect(service.openConnections).toBeGreaterThan(before);
    await waitFor(() => {
      collect();
      return service.openConnections <= before;
    });
    // One that is being read stays, however often memory is collected.
    const got = await store.get('long');
    let size = 0;
    for await (const piece of got!.body) {
      if (size === 0) collect();
      size += piece.length;
    }
    expect(size).toBe(20_000_000);
  });

  it('that was stored by others has no digest to prove', async () => {
    service.objects.set('theirs', { body: Buffer.from('x'), headers: {} });
    const got = await service.open().get('theirs');
    expect(got?.sha256).toBeUndefined();
    expect((await bytesOf(got!.body)).toString()).toBe('x');
  });
});

describe('list', () => {
  const page = (names: readonly string[], more = '') => ({
    status: 200,
    body: `<ListBucketResult><EncodingType>url</EncodingType>${names
      .map(
        (name) =>
          `<Contents><Key>${name}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>`,
      )
      .join('')}${more || LAST}</ListBucketResult>`,
  });
  const LAST = '<IsTruncated>false</IsTruncated>';

  it.each(['<Name>bucket</Name>', '<IsTruncated>perhaps</IsTruncated>', '<IsTruncated/>'])(
    'is not taken for complete where it does not say so: %s',
    async (more) => {
      service.script = inTurn(page(['a'], more));
      await expect(keys(service.open().list(''))).rejects.toThrow(StoreUncertainError);
    },
  );

  it('goes on behind the last key where the service gives no token', async () => {
    service.script = inTurn(page(['a', 'b'], '<IsTruncated>true</IsTruncated>'), page(['c']));
    expect(await keys(service.open().list(''))).toEqual(['a', 'b', 'c']);
    expect(service.requests[1]?.query.get('start-after')).toBe('b');
  });

  it('reads a blank that is written as a plus, and keys of characters that XML escapes', async () => {
    service.script = inTurn(page(['a%2Bb', 'c+d', '%26amp;']));
    const listed = keys(service.open().list(''));
    await expect(listed).rejects.toThrow(StoreUnsupportedError);
    service.script = inTurn(page(['%26amp;', 'a%2Bb', 'c+d']));
    expect(await keys(service.open().list(''))).toEqual(['&amp;', 'a+b', 'c d']);
  });

  it.each([
    ['no XML', { status: 200, body: 'hello' }],
    ['HTML', { status: 200, body: '<html><body>hello</body></html>' }],
    ['half of it', { status: 200, body: '<ListBucketResult><Contents><Key>a</Key>' }],
    ['an entry without a size', page(['x', '<y/>'])],
    ['nothing but that there is more', page([], '<IsTruncated>true</IsTruncated>')],
    [
      'the same page for ever',
      page([], '<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>'),
    ],
  ])('is not %s', async (_, reply) => {
    service.script = () => reply;
    await expect(keys(service.open().list(''))).rejects.toThrow(StoreUncertainError);
  });

  it('does not leave anything out because of a page that breaks', async () => {
    service.script = inTurn({ cut: page(['a', 'b']) }, page(['a', 'b']));
    expect(await keys(service.open().list(''))).toEqual(['a', 'b']);
  });
});

describe('remove', () => {
  it('keeps apart what a lock holds', async () => {
    service.script = (request) => ({
      status: 200,
      body: deleteResult(request, {
        b: '<Code>AccessDenied</Code><Message>Access Denied because object protected by object lock.</Message>',
        c: '<Code>ObjectLocked</Code><Message/>',
      }),
    });
    const result = await service.open().remove(['a', 'b', 'c', 'd']);
    expect(result).toEqual({ removed: ['a', 'd'], retained: ['b', 'c'] });
  });

  it('fails where there is no right to', async () => {
    service.script = (request) => ({
      status: 200,
      body: deleteResult(request, {
        b: '<Code>AccessDenied</Code><Message>Access Denied</Message>',
      }),
    });
    await expect(service.open().remove(['a', 'b'])).rejects.toThrow(StoreAccessError);
  });

  it('tries again what could not be removed just then', async () => {
    let asked = 0;
    service.script = (request) => ({
      status: 200,
      body: deleteResult(request, asked++ === 0 ? { b: '<Code>InternalError</Code>' } : {}),
    });
    expect(await service.open().remove(['a', 'b'])).toEqual({ removed: ['a', 'b'], retained: [] });
    expect(service.requests[1]?.body.toString()).not.toContain('<Key>a</Key>');
  });

  it('does not take silence for done', async () => {
    service.script = () => ({ status: 200, body: '<DeleteResult/>' });
    await expect(service.open().remove(['a'])).rejects.toThrow(StoreUncertainError);
  });

  it('escapes keys', async () => {
    service.script = (request) => ({ status: 200, body: deleteResult(request) });
    const wanted = ['<a>&amp;', 'b & c'];
    expect((await service.open().remove(wanted)).removed).toEqual(wanted);
  });
});

/** An answer that names every key of the request, with what failed of them. */
function deleteResult(request: Received, failed: Record<string, string> = {}): string {
  const names = [...request.body.toString().matchAll(/<Key>(.*?)<\/Key>/g)].map(([, key]) => key!);
  const results = names.map((name) =>
    failed[name]
      ? `<Error><Key>${name}</Key>${failed[name]}</Error>`
      : `<Deleted><Key>${name}</Key></Deleted>`,
  );
  return `<?xml version="1.0"?><DeleteResult>${results.join('')}</DeleteResult>`;
}
