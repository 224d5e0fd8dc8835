import { createHash, createHmac } from 'node:crypto';
import { expect, it } from 'vitest';
import { bytesOf, contentOf } from '../../../src/store/content.js';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { S3Store, type S3StoreOptions } from '../../../src/store/s3/store.js';
import { ENV, type Received, type Reply, refusal, Service } from './scripted-service.js';

const WAL = contentOf(Buffer.from('WAL'));
const HOST = 'storage.googleapis.com';

/**
 * What Google's service does otherwise than S3, with its keys of HMAC: it signs over what arrives, and
 * a load balancer has changed Accept-Encoding by then; it takes no chunks of AWS's; it knows the
 * condition of HTTP for reading only, and overwrites.
 */
function google(request: Received, usual: Service): Reply {
  const { headers, method } = request;
  const sha256 = String(headers['x-amz-content-sha256']);
  if (sha256.startsWith('STREAMING-') || /aws-chunked/.test(String(headers['content-encoding']))) {
    return refusal(400, 'InvalidArgument', 'Transfer encoding');
  }
  if (headers['x-amz-trailer'] || headers['transfer-encoding'])
    return refusal(411, 'MissingLength');
  const mixed = Object.keys(headers).some((name) => name.startsWith('x-goog-'));
  if (mixed) return refusal(400, 'ExcessHeaderValues', 'x-goog- beside x-amz-');
  if (!isSigned({ ...request, headers: { ...headers, 'accept-encoding': 'gzip,gfe' } })) {
    return refusal(403, 'SignatureDoesNotMatch');
  }
  delete headers['if-none-match'];
  if (method === 'GET' && request.query.has('list-type')) {
    const entries = [...usual.objects].map(([key, { body }]) => {
      const modified = new Date().toISOString();
      return `<Contents><Key>${key}</Key><Size>${body.length}</Size><LastModified>${modified}</LastModified></Contents>`;
    });
    const body = `<ListBucketResult xmlns="http://doc.s3.amazonaws.com/2006-03-01"><IsTruncated>false</IsTruncated>${entries.join('')}</ListBucketResult>`;
    return { status: 200, body };
  }
  return usual.usual(request);
}

/** The signature of version 4 over what has arrived. */
function isSigned({ method, path, query, headers }: Received): boolean {
  const [, scope = '', names = '', signature] =
    /^AWS4-HMAC-SHA256 Credential=[^/]+\/(\S+), SignedHeaders=(\S+), Signature=(\w+)$/.exec(
      headers.authorization ?? '',
    ) ?? [];
  const [date = '', region = '', service = ''] = scope.split('/');
  const pairs = [...query].map((pair) => pair.map(encodeURIComponent).join('=')).sort();
  const canonical = [
    ...[method, encodeURI(path), pairs.join('&')],
    ...names.split(';').map((name) => `${name}:${headers[name]}`),
    ...['', names, headers['x-amz-content-sha256']],
  ].join('\n');
  const digest = createHash('sha256').update(canonical).digest('hex');
  const text = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, digest].join('\n');
  const key = [date, region, service, 'aws4_request'].reduce<string | Buffer>(
    (by, part) => createHmac('sha256', by).update(part).digest(),
    `AWS4${ENV.AWS_SECRET_ACCESS_KEY}`,
  );
  return createHmac('sha256', key).update(text).digest('hex') === signature;
}

function open(service: Service, options: S3StoreOptions): S3Store {
  // Its name leads here as to a proxy.
  const env = { ...ENV, HTTP_PROXY: `http://127.0.0.1:${service.port}` };
  const place = parsePlace(`s3://bucket?endpoint=http://${HOST}&region=auto`) as S3Place;
  return new S3Store(place, { env, ...options });
}

it('is refused without a request, since it would overwrite', async () => {
  await using service = await Service.start(google);
  await using store = open(service, {});
  await expect(store.create('key', WAL)).rejects.toMatchObject({ code: 'WK_STORE_UNSUPPORTED' });
  expect(service.requests).toEqual([]);
});

it('is used unfenced as it wants it', async () => {
  await using service = await Service.start(google);
  service.fenced = false;
  await using store = open(service, { unfenced: true });
  expect(await store.create('wal/1', WAL, { meta: { lsn: '0/1' } })).toEqual({ created: true });
  const other = contentOf(Buffer.from('other'));
  expect(await store.create('wal/1', other)).toMatchObject({
    created: false,
    found: { sha256: WAL.sha256 },
  });
  // Looked for, then put; nothing is put to see what the service does, which is known.
  expect(service.calls).toEqual(['HEAD wal/1', 'GET wal/1', 'PUT wal/1', 'HEAD wal/1']);
  const put = service.requests[2] as Received;
  expect(put.headers['if-none-match']).toBeUndefined();
  expect(put.headers['content-length']).toBe('3');
  const got = await store.get('wal/1');
  expect(got && `${await bytesOf(got.body)}`).toBe('WAL');
  expect(got?.meta).toEqual({ lsn: '0/1' });
  expect(await store.get('none')).toBeUndefined();
  const listed: string[] = [];
  for await (const { key } of store.list('')) listed.push(key);
  expect(listed).toEqual(['wal/1']);
});
