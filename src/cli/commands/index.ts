import type { UpdatedIndex } from '../../archive/index/update.js';
import { countOption, directoryOperand } from '../archive-options.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import { jsonLine } from '../json.js';
import type { OptionSpec } from '../option-spec.js';
import { absolutePlace, KEY_OPTIONS, keysOf } from '../place-options.js';
import { listOption, recipientsFrom } from '../ship-options.js';
import { stopOnSignals } from '../signals.js';

const GROUP = 'Options:';

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'limit',
    argument: 'N',
    group: GROUP,
    help: 'make N objects at most, the newest first',
  },
  {
    long: 'recipient',
    argument: 'age1…',
    many: true,
    group: GROUP,
    help: 'encrypt to this age recipient; may be given several times',
  },
  {
    long: 'recipients-file',
    argument: 'FILE',
    many: true,
    group: GROUP,
    help: 'encrypt to the age recipients in this file, one a line',
  },
  { long: 'json', group: GROUP, help: 'print one JSON object' },
  ...KEY_OPTIONS,
  VERSION_OPTION,
  HELP_OPTION,
];

/** `walkeep index`. Exit code 1: some WAL is not good and got none, 2: it could not be done. */
export const command: Command = {
  takesPlace: true,
  usage: 'index [OPTION]... PLACE',
  description:
    'Completes the index of the WAL in an archive: which transactions and restore points are in ' +
    'which segments, and the times of commits, one object for 32 segments. Restores find their ' +
    'targets by it. "walkeep ship" and "walkeep backup" keep it up as they go; what it lacks is read ' +
    'from the WAL.',
  options: () => OPTIONS,
  async run(values, operands, { output, tryHelp }) {
    const place = absolutePlace(directoryOperand(operands, tryHelp));
    const limit = countOption(values, 'limit', Number.MAX_SAFE_INTEGER);
    const recipients = [
      ...listOption(values, 'recipient'),
      ...(await recipientsFrom(listOption(values, 'recipients-file'))),
    ];
    const { updateIndexAt } = await import('../../archive/index/update-place.js');
    const { signal, release } = stopOnSignals(output);
    try {
      const updated = await updateIndexAt(place, {
        ...{ keys: keysOf(values), recipients, limit, signal },
        onObject: (key) => {
          if (output.live) output.status(`made ${key}`);
        },
      });
      output.clearStatus();
      for (const { segment, why } of updated.unsound) {
        output.warning(`no index is made of the 32 segments around ${segment}: ${why}`);
      }
      output.print(values.json === true ? jsonLine(updated) : summary(updated));
      return updated.unsound.length > 0 ? 1 : 0;
    } catch (error) {
      output.clearStatus();
      if (!signal.aborted) throw error;
      output.error('interrupted: what was made stays');
      return 2;
    } finally {
      release();
    }
  },
};

function summary({ created, present, left }: UpdatedIndex): string {
  const rest = left === 0 ? '' : `, ${left} left for the next time`;
  return `${created} made, ${present} there already${rest}`;
}
