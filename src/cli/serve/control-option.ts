import { UsageError } from '../../errors.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import { CONFIG_OPTION } from './config-option.js';

/** Which running "walkeep serve" a command is about. */
export const CONTROL_OPTIONS: readonly OptionSpec[] = [
  { ...CONFIG_OPTION, help: 'configuration that it runs with, which names its control socket' },
  {
    long: 'socket',
    argument: 'PATH',
    group: 'Options:',
    help: 'its control socket, rather than what a configuration says',
  },
];

/** @throws UsageError, StorageError */
export async function controlSocket(
  values: OptionValues,
  env: NodeJS.ProcessEnv,
  tryHelp: string,
): Promise<string> {
  const { config, socket } = values;
  if (typeof socket === 'string') return socket;
  if (typeof config !== 'string') {
    const message = 'neither configuration (-c FILE) nor control socket (--socket) specified';
    throw new UsageError(message, { hint: tryHelp });
  }
  const { readControlSocket } = await import('../../serve/config/read.js');
  return readControlSocket(config, env);
}
