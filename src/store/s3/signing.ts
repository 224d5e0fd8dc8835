import aws4 from 'aws4';
import type { Target } from './address.js';
import type { Credentials } from './credentials/credentials.js';

/** SHA-256 of no bytes. */
export const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

/** What a request is signed over. Headers that something on the way may change are no part of it. */
export interface Signable {
  method: string;
  target: Target;
  headers: Readonly<Record<string, string>>;
  /** SHA-256 of the body, in hex. */
  sha256: string;
}

/** All headers of a request, with its signature (AWS's version 4) of this time. */
export function signed(
  { method, target, headers, sha256 }: Signable,
  credentials: Credentials,
  region: string,
  time: Date,
): Record<string, string> {
  const request = aws4.sign(
    {
      service: 's3',
      region,
      method,
      host: target.host,
      path: target.path,
      headers: {
        ...headers,
        Host: target.host,
        'X-Amz-Content-Sha256': sha256,
        'X-Amz-Date': time.toISOString().replace(/[:-]|\.\d{3}/g, ''),
      },
    },
    credentials,
  );
  return request.headers as Record<string, string>;
}
