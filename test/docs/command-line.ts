import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from '../../src/cli/command.js';
import { findArguments } from '../../src/cli/find-options.js';
import { plainValues, scanArguments } from '../../src/cli/getopt.js';
import type { ProgramName } from '../../src/cli/option-spec.js';
import { receiveArguments } from '../../src/cli/receive-options.js';
import { packageRoot } from '../support/scratch.js';

const names = readdirSync(join(packageRoot, 'src', 'cli', 'commands')).map((file) =>
  file.slice(0, -3),
);

/** Every command, as the program runs it. */
export const COMMANDS = new Map<string, Command>(
  await Promise.all(
    names.map(async (name) => {
      const { command } = (await import(`../../src/cli/commands/${name}.ts`)) as {
        command: Command;
      };
      return [name, command] as const;
    }),
  ),
);

/** Parses the words of a command line as the program does. @throws UsageError */
export function parse(words: readonly string[]): void {
  const [program, ...rest] = words as [ProgramName, ...string[]];
  const drop = program === 'pg_receivewal';
  const name = drop ? 'receive' : rest.shift();
  if (name === '--version' || name === '--help') return;
  const command = COMMANDS.get(name ?? '');
  if (!command) throw new Error(`no command of ${program}: ${name}`);
  const specs = command.options(program);
  const scanned = scanArguments(rest, specs);
  const values = plainValues(scanned, specs);
  const { operands } = scanned;
  if (values.help || values.version) return;
  // What the usage line names beside the options.
  const usage = command.usage.replaceAll(/ (\[OPTION\]\.\.\.|-\w [A-Z]+|--\S+)/g, '');
  const [, ...wanted] = usage.split(' ');
  const required = wanted.filter((word) => !word.startsWith('['));
  const most = wanted.some((word) => word.endsWith('...')) ? operands.length : wanted.length;
  if (operands.length < required.length || operands.length > most) {
    throw new Error(`${name} takes ${wanted.join(' ') || 'no arguments'}, not "${operands}"`);
  }
  if (name === 'receive') receiveArguments(values, operands, '');
  if (name === 'find') findArguments(values, operands, '');
}

/** Looks at the options only: for what stands in running text without its operands. */
export function parseOptions(words: readonly string[]): void {
  const [, name = '', ...rest] = words;
  if (name.startsWith('-') || name === 'COMMAND') return;
  const command = COMMANDS.get(name);
  if (!command) throw new Error(`no command of walkeep: ${name}`);
  scanArguments(rest, command.options('walkeep'));
}

/** Every long option of every command. */
export const OPTIONS: ReadonlySet<string> = new Set(
  [...COMMANDS.values()].flatMap((c) => c.options('walkeep').map((spec) => `--${spec.long}`)),
);
