import { StoreUncertainError } from '../../errors.js';
import type { S3Client } from './client.js';
import { type Seen, seenIn } from './object-headers.js';
import { refusalOf } from './refusals.js';

/** Looks at an object that comes and goes. */
const MOST_LOOKS = 10;

/**
 * What an object's headers say; undefined: it is proven absent. HEAD answers without a text, so that
 * a key and a bucket that are not there look the same, and so do all refusals: whatever it does not
 * give, GET has to explain.
 */
export async function look(
  client: S3Client,
  key: string,
  signal: AbortSignal | undefined,
): Promise<Seen | undefined> {
  const what = `say what "${key}" is`;
  // One limit for all that is asked.
  const tries = client.tries(what, signal);
  try {
    for (let i = 0; i < MOST_LOOKS; i++) {
      const answer = await client.send({ method: 'HEAD', what, key }, tries.signal);
      if (answer.status < 300) return seenIn(key, answer.headers);
      const got = await client.send({ method: 'GET', what, key, stream: true }, tries.signal);
      got.body?.destroy();
      if (isAbsent(got)) return undefined;
      if (got.status >= 300) throw refusalOf(got, what, key);
    }
    throw contested(key);
  } finally {
    tries.release();
  }
}

/** As `look`, but what cannot be seen now is not looked for any longer. */
export async function glance(
  client: S3Client,
  key: string,
  signal: AbortSignal,
): Promise<Seen | undefined> {
  const request = { method: 'HEAD', what: `say what "${key}" is`, key } as const;
  const { answer } = await client.attempt(request, signal);
  return answer && answer.status < 300 ? seenIn(key, answer.headers) : undefined;
}

/** Of an answer to GET: only that says which of all that is not there is meant. */
export function isAbsent({ status, code }: { status: number; code: string }): boolean {
  return status === 404 && code === 'NoSuchKey';
}

export function contested(key: string): StoreUncertainError {
  return new StoreUncertainError(`"${key}" comes and goes`, { key });
}
