import yargs, { type Argv } from 'yargs';
import type { Command } from './command.js';
import { canonicalArguments, type ScannedArguments } from './getopt.js';
import { fold, HELP_WIDTH } from './help.js';
import type { OptionSpec, OptionValues } from './option-spec.js';

/**
 * yargs with everything off that reads an argument as something else than it says: `--no-sync`
 * is an option of its own and not the opposite of `--sync`, "007" is no number, `a.b` no path.
 */
function base(): Argv {
  return yargs([], '.')
    .detectLocale(false)
    .exitProcess(false)
    .help(false)
    .version(false)
    .parserConfiguration({
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
      'duplicate-arguments-array': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'strip-aliased': true,
    });
}

function withOptions(specs: readonly OptionSpec[]): Argv {
  return specs.reduce(
    (argv, spec) =>
      // No `type`: the values are what the scanner found, and the help stays free of "[string]".
      argv.option(spec.long, {
        describe: spec.argument === undefined ? spec.help : `${spec.argument}: ${spec.help}`,
        group: spec.group,
        ...(spec.short === undefined ? {} : { alias: spec.short }),
        ...(spec.default === undefined
          ? {}
          : { default: spec.default, defaultDescription: spec.default }),
      }),
    base(),
  );
}

/** Values by long name, with defaults for what was not given. */
export function optionValues(
  scanned: ScannedArguments,
  specs: readonly OptionSpec[],
): OptionValues {
  // yargs takes one pair of quotes off a value: give it one to take.
  const options = scanned.options.map((o) =>
    o.value === undefined ? o : { ...o, value: `"${o.value}"` },
  );
  const argv = canonicalArguments({ options, operands: scanned.operands });
  const parsed = withOptions(specs).parseSync(argv) as Record<string, unknown>;
  return Object.fromEntries(
    specs.flatMap(({ long }) => {
      const value = parsed[long];
      return typeof value === 'string' || value === true ? [[long, value] as const] : [];
    }),
  );
}

/** `walkeep COMMAND --help`. */
export async function commandHelp(command: Command, specs: readonly OptionSpec[]): Promise<string> {
  const intro = fold(command.description, HELP_WIDTH).join('\n');
  return withOptions(specs)
    .scriptName('walkeep')
    .usage(`Usage: $0 ${command.usage}\n\n${intro}`)
    .wrap(HELP_WIDTH)
    .getHelp();
}

/** `walkeep --help`. */
export async function programHelp(
  commands: Readonly<Record<string, { summary: string }>>,
  specs: readonly OptionSpec[],
): Promise<string> {
  let argv = withOptions(specs)
    .scriptName('walkeep')
    .usage('Usage: $0 COMMAND [OPTION]...')
    .epilogue('"walkeep COMMAND --help" shows the options of a command.')
    .wrap(HELP_WIDTH);
  for (const [name, { summary }] of Object.entries(commands)) argv = argv.command(name, summary);
  return argv.getHelp();
}
