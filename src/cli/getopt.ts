import { UsageError } from '../errors.js';
import type { OptionSpec, OptionValues } from './option-spec.js';

/** What getopt_long complains about. Shown without the word `error`, as the C library does. */
export class GetoptError extends UsageError {}

/** One option as it stood on the command line, its name in full. */
export interface Occurrence {
  name: string;
  /** Absent for a switch. */
  value?: string;
}

export interface ScannedArguments {
  options: Occurrence[];
  /** What is not an option, in order. */
  operands: string[];
}

/**
 * Splits a command line as GNU getopt_long does (glibc manual, "Getopt Long Options"; texts as
 * glibc's posix/getopt.c prints them): grouped short options, attached values, unique
 * abbreviations, options after operands, `--`.
 * @throws GetoptError, or what an option's `check` throws, for the first fault from the left
 */
export function scanArguments(
  argv: readonly string[],
  specs: readonly OptionSpec[],
): ScannedArguments {
  const scanned: ScannedArguments = { options: [], operands: [] };
  const add = (spec: OptionSpec, value: string | undefined): void => {
    if (value === undefined) scanned.options.push({ name: spec.long });
    else {
      spec.check?.(value);
      scanned.options.push({ name: spec.long, value });
    }
  };

  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!;
    if (arg === '--') {
      scanned.operands.push(...argv.slice(i + 1));
      break;
    }
    if (arg.startsWith('--')) {
      const { spec, attached } = matchLong(arg, specs);
      if (spec.argument === undefined || attached !== undefined) add(spec, attached);
      else if (spec.implied !== undefined) add(spec, spec.implied);
      else if (++i < argv.length) add(spec, argv[i]!);
      else throw new GetoptError(`option '--${spec.long}' requires an argument`);
    } else if (arg.length > 1 && arg.startsWith('-')) {
      for (let rest = arg.slice(1); rest !== ''; ) {
        const letter = String.fromCodePoint(rest.codePointAt(0)!);
        rest = rest.slice(letter.length);
        const spec = specs.find((s) => s.short === letter);
        if (!spec) throw new GetoptError(`invalid option -- '${letter}'`);
        if (spec.argument === undefined) {
          add(spec, undefined);
          continue;
        }
        if (rest !== '') add(spec, rest);
        else if (++i < argv.length) add(spec, argv[i]!);
        else throw new GetoptError(`option requires an argument -- '${letter}'`);
        rest = '';
      }
    } else {
      scanned.operands.push(arg);
    }
  }
  return scanned;
}

/** The option that `--name` or `--name=value` means, exactly or as its only completion. */
function matchLong(
  arg: string,
  specs: readonly OptionSpec[],
): { spec: OptionSpec; attached?: string } {
  const equals = arg.indexOf('=');
  const name = arg.slice(2, equals < 0 ? undefined : equals);
  const exact = specs.find((s) => s.long === name);
  const candidates = exact ? [exact] : specs.filter((s) => s.long.startsWith(name));
  const spec = candidates[0];
  if (!spec) throw new GetoptError(`unrecognized option '${arg}'`);
  if (candidates.length > 1) {
    const names = candidates.map((s) => `'--${s.long}'`).join(' ');
    throw new GetoptError(`option '${arg}' is ambiguous; possibilities: ${names}`);
  }
  if (equals < 0) return { spec };
  if (spec.argument === undefined) {
    throw new GetoptError(`option '--${spec.long}' doesn't allow an argument`);
  }
  return { spec, attached: arg.slice(equals + 1) };
}

/** The same command line in the one form that needs no getopt: `--name=value` … `--` operands. */
export function canonicalArguments({ options, operands }: ScannedArguments): string[] {
  const long = options.map((o) =>
    o.value === undefined ? `--${o.name}` : `--${o.name}=${o.value}`,
  );
  return operands.length === 0 ? long : [...long, '--', ...operands];
}

/** The values by long name, with defaults for what was not given, without the help of yargs. */
export function plainValues(
  { options }: ScannedArguments,
  specs: readonly OptionSpec[],
): OptionValues {
  const all = (name: string): string =>
    options.flatMap((o) => (o.name === name ? [o.value] : [])).join('\n');
  const many = new Set(specs.flatMap((s) => (s.many ? [s.long] : [])));
  return Object.fromEntries([
    ...specs.flatMap((s) => (s.default === undefined ? [] : [[s.long, s.default] as const])),
    ...options.map((o) => [o.name, many.has(o.name) ? all(o.name) : (o.value ?? true)] as const),
  ]);
}
