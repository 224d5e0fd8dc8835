import {
  DiskFullError,
  StoreAccessError,
  StoreUncertainError,
  WalkeepError,
} from '../../errors.js';
import { reason } from '../../files/durable.js';

/** What asking again does not change: rights, or something else where an archive should be. */
const REFUSED: readonly (string | undefined)[] = [
  'EACCES',
  'EPERM',
  'EROFS',
  'ELOOP',
  'ENOENT',
  'ENOTDIR',
  'EISDIR',
  'EFTYPE',
  'ENAMETOOLONG',
];

/** A failed call on the files of a store as the error it means; it is never "not there". */
export function fileError(action: string, path: string, cause: unknown, key?: string): Error {
  if (cause instanceof WalkeepError) return cause;
  const error = cause as NodeJS.ErrnoException;
  // Not a file system's: a defect.
  if (error.code === undefined) return error;
  const message = `could not ${action} "${path}": ${reason(error)}`;
  const details = { path, cause, ...(key === undefined ? {} : { key }) };
  if (error.code === 'ENOSPC' || error.code === 'EDQUOT') {
    return new DiskFullError(message, details);
  }
  if (REFUSED.includes(error.code)) return new StoreAccessError(message, details);
  return new StoreUncertainError(message, details);
}

/** For `catch`. */
export function as(action: string, path: string, key?: string): (cause: unknown) => never {
  return (cause) => {
    throw fileError(action, path, cause, key);
  };
}
