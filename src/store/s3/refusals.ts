import {
  StoreAccessError,
  StoreUncertainError,
  StoreUnsupportedError,
  type WalkeepError,
} from '../../errors.js';
import { oneLine } from '../../text.js';
import type { Refusal } from './answers.js';

/** Errors that pass, whatever status they come with. */
const PASSING = new Set([
  'BadDigest',
  'ConditionalRequestConflict',
  'IncompleteBody',
  'InternalError',
  'OperationAborted',
  'RequestLimitExceeded',
  'RequestTimeout',
  'ServerBusy',
  'ServiceUnavailable',
  'SlowDown',
  'Throttling',
  'ThrottlingException',
  'TooManyRequests',
  // What arrived are not the bytes that were sent: we proved them before.
  'XAmzContentSHA256Mismatch',
]);
const SLOW = /^(RequestLimitExceeded|ServerBusy|SlowDown|Throttling.*|TooManyRequests)$/;
/** The service does not know whom the credentials are of: newer ones may be known. */
const CREDENTIALS =
  /^(ExpiredToken|InvalidAccessKeyId|InvalidToken|SignatureDoesNotMatch|TokenRefreshRequired)$/;
const LOCKED = /^ObjectLocked$|object lock|retention|legal hold|\bWORM\b/i;

const HINTS: Readonly<Record<string, string>> = {
  AccessDenied:
    'The rights needed are GetObject, PutObject, DeleteObject and ListBucket; without ListBucket a service answers so for what is not there.',
  AllAccessDisabled: 'See the account of the bucket.',
  ExpiredToken: 'Renew the temporary credentials.',
  InvalidAccessKeyId: 'See whether the credentials are for this service.',
  InvalidBucketName: 'See the name of the bucket.',
  NoSuchBucket:
    'See the name of the bucket, the endpoint and the region; walkeep makes no buckets.',
  RequestTimeTooSkewed: "Set this machine's clock.",
  SignatureDoesNotMatch: 'See the secret key, and whether something on the way changes requests.',
};

/** How an answer that is none of what was asked for is called. */
export interface Answered extends Refusal {
  status: number;
}

export function isPassing({ status, code }: Answered): boolean {
  if (PASSING.has(code)) return true;
  if (status === 501 || status === 505) return false;
  return status >= 500 || status === 408 || status === 409 || status === 425 || status === 429;
}

/** The service wants fewer requests. */
export function isTooMuch({ status, code }: Answered): boolean {
  return status === 429 || status === 503 || SLOW.test(code);
}

export function wantsOtherCredentials({ code }: Answered): boolean {
  return CREDENTIALS.test(code);
}

/** It is not removed because it is held, as opposed to that we have no right to. */
export function isHeld({ code, message }: { code: string; message: string }): boolean {
  return LOCKED.test(code) || LOCKED.test(message);
}

/** What an answer says that is not what was asked for. `what`: what was to be done, as a verb. */
export function refusalOf(answered: Answered, what: string, key?: string): WalkeepError {
  const { status, code, message } = answered;
  const said = [code, message].filter(Boolean).map(oneLine).join(': ');
  const text = `the store does not ${what}: it answers ${status}${said && ` ${said}`}`;
  const details = { ...(key !== undefined && { key }) };
  if (isPassing(answered)) return new StoreUncertainError(text, details);
  if (status === 501 || code === 'NotImplemented') return new StoreUnsupportedError(text, details);
  const hint = HINTS[code] ?? (status === 403 ? HINTS.AccessDenied : elsewhere(answered));
  return new StoreAccessError(text, { ...details, ...(hint && { hint }) });
}

function elsewhere({ status, code, region }: Answered): string | undefined {
  if (region) return `The bucket is in the region ${region}: give it with region=.`;
  if (status < 400) return 'See the endpoint and the region of the bucket.';
  return code ? undefined : 'See whether the endpoint is a service of S3.';
}
