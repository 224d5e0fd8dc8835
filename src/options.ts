import { UsageError } from './errors.js';

/**
 * Options that callers of the library give. TypeScript keeps its users from misspelling them;
 * everybody else would silently get the default: no check where one was asked for.
 */

/** What a value must be, in words that follow "must be"; undefined if it is. */
export type Check = (value: unknown) => string | undefined;
/** One for each option: a new option does not compile without its own. */
export type Checks<T> = Readonly<Record<keyof T, Check>>;

const is =
  (what: string, holds: (value: unknown) => boolean): Check =>
  (value) =>
    holds(value) ? undefined : what;

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;

export const aText = is('a string', (v) => typeof v === 'string');
export const aName = is('a string that is not empty', (v) => typeof v === 'string' && v !== '');
export const aSwitch = is('true or false', (v) => typeof v === 'boolean');
export const aFunction = is('a function', (v) => typeof v === 'function');
export const anObject = is('an object', isObject);
export const aSignal = is('an AbortSignal', (v) => isObject(v) && 'aborted' in v);
export const aBigint = is('a bigint', (v) => typeof v === 'bigint');
export const anLsn = is(
  'an LSN as a bigint (parseLsn makes one)',
  (v) => typeof v === 'bigint' && v >= 0n && v < 2n ** 64n,
);
/** Milliseconds. */
export const aTime = is(
  'a number of milliseconds, not negative',
  (v) => typeof v === 'number' && v >= 0 && v < Number.POSITIVE_INFINITY,
);

export const aNumber = (from: number, to: number): Check =>
  is(
    `a whole number from ${from} to ${to}`,
    (v) => Number.isInteger(v) && (v as number) >= from && (v as number) <= to,
  );
export const aTimeline = aNumber(1, 0xffff_ffff);

export const oneOf = (...words: readonly string[]): Check =>
  is(words.map((w) => `"${w}"`).join(' or '), (v) => words.includes(v as string));

export const listOf = (check: Check, what: string): Check =>
  is(what, (v) => Array.isArray(v) && v.every((item) => check(item) === undefined));

export const either = (a: Check, b: Check): Check => {
  return (value) => {
    const [one, other] = [a(value), b(value)];
    return one === undefined || other === undefined ? undefined : `${one}, or ${other}`;
  };
};

/** May be left out; so may every option whose check is not `required`. */
const REQUIRED = new WeakSet<Check>();
export function required(check: Check): Check {
  const own: Check = (value) => check(value);
  REQUIRED.add(own);
  return own;
}

/**
 * Refuses options that are unknown, missing or of the wrong kind. `of` is what they are given to,
 * for example `WalReceiver`.
 * @throws UsageError that names the option
 */
export function checkOptions<T extends object>(
  of: string,
  options: T,
  checks: Checks<T>,
  { others = 'refused' }: { others?: 'refused' | 'ignored' } = {},
): void {
  if (!isObject(options)) throw new UsageError(`${of}: the options must be an object`);
  const known = checks as Readonly<Record<string, Check>>;
  for (const name of others === 'refused' ? Object.keys(options) : []) {
    if (Object.hasOwn(known, name)) continue;
    const meant = nearest(name, Object.keys(known));
    throw new UsageError(`${of}: unknown option "${name}"`, {
      actual: name,
      ...(meant === undefined ? {} : { hint: `Did you mean "${meant}"?` }),
    });
  }
  for (const [name, check] of Object.entries(known)) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined) {
      if (REQUIRED.has(check)) throw new UsageError(`${of}: option "${name}" is missing`);
      continue;
    }
    const expected = check(value);
    if (expected === undefined) continue;
    const actual = /password/i.test(name) ? typeof value : show(value);
    throw new UsageError(`${of}: option "${name}" must be ${expected}, not ${actual}`, {
      expected,
      actual,
    });
  }
}

/** Short. */
function show(value: unknown): string {
  if (typeof value === 'string') return value.length > 40 ? 'a long string' : `"${value}"`;
  if (Array.isArray(value)) return 'an array';
  if (isObject(value)) return 'an object';
  if (typeof value === 'function') return 'a function';
  return typeof value === 'bigint' ? `${value}n` : String(value);
}

/** The name that differs by one or two letters, or by nothing but their case. */
export function nearest(name: string, names: readonly string[]): string | undefined {
  const far = (other: string) => distance(name.toLowerCase(), other.toLowerCase());
  const [best] = [...names].sort((a, b) => far(a) - far(b));
  // Of three letters one may be wrong: with two it is another word.
  const most = name.length < 4 ? 1 : 2;
  return best !== undefined && far(best) <= most ? best : undefined;
}

/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
