import { StoreUncertainError } from '../../../errors.js';
import type { Credentials } from './source.js';

/** A date with its time and zone, as RFC 3339 writes it. */
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)$/;

const INVALID = new Date(Number.NaN);

/**
 * Credentials in the fields that all of AWS's endpoints give them. Nothing of the answer is quoted:
 * which part of a wrong one is the secret cannot be known.
 * @param from who answered, for messages
 */
export function credentialsOf(fields: unknown, from: string): Credentials {
  const { AccessKeyId, SecretAccessKey, Token, SessionToken, Expiration } = (fields ??
    {}) as Record<string, unknown>;
  if (!isText(AccessKeyId) || !isText(SecretAccessKey)) {
    throw new StoreUncertainError(`${from} answered something that is no credentials`);
  }
  const credentials: Credentials = { accessKeyId: AccessKeyId, secretAccessKey: SecretAccessKey };
  const token = Token ?? SessionToken;
  if (isText(token)) credentials.sessionToken = token;
  if (Expiration === undefined || Expiration === null || Expiration === '') return credentials;
  const expiration =
    isText(Expiration) && INSTANT.test(Expiration) ? new Date(Expiration) : INVALID;
  if (Number.isNaN(expiration.getTime())) {
    throw new StoreUncertainError(`${from} does not say clearly when its credentials end`);
  }
  return { ...credentials, expiration };
}

/** The same where the answer is JSON. */
export function credentialsInJson(body: string, from: string): Credentials {
  return credentialsOf(jsonOf(body), from);
}

/** Undefined for what is no JSON: an error of JSON.parse quotes what it read. */
export function jsonOf(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}
