import { resolve } from 'node:path';
import type { ArchiveOptions } from '../../archive/places/open-archive.js';
import type { RecoveryTarget } from '../../archive/targets/target.js';
import { parseTarget } from '../../restore/target-text.js';
import { countOption } from '../archive-options.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import { keysOf } from '../place-options.js';

const GROUP = 'What to restore:';
const U32_MAX = 0xffff_ffff;
const MOST_JOBS = 64;

/** Of the commands that restore: what, and from where. */
export const TARGET_OPTIONS: readonly OptionSpec[] = [
  {
    ...{ long: 'to', argument: 'TARGET', group: GROUP },
    help:
      'latest, immediate (the end of the backup), a time, an LSN, xid:N, or name:X of a restore ' +
      'point (default: latest)',
  },
  { long: 'before', group: GROUP, help: 'stop just before that time, LSN or transaction' },
  {
    ...{ long: 'timeline', argument: 'N', group: GROUP },
    help: 'follow the way to timeline N (default: the newest)',
  },
  {
    ...{ long: 'backup', argument: 'ID', group: GROUP },
    help: 'from this backup (default: the newest from which a way leads there)',
  },
];

export const JOBS_OPTION: OptionSpec = {
  ...{ long: 'jobs', short: 'j', argument: 'N', group: 'Options:' },
  help: 'unpack with N threads (default: 2)',
};

/** What those options say. */
export interface TargetArguments {
  target: RecoveryTarget;
  timeline: number | undefined;
  backup: string | undefined;
  jobs: number | undefined;
  /** File names that are the same from everywhere: the server runs elsewhere. */
  keys: ArchiveOptions;
}

/**
 * @returns also whether the target is a time without a zone
 * @throws UsageError, ParseError
 */
export function targetArguments(values: OptionValues): TargetArguments & { zoneTaken: boolean } {
  const to = textOption(values, 'to') ?? 'latest';
  const { identityFiles, ...keys } = keysOf(values) ?? {};
  return {
    ...parseTarget(to, values.before === true),
    timeline: countOption(values, 'timeline', U32_MAX),
    backup: textOption(values, 'backup'),
    jobs: countOption(values, 'jobs', MOST_JOBS),
    keys: {
      ...keys,
      ...(identityFiles ? { identityFiles: identityFiles.map((file) => resolve(file)) } : {}),
    },
  };
}

export function textOption(values: OptionValues, name: string): string | undefined {
  const value = values[name];
  return typeof value === 'string' ? value : undefined;
}

/** A path that is the same from everywhere. */
export function pathOption(values: OptionValues, name: string): string | undefined {
  const value = textOption(values, name);
  return value === undefined ? undefined : resolve(value);
}
