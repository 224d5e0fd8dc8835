import { once } from 'node:events';
import { ConfigError, UsageError } from '../../errors.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import { CONFIG_OPTION, requireConfig } from '../serve/config-option.js';
import { logTo } from '../serve/log.js';
import { stopOnSignals } from '../signals.js';

/** `walkeep serve` */
export const command: Command = {
  usage: 'serve -c FILE',
  description:
    'Keeps the archives of all servers that a configuration names: receives WAL and ships it, takes ' +
    'backups, verifies, expires and rehearses at their times, and has a status page, metrics and ' +
    'alarms. Each receiver is a process of its own, which is begun again whenever it ends; one whose ' +
    'archive needs a person first is held. SIGHUP reads the configuration again and restarts what ' +
    'changed. "walkeep config check" looks for faults first.',
  options: () => [CONFIG_OPTION, VERSION_OPTION, HELP_OPTION],
  async run(values, operands, { output, env, tryHelp }) {
    if (operands.length > 0) {
      const message = `too many command-line arguments (first is "${operands[0]}")`;
      throw new UsageError(message, { hint: tryHelp });
    }
    const file = requireConfig(values, tryHelp);
    const { Service } = await import('../../serve/serve.js');
    const { signal, release } = stopOnSignals(output);
    const service = new Service({ file, env, tell: logTo(output) });
    // What is wrong is in the log.
    const reload = (): void => void service.reload().catch(() => {});
    process.on('SIGHUP', reload);
    try {
      await service.start();
      if (!signal.aborted) await once(signal, 'abort');
      await service.stop();
      return 0;
    } catch (e) {
      if (!(e instanceof ConfigError)) throw e;
      const { faultLine } = await import('../../serve/config/fault.js');
      for (const fault of e.faults) output.error(faultLine(file, fault));
      return 1;
    } finally {
      process.off('SIGHUP', reload);
      release();
    }
  },
};
