import { resolve } from 'node:path';
import type { ArchiveOptions } from '../archive/places/open-archive.js';
import { UsageError } from '../errors.js';
import type { OptionSpec, OptionValues } from './option-spec.js';

export const SYSTEM_ID: OptionSpec = {
  long: 'system-id',
  argument: 'ID',
  group: 'Options:',
  help: 'of several clusters in a store, the one of this system identifier',
  check: (value) => void parseSystemId(value),
};

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
  SYSTEM_ID,
];

/** @throws UsageError */
function parseSystemId(text: string): bigint {
  if (/^[1-9]\d{0,19}$/.test(text)) return BigInt(text);
  throw new UsageError(`invalid value "${text}" for option --system-id`, {
    hint: 'pg_controldata and "walkeep list" print it: a number of up to 20 digits.',
  });
}

/** Undefined if none are given. */
export function keysOf(values: OptionValues): ArchiveOptions | undefined {
  const { identity, 'identity-command': identityCommand, 'system-id': systemId } = values;
  const keys: ArchiveOptions = {
    ...(typeof identity === 'string' ? { identityFiles: [identity] } : {}),
    ...(typeof identityCommand === 'string' ? { identityCommand } : {}),
    ...(typeof systemId === 'string' ? { systemId: parseSystemId(systemId) } : {}),
  };
  return Object.keys(keys).length > 0 ? keys : undefined;
}

/** A directory that is the same from everywhere; the URL of a store is so already. */
export function absolutePlace(text: string): string {
  return /^[a-z][a-z0-9+.-]+:\/\//i.test(text) ? text : resolve(text);
}
