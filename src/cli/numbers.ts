import { UsageError } from '../errors.js';

/** C's INT_MAX, the bound of option values that upstream holds in an int. */
export const INT_MAX = 2_147_483_647;

/**
 * The whole text as C's strtol(…, 10) reads it: leading blanks and a sign are allowed.
 * Undefined when no digits are found or something follows them.
 */
export function strtol(text: string): number | undefined {
  return /^[ \t\n\v\f\r]*[+-]?[0-9]+$/.test(text) ? Number(text) : undefined;
}

/**
 * An integer option value by the rules and with the messages of PostgreSQL's option_parse_int
 * (src/fe_utils/option_utils.c): trailing blanks pass, and an empty text is 0.
 * @throws UsageError
 */
export function parseIntOption(text: string, option: string, min: number, max: number): number {
  const trimmed = text.replace(/[ \t\n\v\f\r]+$/, '');
  const value = trimmed === '' ? 0 : strtol(trimmed);
  if (value === undefined) throw new UsageError(`invalid value "${text}" for option ${option}`);
  if (value < min || value > max) {
    throw new UsageError(`${option} must be in range ${min}..${max}`);
  }
  return value;
}

const MS: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
};

/** `7d` as milliseconds; undefined for what is none. */
export function durationOf(text: string): number | undefined {
  const [, digits, unit = ''] = /^(\d+)([A-Za-z]+)$/.exec(text) ?? [];
  const ms = MS[unit];
  return digits === undefined || ms === undefined ? undefined : Number(digits) * ms;
}

/** @throws UsageError */
export function parseDuration(text: string, option: string): number {
  const ms = durationOf(text);
  if (ms !== undefined) return ms;
  throw new UsageError(`invalid value "${text}" for option ${option}`, {
    hint: 'Give a time in s, m, h, d or w, such as 7d.',
  });
}

/** As PostgreSQL's settings have them. */
const BYTES: Readonly<Record<string, number>> = {
  kB: 1024,
  MB: 1024 ** 2,
  GB: 1024 ** 3,
  TB: 1024 ** 4,
};

/** `64MB` in bytes; undefined for what is none. */
export function bytesOf(text: string): number | undefined {
  const [, digits, unit = ''] = /^(\d+)([A-Za-z]+)$/.exec(text) ?? [];
  const bytes = BYTES[unit];
  return digits === undefined || bytes === undefined ? undefined : Number(digits) * bytes;
}
