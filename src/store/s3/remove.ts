import { createHash } from 'node:crypto';
import { StoreAccessError, StoreUncertainError } from '../../errors.js';
import type { Removed } from '../store.js';
import { type Deletion, deletionIn } from './answers.js';
import type { S3Client } from './client.js';
import { isHeld, isPassing, refusalOf } from './refusals.js';

/** As many as one request may name. */
const BATCH = 1000;

type Failed = Deletion['failed'][number];

/** @throws StoreAccessError, StoreUncertainError for what is neither removed nor held */
export async function removeAll(
  client: S3Client,
  keys: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Removed> {
  const done: Removed = { removed: [], retained: [] };
  for (let at = 0; at < keys.length; at += BATCH) {
    const { removed, retained } = await removeBatch(client, keys.slice(at, at + BATCH), signal);
    done.removed.push(...removed);
    done.retained.push(...retained);
  }
  return done;
}

async function removeBatch(
  client: S3Client,
  keys: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Removed> {
  const retained = new Set<string>();
  const tries = client.tries('remove', signal);
  try {
    let left = keys;
    for (;;) {
      const failed = await removeOnce(client, left, tries.signal);
      for (const { key } of failed.filter(isHeld)) retained.add(key);
      const others = failed.filter((one) => !isHeld(one));
      const lasting = others.find((one) => !passes(one));
      if (lasting) throw failureOfKey(lasting);
      left = others.map((one) => one.key);
      if (left.length === 0) break;
      await tries.again(failureOfKey(others[0] as Failed));
    }
  } finally {
    tries.release();
  }
  return { removed: keys.filter((key) => !retained.has(key)), retained: [...retained] };
}

/** What of the keys could not be removed. */
async function removeOnce(
  client: S3Client,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<Failed[]> {
  const names = new Map(keys.map((key) => [client.address.fullKey(key), key]));
  const objects = [...names.keys()].map((name) => `<Object><Key>${escaped(name)}</Key></Object>`);
  const body = Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?><Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${objects.join('')}</Delete>`,
  );
  const what = 'remove objects';
  const answer = await client.send(
    {
      method: 'POST',
      what,
      query: { delete: '' },
      headers: {
        'Content-MD5': createHash('md5').update(body).digest('base64'),
        'Content-Type': 'application/xml',
      },
      body: {
        size: body.length,
        sha256: createHash('sha256').update(body).digest('hex'),
        open: async function* () {
          yield body;
        },
      },
    },
    signal,
  );
  if (answer.status !== 200) throw refusalOf(answer, what);
  const { removed, failed } = await deletionIn(answer.text);
  const answered = new Set([...removed, ...failed.map(({ key }) => key)]);
  const forgotten = [...names.keys()].find((name) => !answered.has(name));
  if (forgotten !== undefined) {
    throw new StoreUncertainError(`the store does not say whether it removed "${forgotten}"`, {
      key: names.get(forgotten) as string,
    });
  }
  return failed
    .filter(({ key, code }) => names.has(key) && code !== 'NoSuchKey')
    .map((one) => ({ ...one, key: names.get(one.key) as string }));
}

function passes({ code, message }: Failed): boolean {
  return isPassing({ status: 0, code, message });
}

function failureOfKey(failed: Failed): StoreAccessError | StoreUncertainError {
  const { key, code, message } = failed;
  const text = `the store does not remove "${key}": ${code} ${message}`;
  return passes(failed)
    ? new StoreUncertainError(text, { key })
    : new StoreAccessError(text, { key, hint: 'See the right to DeleteObject.' });
}

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;' };

function escaped(text: string): string {
  return text.replace(/[&<>]/g, (char) => ESCAPES[char] as string);
}
