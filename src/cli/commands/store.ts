import { fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { UsageError } from '../../errors.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import type { OptionSpec } from '../option-spec.js';

const GROUP = 'Options:';

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'init',
    group: GROUP,
    help: 'make a store of the directory, which need not be there',
  },
  {
    long: 'allow-group-access',
    group: GROUP,
    help: 'what is stored is readable for its group (with --init)',
  },
  {
    long: 'no-remove',
    group: GROUP,
    help: 'refuse to remove anything for who asks (with --stdio)',
  },
  {
    long: 'read-only',
    group: GROUP,
    help: 'refuse to store or remove anything for who asks (with --stdio)',
  },
  {
    long: 'stdio',
    group: GROUP,
    help: 'serve the directory on standard input and output',
  },
  VERSION_OPTION,
  HELP_OPTION,
];

/** `walkeep store`. What serves on stdout prints nothing else there. */
export const command: Command = {
  takesPlace: true,
  usage: 'store [OPTION]... DIR',
  description:
    'Makes a directory a store, or serves one to a walkeep on another host, which starts this over ' +
    'ssh for a place such as ssh://host/dir. In authorized_keys: command="walkeep store --stdio DIR ' +
    '--read-only".',
  options: () => OPTIONS,
  async run(values, operands, { output, tryHelp }) {
    const misuse = (message: string): UsageError => new UsageError(message, { hint: tryHelp });
    const [directory, extra] = operands;
    const init = values.init === true;
    const stdio = values.stdio === true;
    const role = { readOnly: values['read-only'] === true, noRemove: values['no-remove'] === true };
    if (directory === undefined) throw misuse('no directory specified');
    if (extra !== undefined) throw misuse(`too many command-line arguments (first is "${extra}")`);
    if (init === stdio) throw misuse('one of --init and --stdio must be given');
    if (init && (role.readOnly || role.noRemove)) {
      throw misuse('--read-only and --no-remove go with --stdio');
    }
    const path = resolve(directory);
    const allowGroupAccess = values['allow-group-access'] === true;
    if (allowGroupAccess && !init) throw misuse('--allow-group-access goes with --init');
    if (init) {
      const { beginStore } = await import('../../archive/places/begin-store.js');
      await beginStore(path, { allowGroupAccess });
      output.info(`directory "${path}" is a store`);
      return 0;
    }
    const { openFileStore } = await import('../../store/file/file-store.js');
    const { serveStore } = await import('../../store/stdio/server.js');
    await serveStore(() => openFileStore(path), { ...pipes(), directory: path, ...role });
    return 0;
  },
};

/** Those of the process would have it wait in each write for the other side. */
function pipes(): { input: Readable; output: Writable } {
  const isPipe = (fd: number) => fstatSync(fd).isFIFO() || fstatSync(fd).isSocket();
  if (!isPipe(1)) return { input: process.stdin, output: process.stdout };
  return { input: process.stdin, output: new Socket({ fd: 1, readable: false, writable: true }) };
}
