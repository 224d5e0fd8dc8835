import { UsageError } from '../../errors.js';
import { inWords } from '../../text.js';
import { COMPRESSIONS, compressionSuffix } from '../../wal/file-name.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import type { OptionSpec } from '../option-spec.js';
import { keysOf, SYSTEM_ID } from '../place-options.js';

const GROUP = 'Options:';

const SUFFIXES = COMPRESSIONS.map(compressionSuffix).filter((suffix) => suffix !== '');

/** Those of pg_archivecleanup, with their letters. */
const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'clean-backup-history',
    short: 'b',
    group: GROUP,
    help: 'clean up backup history files too',
  },
  { long: 'debug', short: 'd', group: GROUP, help: 'tell what is kept and what is removed' },
  {
    long: 'dry-run',
    short: 'n',
    group: GROUP,
    help: 'show the names of the files that would be removed',
  },
  SYSTEM_ID,
  VERSION_OPTION,
  {
    long: 'strip-extension',
    short: 'x',
    argument: 'EXT',
    group: GROUP,
    help: `strip this before identifying files; ${inWords(SUFFIXES, 'and')} are known`,
  },
  HELP_OPTION,
];

/** `walkeep cleanup`. Exit code 1: a file could not be removed, 2: nothing was tried. */
export const command: Command = {
  takesPlace: true,
  usage: 'cleanup [OPTION]... PLACE OLDESTKEPTWALFILE',
  description:
    'Removes older WAL files from an archive as pg_archivecleanup does, compressed ones too, for ' +
    'archive_cleanup_command: walkeep cleanup DIR %r. The second argument is the oldest segment ' +
    'to keep: its name, or that of a .partial or .backup file.',
  options: () => OPTIONS,
  async run(values, operands, { output, tryHelp }) {
    const misuse = (message: string): UsageError => new UsageError(message, { hint: tryHelp });
    const [directory, oldest, extra] = operands;
    if (directory === undefined) throw misuse('must specify archive location');
    if (oldest === undefined) throw misuse('must specify oldest kept WAL file');
    if (extra !== undefined) throw misuse('too many command-line arguments');
    const { cleanupArchive, planCleanup } = await import('../../cleanup/cleanup.js');
    const extension = values['strip-extension'];
    const options = {
      cleanBackupHistory: values['clean-backup-history'] === true,
      stripExtension: typeof extension === 'string' ? extension : undefined,
    };
    const plan = await planCleanup(directory, oldest, options, keysOf(values));
    const debug = (message: string): void => {
      if (values.debug === true) output.info(message);
    };
    debug(`keeping WAL file "${directory}/${plan.oldest}" and later`);
    if (values['dry-run'] === true) {
      for (const name of plan.remove) {
        // Put together as pg_archivecleanup does, for programs that read it.
        output.print(`${directory}/${name}`);
        debug(`file "${directory}/${name}" would be removed`);
      }
      return 0;
    }
    try {
      const told = (path: string): void => debug(`removing file "${path}"`);
      const { retained } = await cleanupArchive(plan, told, keysOf(values));
      const [first, ...more] = retained;
      if (first !== undefined) {
        output.warning(
          `the store retains ${first}${more.length > 0 ? ` and ${more.length} more` : ''}`,
          'A lock keeps them for a while: the same command removes them when that has ended.',
        );
      }
      return 0;
    } catch (error) {
      output.report(error);
      return 1;
    }
  },
};
