import { StoreAccessError } from '../../../errors.js';
import type { S3Place } from '../../place.js';

/** What signs requests. */
export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  /** Of temporary ones. */
  sessionToken?: string;
  /** When they stop being accepted; undefined: never, as far as their source says. */
  expiration?: Date;
}

export interface CredentialSource {
  /** Ones to sign the next request with; a source keeps and renews them itself. */
  get(signal?: AbortSignal): Promise<Credentials>;
  /** The store refused the last ones: the next `get` asks their origin again. */
  invalidate(): void;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Chooses where the credentials of a place come from. Nothing is asked before the first `get`. */
export function resolveCredentials(_place: S3Place, env: Environment): CredentialSource {
  return {
    get: async () => fromEnvironment(env),
    invalidate: () => {},
  };
}

function fromEnvironment(env: Environment): Credentials {
  const accessKeyId = env.AWS_ACCESS_KEY_ID;
  const secretAccessKey = env.AWS_SECRET_ACCESS_KEY;
  if (!accessKeyId || !secretAccessKey) {
    throw new StoreAccessError('there are no credentials for the object store', {
      hint: 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.',
    });
  }
  const sessionToken = env.AWS_SESSION_TOKEN;
  return { accessKeyId, secretAccessKey, ...(sessionToken && { sessionToken }) };
}
