import { ConfigError, UsageError } from '../../errors.js';
import type { ControlRequest, ControlResults } from '../../serve/control/protocol.js';
import type { RunReport } from '../../serve/jobs/request.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import type { OptionValues } from '../option-spec.js';
import type { Output } from '../output.js';
import { CONTROL_OPTIONS, controlSocket } from '../serve/control-option.js';
import { awaitRuns, JOB_OPTIONS, jobRequest } from '../serve/run-jobs.js';

/** `walkeep ctl` */
export const command: Command = {
  usage: 'ctl COMMAND [OPTION]... [NAME]',
  description:
    'Tells a running "walkeep serve" what to do. reload: read its configuration again. pause: end the ' +
    'receiver of a server until resume. resume: go on with one that is paused or held. verify, ' +
    'backup, expire, rehearse: begin that job of a server as soon as it may. cancel: end the jobs ' +
    'of a server that run or wait.',
  options: () => [
    ...CONTROL_OPTIONS,
    {
      long: 'accept-gap',
      group: 'Options:',
      help: 'with resume: begin although WAL before it is missing; recorded',
    },
    ...JOB_OPTIONS,
    VERSION_OPTION,
    HELP_OPTION,
  ],
  async run(values, operands, { output, env, tryHelp }) {
    const request = requestOf(values, operands, tryHelp);
    const socket = await controlSocket(values, env, tryHelp);
    const { askControl } = await import('../../serve/control/client.js');
    try {
      const result = await askControl(socket, request);
      if (request.command === 'reload') printChanges(output, result as ControlResults['reload']);
      if (request.command !== 'run' && request.command !== 'cancel') return 0;
      const { runs } = result as { runs: RunReport[] };
      if (request.command === 'run' && values.wait === true) {
        const ask = async (ids: number[]) => {
          return (await askControl(socket, { command: 'runs' as const, ids })).runs;
        };
        return await awaitRuns(runs, ask, { output, kind: request.request.job });
      }
      const what = request.command === 'cancel' ? 'is ended' : undefined;
      if (runs.length === 0) output.print('nothing runs or waits');
      else
        output.print(
          runs.map((run) => `${run.job} (${run.place}): ${what ?? run.state}`).join('\n'),
        );
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

function printChanges(output: Output, changed: ControlResults['reload']): void {
  const lines = Object.entries(changed).flatMap(([what, names]) =>
    names.length === 0 ? [] : [`${what}: ${names.join(', ')}`],
  );
  output.print(lines.join('\n'));
}

function requestOf(
  values: OptionValues,
  [command, server, ...more]: readonly string[],
  hint: string,
): ControlRequest {
  const misuse = (message: string): UsageError => new UsageError(message, { hint });
  const acceptGap = values['accept-gap'] === true;
  if (more.length > 0) throw misuse('more than one server named');
  if (acceptGap && command !== 'resume') throw misuse('--accept-gap is for resume only');
  const request = jobRequest(command, values, hint);
  if (command === 'reload') {
    if (server !== undefined) throw misuse('reload takes no server: it is for all');
    return { command };
  }
  const known = command === 'pause' || command === 'resume' || command === 'cancel';
  if (!known && !request) {
    throw misuse(
      command === undefined ? 'no command specified' : `unrecognized command "${command}"`,
    );
  }
  if (server === undefined) throw misuse(`${command} needs the name of a server`);
  if (request) return { command: 'run', server, request };
  return command === 'resume'
    ? { command, server, acceptGap }
    : { command: command as 'pause' | 'cancel', server };
}
