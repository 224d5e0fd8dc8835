import { UsageError } from '../../errors.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';

/** Which configuration a command is about. */
export const CONFIG_OPTION: OptionSpec = {
  long: 'config',
  short: 'c',
  argument: 'FILE',
  group: 'Options:',
  help: 'configuration of "walkeep serve"',
};

/** @throws UsageError unless it was given */
export function requireConfig(values: OptionValues, tryHelp: string): string {
  const { config } = values;
  if (typeof config === 'string') return config;
  throw new UsageError('no configuration specified (-c FILE)', { hint: tryHelp });
}
