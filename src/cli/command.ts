import type { Output } from './output.js';

/** The name a run goes by: walkeep's own, or the drop-in for PostgreSQL's tool. */
export type ProgramName = 'walkeep' | 'pg_receivewal';

/** One option of a command. One table serves the parser, yargs and the help texts. */
export interface OptionSpec {
  long: string;
  short?: string;
  /** Name of its argument in the help; absent: a switch. */
  argument?: string;
  /** Heading in the help. */
  group: string;
  help: string;
  default?: string;
  /** Runs at each occurrence, in command-line order as getopt loops do. @throws UsageError */
  check?(value: string): void;
}

/** Options as given (the last occurrence wins) or defaulted; a switch that was given is true. */
export type OptionValues = Readonly<Record<string, string | true | undefined>>;

export interface CommandContext {
  program: ProgramName;
  /** The hint below a misuse: where the help of the running command is. */
  tryHelp: string;
  output: Output;
  env: NodeJS.ProcessEnv;
}

/** A subcommand: parse flags, one library call, print. */
export interface Command {
  /** As shown after the program name in usage lines, e.g. `receive [OPTION]...`. */
  usage: string;
  /** Opens the help. */
  description: string;
  /** Somebody waits for its start: it does without yargs, whose loading takes longer than Node's. */
  light?: true;
  options(program: ProgramName): readonly OptionSpec[];
  /** @returns the exit code. Errors are thrown and reported by the caller. */
  run(values: OptionValues, operands: readonly string[], context: CommandContext): Promise<number>;
}

export const HELP_OPTION: OptionSpec = {
  long: 'help',
  short: '?',
  group: 'Options:',
  help: 'show this help, then exit',
};

export const VERSION_OPTION: OptionSpec = {
  long: 'version',
  short: 'V',
  group: 'Options:',
  help: 'output version information, then exit',
};

/** The hint below a misuse of `name`. */
export function tryHelp(name: string): string {
  return `Try "${name} --help" for more information.`;
}
