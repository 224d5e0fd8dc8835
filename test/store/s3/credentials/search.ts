import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parsePlace, type S3Place } from '../../../../src/store/place.js';
import {
  resolveCredentials,
  resolveRegion,
} from '../../../../src/store/s3/credentials/credentials.js';
import type { SurroundingsOptions } from '../../../../src/store/s3/credentials/source.js';
import { scratchDir } from '../../../support/scratch.js';
import { SECRET } from './endpoint.js';

export interface Search {
  place?: string;
  env?: Record<string, string>;
  /** Contents of `~/.aws/config` and `~/.aws/credentials`. */
  config?: string;
  credentials?: string;
  options?: SurroundingsOptions;
}

/** A home with shared files, and nothing of ours; the metadata service is off unless it is named. */
export function searchOf({
  place = 's3://bucket',
  env = {},
  config,
  credentials,
  options,
}: Search) {
  const home = scratchDir('home');
  mkdirSync(join(home, '.aws'));
  if (config !== undefined) writeFileSync(join(home, '.aws', 'config'), config);
  if (credentials !== undefined) writeFileSync(join(home, '.aws', 'credentials'), credentials);
  const metadata = env.AWS_EC2_METADATA_SERVICE_ENDPOINT ? {} : OFF;
  const all = { HOME: home, PATH: process.env.PATH, ...metadata, ...env };
  const parsed = parsePlace(place) as S3Place;
  // A busy machine takes its time; who tests silence says how long.
  const given = { timeoutMs: 60_000, ...options };
  return {
    home,
    source: resolveCredentials(parsed, all, given),
    region: () => resolveRegion(parsed, all, given),
  };
}

const OFF = { AWS_EC2_METADATA_DISABLED: 'true' };

export const find = (search: Search) => searchOf(search).source.get();

/** What a search fails with; in nothing of it is a secret. */
export async function failureOf(search: Search): Promise<Error & Record<string, unknown>> {
  const error = await find(search).then(
    () => undefined,
    (error) => error,
  );
  if (!error) throw new Error('it found credentials');
  for (let e = error; e; e = e.cause) {
    const all = [e.message, e.stack, JSON.stringify(e, Object.getOwnPropertyNames(e))].join('\n');
    for (const secret of [SECRET, 'token of ', 'web-identity-token']) {
      if (all.includes(secret)) throw new Error(`a secret is in the error: ${all}`);
    }
  }
  return error;
}
