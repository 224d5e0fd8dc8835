import { StoreUncertainError } from '../../errors.js';
import { compareKeys, isKey, ListingOrder, requirePrefix } from '../key.js';
import type { Entry, ListOptions } from '../store.js';
import { type Page, pageIn } from './answers.js';
import type { S3Client } from './client.js';
import { refusalOf } from './refusals.js';

/** Page by page, each asked for when the one before is used up. */
export async function* listed(
  client: S3Client,
  prefix: string,
  { after, signal }: ListOptions,
): AsyncGenerator<Entry, void, void> {
  requirePrefix(prefix);
  const base = client.address.fullKey('');
  let next: Page['next'] = after === undefined ? undefined : { after: base + after };
  const order = new ListingOrder(base + prefix);
  do {
    const page = await pageAt(client, base + prefix, next, signal);
    for (const { key: fullKey, size, modified } of page.entries) {
      order.take(fullKey);
      const key = fullKey.slice(base.length);
      // Such as the empty object that stands for a folder: nothing that any store could have made.
      if (!isKey(key) || (after !== undefined && compareKeys(key, after) <= 0)) continue;
      yield { key, size, modified };
    }
    if (page.next && JSON.stringify(page.next) === JSON.stringify(next)) {
      throw new StoreUncertainError('the listing does not go on');
    }
    next = page.next;
  } while (next);
}

async function pageAt(
  client: S3Client,
  prefix: string,
  at: Page['next'],
  signal: AbortSignal | undefined,
): Promise<Page> {
  const what = 'list its objects';
  const answer = await client.send(
    {
      method: 'GET',
      what,
      query: {
        'list-type': '2',
        'encoding-type': 'url',
        ...(prefix && { prefix }),
        ...(at && 'token' in at && { 'continuation-token': at.token }),
        ...(at && 'after' in at && { 'start-after': at.after }),
      },
    },
    signal,
  );
  if (answer.status === 200) return pageIn(answer.text);
  throw refusalOf(answer, what);
}
