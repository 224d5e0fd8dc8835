import { ConfigError, UsageError } from '../../errors.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import { CONFIG_OPTION, requireConfig } from '../serve/config-option.js';

const ACTIONS = ['check', 'schema'] as const;

/** `walkeep config` */
export const command: Command = {
  usage: 'config check|schema [OPTION]...',
  description:
    'check says all that is wrong with a configuration of "walkeep serve", each fault with file, line ' +
    'and column. schema prints its JSON Schema, for editors.',
  options: () => [CONFIG_OPTION, VERSION_OPTION, HELP_OPTION],
  async run(values, operands, { output, env, tryHelp }) {
    const [word, ...rest] = operands;
    const action = ACTIONS.find((one) => one === word);
    if (!action || rest.length > 0) {
      const message = word === undefined ? 'no action specified' : 'check or schema must be given';
      throw new UsageError(message, { hint: tryHelp });
    }
    if (action === 'schema') {
      const { jsonSchema } = await import('../../serve/config/model.js');
      output.print(JSON.stringify(jsonSchema(), null, 2));
      return 0;
    }
    const file = requireConfig(values, tryHelp);
    const { readConfig } = await import('../../serve/config/read.js');
    const { faultLine } = await import('../../serve/config/fault.js');
    try {
      const { servers } = await readConfig(file, env);
      const count = servers.length === 1 ? '1 server' : `${servers.length} servers`;
      output.print(`${file}: valid, ${count}`);
      return 0;
    } catch (e) {
      if (!(e instanceof ConfigError)) throw e;
      output.print(e.faults.map((fault) => faultLine(file, fault)).join('\n'));
      return 1;
    }
  },
};
