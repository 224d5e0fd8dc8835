import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { S3Store, type S3StoreOptions } from '../../../src/store/s3/store.js';
import type { ObjectStore } from '../../../src/store/store.js';
import type { Rgw } from '../../support/rgw.js';
import type { Keys } from '../../support/s3-request.js';

export interface StoreSettings extends Omit<S3StoreOptions, 'env'> {
  /** Instead of the gateway itself, such as a proxy before it. */
  endpoint?: string;
  /** Whose; the bucket's owner's otherwise. */
  keys?: Keys;
  /** Further parameters of the place. */
  parameters?: string;
}

/** A bucket of a gateway as a store. */
export function openStore(rgw: Rgw, bucket: string, settings: StoreSettings = {}): S3Store {
  const { endpoint = rgw.facts.http, keys = rgw.owner, parameters = '', ...options } = settings;
  const place = parsePlace(`s3://${bucket}?endpoint=${endpoint}${parameters}`) as S3Place;
  return new S3Store(place, { ...options, env: environmentOf(keys) });
}

export const environmentOf = (keys: Keys) => ({
  AWS_ACCESS_KEY_ID: keys.accessKeyId,
  AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
});

/** All bytes of an object; undefined where it is absent. */
export async function bytesOf(store: ObjectStore, key: string): Promise<Buffer | undefined> {
  const got = await store.get(key);
  if (!got) return undefined;
  const parts: Uint8Array[] = [];
  for await (const part of got.body) parts.push(part);
  return Buffer.concat(parts);
}
