import { UsageError } from '../../errors.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import { KEY_OPTIONS, keysOf } from '../place-options.js';
import { stopOnSignals } from '../signals.js';

const SYSTEM = KEY_OPTIONS.filter((option) => option.long === 'system-id');

/** `walkeep keep` */
export const command: Command = {
  takesPlace: true,
  usage: 'keep [OPTION]... PLACE BACKUP',
  description:
    'Pins a base backup: "walkeep expire" leaves it, what it is based on, and the WAL from its ' +
    'start to its end, so that it can be restored to its end for ever.',
  options: () => [
    { long: 'remove', group: 'Options:', help: 'let it go again' },
    ...SYSTEM,
    VERSION_OPTION,
    HELP_OPTION,
  ],
  async run(values, operands, { output, tryHelp }) {
    const [place, id, extra] = operands;
    if (place === undefined || id === undefined) {
      throw new UsageError(`no ${place === undefined ? 'place' : 'backup'} specified`, {
        hint: tryHelp,
      });
    }
    if (extra !== undefined) {
      throw new UsageError(`too many command-line arguments (first is "${extra}")`, {
        hint: tryHelp,
      });
    }
    const remove = values.remove === true;
    const { keepBackup } = await import('../../expire/keep.js');
    const { signal, release } = stopOnSignals(output);
    try {
      const onWait = (expire: string) => output.info(`waiting for ${expire}, which is running`);
      const changed = await keepBackup(place, id, { ...keysOf(values), remove, signal, onWait });
      const so = remove ? 'is not kept any more' : 'is kept until it is let go';
      output.info(
        changed
          ? `backup ${id} ${so}`
          : `backup ${id} ${remove ? 'was not kept' : 'is kept already'}`,
      );
      return 0;
    } catch (error) {
      if (!signal.aborted) throw error;
      output.error('interrupted');
      return 1;
    } finally {
      release();
    }
  },
};
