import { UsageError } from '../../errors.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import type { OptionSpec } from '../option-spec.js';
import { PUSHED_OPTIONS, recipientsFrom, storedOptions } from '../ship-options.js';

const GROUP = 'Options:';

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'directory',
    short: 'D',
    argument: 'DIR',
    group: GROUP,
    help: 'the archive, instead of the first argument',
  },
  {
    long: 'no-verify',
    group: GROUP,
    help: 'store a segment as it comes, whatever its records are like',
  },
  ...PUSHED_OPTIONS,
  { long: 'verbose', short: 'v', group: GROUP, help: 'tell what became of the file' },
  VERSION_OPTION,
  HELP_OPTION,
];

/** `walkeep push`. Exit code 0: the content is durable in the archive. */
export const command: Command = {
  usage: 'push [OPTION]... PLACE FILE',
  description:
    'Stores a WAL file in an archive, a directory or a store, for archive_command: ' +
    'walkeep push PLACE %p. ' +
    'Succeeds if the archive already has the same; never replaces what differs. A damaged segment ' +
    'is refused, one whose WAL stops is kept as partial. Works beside a receiver on the same ' +
    'directory.',
  light: true,
  options: () => OPTIONS,
  async run(values, operands, { output, tryHelp }) {
    const given = typeof values.directory === 'string' ? [values.directory, ...operands] : operands;
    const [directory, path, extra] = given;
    const misuse = (message: string): UsageError => new UsageError(message, { hint: tryHelp });
    if (!directory) throw misuse('no directory specified');
    if (!path) throw misuse('no file specified');
    if (extra !== undefined) {
      throw misuse(`too many command-line arguments (first is "${extra}")`);
    }
    const { recipientFiles, ...stored } = storedOptions(values);
    const recipients = [...stored.recipients, ...(await recipientsFrom(recipientFiles))];
    const { pushFile } = await import('../../push/push.js');
    const { outcome, name } = await pushFile(directory, path, {
      ...stored,
      recipients,
      verify: values['no-verify'] !== true,
    });
    if (outcome === 'aside') {
      output.warning(
        `"${path}" does not agree with what is in the archive and was kept as "${name}"`,
        'Two servers wrote this segment; check with "walkeep verify" which one recovery should use.',
      );
    } else if (outcome === 'apart') {
      output.warning(
        `"${path}" is of a timeline that the archive was never on and has passed by; it was kept as "${name}"`,
        'If this server is a clone, take the archive out of its archive_command.',
      );
    } else if (values.verbose === true) output.info(`${name}: ${TOLD[outcome]}`);
    return 0;
  },
};

const TOLD = {
  stored: 'stored',
  present: 'the archive has it already',
  extended: 'replaced a partial file that had less of it',
  mended: 'replaced a damaged file of that name',
  beside: 'stored beside a partial file that has less of it',
};
