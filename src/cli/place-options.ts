import { resolve } from 'node:path';
import type { ArchiveKeys } from '../archive/places/open-archive.js';
import type { OptionSpec, OptionValues } from './option-spec.js';

/** Of the commands that read what may be encrypted. */
export const KEY_OPTIONS: readonly OptionSpec[] = [
  {
    long: 'identity',
    argument: 'FILE',
    group: 'Options:',
    help: 'open what is encrypted with the age identities in FILE',
  },
  {
    long: 'identity-command',
    argument: 'COMMAND',
    group: 'Options:',
    help: 'or with those that COMMAND prints, which is run without a shell',
  },
];

/** Undefined if none are given. */
export function keysOf(values: OptionValues): ArchiveKeys | undefined {
  const { identity, 'identity-command': identityCommand } = values;
  const keys: ArchiveKeys = {
    ...(typeof identity === 'string' ? { identityFiles: [identity] } : {}),
    ...(typeof identityCommand === 'string' ? { identityCommand } : {}),
  };
  return Object.keys(keys).length > 0 ? keys : undefined;
}

/** A directory that is the same from everywhere; the URL of a store is so already. */
export function absolutePlace(text: string): string {
  return /^[a-z][a-z0-9+.-]+:\/\//i.test(text) ? text : resolve(text);
}
