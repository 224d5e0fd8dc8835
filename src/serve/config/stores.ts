import { StorageError, StoreAccessError } from '../../errors.js';
import { type OpenStoreOptions, openStore } from '../../store/open.js';
import type { CredentialSource } from '../../store/s3/credentials/source.js';
import type { ObjectStore } from '../../store/store.js';
import type { ServerStore } from './config.js';
import { readSecret } from './secret-file.js';

/** Where a store is, and who opens it. */
export type StoreAccess = Pick<ServerStore, 'place' | 'accessKeyFile' | 'secretKeyFile'>;

/** @throws UsageError, StoreAccessError */
export async function openServerStore(
  access: StoreAccess,
  options: OpenStoreOptions = {},
): Promise<ObjectStore> {
  const credentials = await keysInFiles(access);
  return openStore(access.place, { ...options, ...(credentials && { credentials }) });
}

/**
 * The keys in files: read at first use, and again when the store refuses them, so that they can be
 * replaced while this runs. Undefined where none are named.
 */
async function keysInFiles({
  accessKeyFile,
  secretKeyFile,
}: StoreAccess): Promise<CredentialSource | undefined> {
  if (accessKeyFile === undefined || secretKeyFile === undefined) return undefined;
  const { credentialsFrom } = await import('../../store/s3/credentials/credentials.js');
  return credentialsFrom(async () => ({
    accessKeyId: keyIn(accessKeyFile),
    secretAccessKey: keyIn(secretKeyFile),
  }));
}

/** One that cannot be read is no keys: it may just be replaced, and whoever asks tries again. */
function keyIn(file: string): string {
  try {
    return readSecret(file);
  } catch (cause) {
    if (!(cause instanceof StorageError)) throw cause;
    const { message, path, hint } = cause;
    throw new StoreAccessError(`there are no keys for the store: ${message}`, {
      cause,
      ...(path === undefined ? {} : { path }),
      ...(hint === undefined ? {} : { hint }),
    });
  }
}

/** The environment of this process, with the keys of a store that has them in files. @throws StorageError */
export function storeEnvironment({ accessKeyFile, secretKeyFile }: Omit<StoreAccess, 'place'>) {
  if (accessKeyFile === undefined || secretKeyFile === undefined) return process.env;
  const { AWS_SESSION_TOKEN, AWS_PROFILE, AWS_DEFAULT_PROFILE, ...others } = process.env;
  return {
    ...others,
    AWS_ACCESS_KEY_ID: readSecret(accessKeyFile),
    AWS_SECRET_ACCESS_KEY: readSecret(secretKeyFile),
  };
}
