import { UsageError } from '../errors.js';
import { VERSION } from '../package.js';
import type { Command, CommandContext } from './command.js';
import { HELP_OPTION, PLACE_OPTION, tryHelp, VERSION_OPTION } from './command.js';
import { processStreams } from './file-output.js';
import { GetoptError, plainValues, scanArguments } from './getopt.js';
import type { OptionSpec, ProgramName } from './option-spec.js';
import { Output, type OutputStreams } from './output.js';

/**
 * What the drop-in claims to be. Barman and others compare the major with the server's and want
 * it not lower; `pg_receivewal --version` of PostgreSQL prints the same form.
 */
const POSTGRESQL_VERSION = '18.0';

/**
 * The commands, each loaded when it is asked for: start-up pays for nothing else. `failure` is the
 * exit code when an error is thrown, 1 unless given.
 */
const COMMANDS: Readonly<
  Record<string, { summary: string; failure?: number; load(): Promise<{ command: Command }> }>
> = {
  receive: {
    summary: 'receive WAL from a server and keep it',
    load: () => import('./commands/receive.js'),
  },
  backup: {
    summary: 'take a base backup of a server into its archive',
    load: () => import('./commands/backup.js'),
  },
  verify: {
    summary: 'check the WAL and the base backups that are kept',
    // 1 is what was found: not to be told from that would be no answer.
    failure: 2,
    load: () => import('./commands/verify.js'),
  },
  list: {
    summary: 'show what WAL is kept',
    load: () => import('./commands/list.js'),
  },
  find: {
    summary: 'find points to recover to in an archive',
    failure: 2,
    load: () => import('./commands/find.js'),
  },
  check: {
    summary: 'say whether an archive and its server are safe',
    failure: 2,
    load: () => import('./commands/check.js'),
  },
  push: {
    summary: 'store a WAL file, as archive_command',
    load: () => import('./commands/push.js'),
  },
  cleanup: {
    summary: 'remove WAL that is not needed any more',
    failure: 2,
    load: () => import('./commands/cleanup.js'),
  },
  backups: {
    summary: 'show base backups and what they can be restored to',
    load: () => import('./commands/backups.js'),
  },
  expire: {
    summary: 'remove base backups and WAL that nothing needs any more',
    load: () => import('./commands/expire.js'),
  },
  keep: {
    summary: 'pin a base backup, or let it go',
    load: () => import('./commands/keep.js'),
  },
  ship: {
    summary: 'ship WAL to object stores, hosts and directories',
    load: () => import('./commands/ship.js'),
  },
  slot: {
    summary: 'create, drop or list replication slots',
    load: () => import('./commands/slot.js'),
  },
  store: {
    summary: 'make a directory a store, or serve one over ssh',
    load: () => import('./commands/store.js'),
  },
  index: {
    summary: 'complete the index by which restores find their targets',
    failure: 2,
    load: () => import('./commands/index.js'),
  },
  key: {
    summary: 'say which identities open what is stored',
    failure: 2,
    load: () => import('./commands/key.js'),
  },
  restore: {
    summary: 'restore a server from a base backup and its WAL',
    load: () => import('./commands/restore.js'),
  },
  rehearse: {
    summary: 'prove that an archive can be restored, by doing it',
    failure: 2,
    load: () => import('./commands/rehearse.js'),
  },
  serve: {
    summary: 'keep the archives of many servers, as a configuration says',
    load: () => import('./commands/serve.js'),
  },
  status: {
    summary: 'say how the servers of a running serve are',
    // 1 is that one is not well.
    failure: 2,
    load: () => import('./commands/status.js'),
  },
  ctl: {
    summary: 'tell a running serve what to do',
    load: () => import('./commands/ctl.js'),
  },
  config: {
    summary: 'check the configuration of serve, or print its schema',
    load: () => import('./commands/config.js'),
  },
  fetch: {
    summary: 'bring a file from an archive, for restore_command',
    // Of wrong arguments; 1 would tell PostgreSQL that the archive does not have the file.
    failure: 200,
    load: () => import('./commands/fetch.js'),
  },
};

const TOP_LEVEL: readonly OptionSpec[] = [VERSION_OPTION, HELP_OPTION];

/**
 * Runs a command line, given without node and script.
 * @returns the exit code; errors are printed, never thrown
 */
export async function main(argv: string[], programName: ProgramName): Promise<number> {
  return runCli(argv, programName, processStreams(process));
}

/** `main` with its surroundings as arguments. */
export async function runCli(
  argv: readonly string[],
  program: ProgramName,
  streams: OutputStreams,
): Promise<number> {
  const output = new Output(program, streams);
  const context = { program, output, env: streams.env };
  const failure = (program === 'walkeep' && entryOf(argv[0])?.failure) || 1;
  let code: number;
  try {
    code =
      program === 'walkeep'
        ? await runWalkeep(argv, context)
        : await runCommand(await COMMANDS.receive!.load(), argv, context);
  } catch (error) {
    output.report(error);
    code = failure;
  }
  // An answer that did not arrive is none, whatever it was.
  return (await output.delivered()) ? code : failure;
}

/** What is known before the command is. */
type ProgramContext = Omit<CommandContext, 'tryHelp'>;

async function runWalkeep(argv: readonly string[], context: ProgramContext): Promise<number> {
  const hint = tryHelp('walkeep');
  const [name, ...rest] = argv;
  if (name === undefined) throw new UsageError('no command specified', { hint });
  if (name.startsWith('-')) {
    const wish = scan([name], TOP_LEVEL, hint).options[0]?.name;
    if (wish === undefined) throw new UsageError('no command specified', { hint });
    context.output.print(wish === 'version' ? versionLine('walkeep') : await topLevelHelp());
    return 0;
  }
  const entry = entryOf(name);
  if (!entry) throw new UsageError(`unrecognized command "${name}"`, { hint });
  return runCommand(await entry.load(), rest, context);
}

function entryOf(name: string | undefined) {
  return name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
}

async function topLevelHelp(): Promise<string> {
  const { programHelp } = await import('./yargs.js');
  return programHelp(COMMANDS, TOP_LEVEL);
}

async function runCommand(
  { command }: { command: Command },
  argv: readonly string[],
  context: ProgramContext,
): Promise<number> {
  const { program, output } = context;
  const own = command.options(program);
  const specs = command.takesPlace ? [PLACE_OPTION, ...own] : own;
  const name = program === 'walkeep' ? `walkeep ${command.usage.split(' ')[0]}` : program;
  // As the first argument these win over whatever follows, right or wrong.
  const first = ['--help', '-?', '--version', '-V'].includes(argv[0] ?? '');
  const hint = tryHelp(name);
  const scanned = scan(first ? argv.slice(0, 1) : argv, specs, hint);
  const wish = scanned.options.find((o) => o.name === 'help' || o.name === 'version')?.name;
  if (wish === 'version') {
    output.print(versionLine(program));
    return 0;
  }
  if (wish === 'help') {
    output.print(await helpOf(command, specs, program));
    return 0;
  }
  const values = command.light
    ? plainValues(scanned, specs)
    : (await import('./yargs.js')).optionValues(scanned, specs);
  const { operands } = scanned;
  const place = command.takesPlace && values.directory;
  const all = typeof place === 'string' ? [place, ...operands] : operands;
  return command.run(values, all, { ...context, tryHelp: hint });
}

/** scanArguments with a hint on its own complaints; an option's `check` speaks for itself. */
function scan(argv: readonly string[], specs: readonly OptionSpec[], hint: string) {
  try {
    return scanArguments(argv, specs);
  } catch (error) {
    throw error instanceof GetoptError ? new GetoptError(error.message, { hint }) : error;
  }
}

async function helpOf(
  command: Command,
  specs: readonly OptionSpec[],
  program: ProgramName,
): Promise<string> {
  if (program === 'walkeep') return (await import('./yargs.js')).commandHelp(command, specs);
  const { renderHelp } = await import('./help.js');
  return renderHelp(specs, {
    intro: `pg_receivewal streams a PostgreSQL server's write-ahead log into files.`,
    usage: 'pg_receivewal [OPTION]...',
    closing: 'This is walkeep under the name of the PostgreSQL tool that it stands in for.',
  });
}

function versionLine(program: ProgramName): string {
  return program === 'walkeep'
    ? `walkeep ${VERSION}`
    : `pg_receivewal (PostgreSQL) ${POSTGRESQL_VERSION} (walkeep ${VERSION})`;
}
