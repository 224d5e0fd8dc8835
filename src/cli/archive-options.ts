import { UsageError } from '../errors.js';
import { type Lsn, parseLsn } from '../lsn.js';
import { HELP_OPTION, VERSION_OPTION } from './command.js';
import { parseIntOption } from './numbers.js';
import type { OptionSpec, OptionValues } from './option-spec.js';

/** Options that every command on an archive directory ends its table with. */
export const ARCHIVE_OPTIONS: readonly OptionSpec[] = [
  { long: 'json', group: 'Options:', help: 'print one JSON object a line' },
  VERSION_OPTION,
  HELP_OPTION,
];

/** The one operand: the directory. @throws UsageError */
export function directoryOperand(operands: readonly string[], hint: string): string {
  const [directory, second] = operands;
  if (directory === undefined) throw new UsageError('no directory specified', { hint });
  if (second !== undefined) {
    throw new UsageError(`too many command-line arguments (first is "${second}")`, { hint });
  }
  return directory;
}

/** An LSN as the value of `option`; undefined if it is not given. @throws UsageError */
export function lsnOption(values: OptionValues, option: string): Lsn | undefined {
  const text = values[option];
  if (typeof text !== 'string') return undefined;
  try {
    return parseLsn(text);
  } catch (cause) {
    const hint = 'An LSN is written as X/X, in hexadecimal digits.';
    throw new UsageError(`invalid value "${text}" for option --${option}`, { cause, hint });
  }
}

/** A number from 1 on as the value of `option`; undefined if it is not given. @throws UsageError */
export function countOption(values: OptionValues, option: string, max: number): number | undefined {
  const text = values[option];
  return typeof text === 'string' ? parseIntOption(text, `--${option}`, 1, max) : undefined;
}
