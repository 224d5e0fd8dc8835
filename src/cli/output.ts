import type { Writable } from 'node:stream';
import type { ToldError } from '../beside.js';
import { WalkeepError } from '../errors.js';
import { reason } from '../files/durable.js';
import { tame, withoutSecrets } from '../text.js';
import { GetoptError } from './getopt.js';
import type { ProgramName } from './option-spec.js';

/** Where a run prints and what decides how. */
export interface OutputStreams {
  stdout: Writable;
  stderr: Writable & { isTTY?: boolean; columns?: number };
  env: NodeJS.ProcessEnv;
  /** Gets each error that is reported, without secrets. */
  reported?(error: Omit<ToldError, 'kind'>): void;
}

/** The other end of a pipe or socket was closed. */
const READER_LEFT: readonly string[] = ['EPIPE', 'ECONNRESET'];

type Part = 'error' | 'warning' | 'detail' | 'hint';

/** Colours of the parts when PG_COLORS does not say: PostgreSQL docs, "Color Support". */
const DEFAULT_COLORS = 'error=01;31:warning=01;35:note=01;36:locus=01';

/**
 * Prints messages as PostgreSQL's frontend programs do (src/common/logging.c):
 * `PROGRAM: message` for information, otherwise `PROGRAM: error: message` and its kin, on stderr.
 */
export class Output {
  readonly #program: ProgramName;
  readonly #streams: OutputStreams;
  readonly #colors: ReadonlyMap<string, string>;
  readonly #guarded = new Set<Writable>();
  #statusShown = false;
  #printed = false;
  /** What kept a part of the result from getting where stdout leads. */
  #lost: NodeJS.ErrnoException | undefined;

  constructor(program: ProgramName, streams: OutputStreams) {
    this.#program = program;
    this.#streams = streams;
    this.#colors = colors(streams);
  }

  /** Asked for only where it is used: Node.js takes milliseconds to make one of its own. */
  get #stdout(): OutputStreams['stdout'] {
    return this.#guard(this.#streams.stdout);
  }

  get #stderr(): OutputStreams['stderr'] {
    return this.#guard(this.#streams.stderr);
  }

  /** A message that nobody can be told must not turn a finished stop into a crash. */
  #guard<T extends Writable>(stream: T): T {
    if (!this.#guarded.has(stream)) stream.on('error', () => {});
    this.#guarded.add(stream);
    return stream;
  }

  /** The result of a command, on stdout. What a terminal would obey is shown escaped. */
  print(text: string): void {
    this.#printed = true;
    // Both may be the same terminal.
    this.clearStatus();
    this.#stdout.write(shown(text.endsWith('\n') ? text : `${text}\n`), (error) => {
      if (error) this.#lost ??= error;
    });
  }

  /**
   * Resolves when all that was printed is out: true unless some of it was lost, to a full disk say,
   * which is then told. A reader that went away has had what it wanted.
   */
  async delivered(): Promise<boolean> {
    if (!this.#printed) return true;
    await new Promise<void>((resolve) => this.#stdout.write('', () => resolve()));
    if (!this.#lost || READER_LEFT.includes(this.#lost.code ?? '')) return true;
    this.error(`could not write to standard output: ${reason(this.#lost)}`);
    return false;
  }

  info(message: string): void {
    this.#log(undefined, message);
  }

  warning(message: string, hint?: string): void {
    this.#log('warning', message);
    if (hint !== undefined) this.hint(hint);
  }

  error(message: string): void {
    this.#log('error', message);
  }

  hint(message: string): void {
    this.#log('hint', message);
  }

  /** A line of a log that programs read, on stderr. It has to be fit for a terminal. */
  logLine(line: string): void {
    this.#stderr.write(`${line}\n`);
  }

  /** An error with its detail and hint; of one that is no WalkeepError (a bug) one line. */
  report(error: unknown): void {
    const described = describe(error);
    const { message, detail, hint } = described;
    const texts = Object.entries(described).map(([name, text]) => [name, withoutSecrets(text)]);
    this.#streams.reported?.(Object.fromEntries(texts));
    this.#log(error instanceof GetoptError ? undefined : 'error', message);
    if (detail !== undefined) this.#log('detail', detail);
    if (hint !== undefined) this.hint(hint);
    if (this.#streams.env.WALKEEP_DEBUG === '1' && error instanceof Error) {
      this.#stderr.write(`${shown(stackOf(error))}\n`);
    }
  }

  /** The code of what was told, to be looked up in exit-codes.md, on a line of its own in a log. */
  code(code: string): void {
    if (this.#program === 'walkeep') this.#log('detail', `code ${code}`);
  }

  /** The error's code, to be looked up in exit-codes.md; the other program has only PostgreSQL's texts. */
  codeOf(error: unknown): string {
    const known = this.#program === 'walkeep' && error instanceof WalkeepError;
    return known ? ` (${error.code})` : '';
  }

  /** Whether stderr is a terminal that can show a live line. */
  get live(): boolean {
    return this.#stderr.isTTY === true;
  }

  /** Shows or replaces the live line; the next message clears it. */
  status(line: string): void {
    const width = (this.#stderr.columns || 80) - 1;
    this.#stderr.write(`\r\x1b[K${line.slice(0, width)}`);
    this.#statusShown = true;
  }

  clearStatus(): void {
    if (this.#statusShown) this.#stderr.write('\r\x1b[K');
    this.#statusShown = false;
  }

  #log(part: Part | undefined, message: string): void {
    this.clearStatus();
    const locus = this.#paint('locus', `${this.#program}: `);
    const key = part === 'detail' || part === 'hint' ? 'note' : part;
    const label = key === undefined ? '' : this.#paint(key, `${part}: `);
    const text = shown(message.replace(/\n$/, ''));
    // Each line says whose it is: a log has those of others in between. The tool that the other program
    // stands in for says so once.
    const lines = this.#program === 'walkeep' ? text.split('\n') : [text];
    this.#stderr.write(lines.map((line) => `${locus}${label}${line}\n`).join(''));
  }

  #paint(key: string, text: string): string {
    const sgr = this.#colors.get(key);
    return sgr === undefined ? text : `\x1b[${sgr}m${text}\x1b[0m`;
  }
}

const shown = (text: string): string => tame(withoutSecrets(text));

function colors(streams: OutputStreams): ReadonlyMap<string, string> {
  const { env } = streams;
  const wanted =
    env.PG_COLOR === 'always' || (env.PG_COLOR === 'auto' && streams.stderr.isTTY === true);
  if (!wanted) return new Map();
  const entries = (env.PG_COLORS ?? DEFAULT_COLORS).split(':').map((e) => e.split('='));
  return new Map(entries.flatMap(([key, sgr]) => (key && sgr ? [[key, sgr]] : [])));
}

function describe(error: unknown): Omit<ToldError, 'kind'> {
  if (error instanceof WalkeepError) {
    const { code, message, detail, hint } = error;
    return {
      ...{ code, message },
      ...(detail === undefined ? {} : { detail }),
      ...(hint === undefined ? {} : { hint }),
    };
  }
  const text = error instanceof Error ? error.message || error.name : String(error);
  return { message: text.split('\n')[0] ?? '' };
}

function stackOf(error: Error): string {
  const own = error.stack ?? String(error);
  return error.cause instanceof Error ? `${own}\ncaused by ${stackOf(error.cause)}` : own;
}
