import { ConfigError, UsageError } from '../../errors.js';
import type { ControlRequest } from '../../serve/control/protocol.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import type { OptionValues } from '../option-spec.js';
import { CONTROL_OPTIONS, controlSocket } from '../serve/control-option.js';

/** `walkeep ctl` */
export const command: Command = {
  usage: 'ctl reload|pause|resume [OPTION]... [NAME]',
  description:
    'Tells a running "walkeep serve" what to do. reload: read its configuration again. pause: end the ' +
    'receiver of a server until resume. resume: go on with one that is paused or held.',
  options: () => [
    ...CONTROL_OPTIONS,
    {
      long: 'accept-gap',
      group: 'Options:',
      help: 'with resume: begin although WAL before it is missing; recorded',
    },
    VERSION_OPTION,
    HELP_OPTION,
  ],
  async run(values, operands, { output, env, tryHelp }) {
    const request = requestOf(values, operands, tryHelp);
    const socket = await controlSocket(values, env, tryHelp);
    const { askControl } = await import('../../serve/control/client.js');
    try {
      const result = await askControl(socket, request);
      if (request.command === 'reload') {
        const changes = Object.entries(result as Record<string, string[]>);
        const lines = changes.flatMap(([what, names]) =>
          names.length === 0 ? [] : [`${what}: ${names.join(', ')}`],
        );
        output.print(lines.join('\n'));
      }
      return 0;
    } catch (e) {
      if (!(e instanceof ConfigError)) throw e;
      const { faultLine } = await import('../../serve/config/fault.js');
      output.error(`${e.message}; all goes on as before`);
      output.print(e.faults.map((fault) => faultLine(e.path, fault)).join('\n'));
      return 1;
    }
  },
};

function requestOf(
  values: OptionValues,
  [command, server, ...more]: readonly string[],
  hint: string,
): ControlRequest {
  const misuse = (message: string): UsageError => new UsageError(message, { hint });
  const acceptGap = values['accept-gap'] === true;
  if (more.length > 0) throw misuse('more than one server named');
  if (acceptGap && command !== 'resume') throw misuse('--accept-gap is for resume only');
  if (command === 'reload') {
    if (server !== undefined) throw misuse('reload takes no server: it is for all');
    return { command };
  }
  if (command !== 'pause' && command !== 'resume') {
    throw misuse(
      command === undefined ? 'no action specified' : 'reload, pause or resume must be given',
    );
  }
  if (server === undefined) throw misuse(`${command} needs the name of a server`);
  return command === 'pause' ? { command, server } : { command, server, acceptGap };
}
