import { createHash } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import aws4 from 'aws4';

export interface Keys {
  accessKeyId: string;
  secretAccessKey: string;
}

/** One signed request over plain HTTP, without anything of the store that is tested. */
export async function signedRequest(
  endpoint: string,
  request: { method: string; path: string; headers?: Record<string, string>; body?: string },
  keys: Keys,
): Promise<{ status: number; text: string }> {
  const { hostname, port, host } = new URL(endpoint);
  const body = request.body ?? '';
  const signed = aws4.sign(
    {
      service: 's3',
      region: 'us-east-1',
      host,
      method: request.method,
      path: request.path,
      headers: {
        ...request.headers,
        'Content-Length': Buffer.byteLength(body),
        'Content-MD5': createHash('md5').update(body).digest('base64'),
        'X-Amz-Content-Sha256': createHash('sha256').update(body).digest('hex'),
      },
    },
    keys,
  );
  return new Promise((resolve, reject) => {
    const call = httpRequest(
      {
        hostname,
        port,
        method: request.method,
        path: signed.path as string,
        headers: signed.headers ?? {},
        agent: false,
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
        response.on('error', reject);
      },
    );
    call.on('error', reject);
    call.end(body);
  });
}
