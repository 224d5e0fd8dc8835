import type { OptionSpec, OptionValues, ProgramName } from './option-spec.js';
import type { Output } from './output.js';

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
  /** Its first operand is a place, which may as well be given with `-D`. */
  takesPlace?: true;
  options(program: ProgramName): readonly OptionSpec[];
  /** @returns the exit code. Errors are thrown and reported by the caller. */
  run(values: OptionValues, operands: readonly string[], context: CommandContext): Promise<number>;
}

export const PLACE_OPTION: OptionSpec = {
  long: 'directory',
  short: 'D',
  argument: 'PLACE',
  group: 'Options:',
  help: 'the first place, instead of naming it without an option',
};

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
