import type { WalkeepError } from '../errors.js';
import { type Place, parsePlace } from './place.js';
import type { CredentialSource } from './s3/credentials/source.js';
import type { ObjectStore } from './store.js';

export interface OpenStoreOptions {
  /** Makes the directory if there is none. A bucket is never made. */
  init?: boolean | undefined;
  /**
   * Takes also a service that cannot create only what is absent. With more than one writer objects
   * can then be overwritten.
   */
  unfenced?: boolean | undefined;
  /** Milliseconds after which a request, or a call with all its repetitions, has failed. */
  patience?: { attempt?: number; whole?: number } | undefined;
  /** Told of each attempt that failed and is repeated; a store that repeats none tells of none. */
  failing?: ((error: WalkeepError) => void) | undefined;
  /** Where credentials, proxies and defaults are looked for; that of the process. */
  env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Of S3, instead of those that are looked for. */
  credentials?: CredentialSource | undefined;
}

/**
 * Opens the store that a place names. Each kind is loaded only where it is used.
 * @throws UsageError, StoreAccessError
 */
export async function openStore(
  place: Place | string,
  options: OpenStoreOptions = {},
): Promise<ObjectStore> {
  const named = typeof place === 'string' ? parsePlace(place) : place;
  switch (named.kind) {
    case 'directory': {
      const { openFileStore } = await import('./file/file-store.js');
      return openFileStore(named.path, { init: options.init ?? false });
    }
    case 's3': {
      const { S3Store } = await import('./s3/store.js');
      return new S3Store(named, options);
    }
    case 'ssh': {
      const { openSshStore } = await import('./ssh/ssh-store.js');
      const { env, patience: { attempt, whole } = {} } = options;
      return openSshStore(named, {
        ...(env && { env }),
        ...(attempt !== undefined && { silence: attempt }),
        ...(whole !== undefined && { timeout: whole }),
      });
    }
  }
}
