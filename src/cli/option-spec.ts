/** The name a run goes by: walkeep's own, or the drop-in for PostgreSQL's tool. */
export type ProgramName = 'walkeep' | 'pg_receivewal';

/** One option of a command. One table serves the parser, yargs and the help texts. */
export interface OptionSpec {
  long: string;
  short?: string;
  /** Name of its argument in the help; absent: a switch. */
  argument?: string;
  /** What stands for its argument where that is left out: `--name` alone, or `--name=value`. */
  implied?: string;
  /** Heading in the help. */
  group: string;
  help: string;
  default?: string;
  /** May be given several times: its values, joined with newlines. Only of a light command. */
  many?: true;
  /** Runs at each occurrence, in command-line order as getopt loops do. @throws UsageError */
  check?(value: string): void;
}

/** Options as given (the last occurrence wins) or defaulted; a switch that was given is true. */
export type OptionValues = Readonly<Record<string, string | true | undefined>>;
