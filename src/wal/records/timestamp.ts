import { ParseError } from '../../errors.js';

declare const timestampBrand: unique symbol;
/**
 * PostgreSQL's TimestampTz: microseconds since 2000-01-01 00:00:00 UTC, signed 64 bit
 * (datatype/timestamp.h). A Date has no microseconds: it only ever sees whole seconds here.
 */
export type TimestampTz = bigint & { readonly [timestampBrand]: true };

/** Seconds from 1970 to 2000 (POSTGRES_EPOCH_JDATE less UNIX_EPOCH_JDATE, in seconds). */
const EPOCH_2000 = 946_684_800n;
const MICROSECONDS = 1_000_000n;
/** The largest absolute time of a Date, in seconds since 1970. */
const MAX_DATE = 8_640_000_000_000n;

/** From seconds since 1970 (pg_time_t). */
export function timestampFromSeconds(seconds: bigint): TimestampTz {
  return ((seconds - EPOCH_2000) * MICROSECONDS) as TimestampTz;
}

/** Seconds since 1970, rounded down, and the microseconds behind them. */
function split(time: bigint): { seconds: bigint; micros: bigint } {
  const micros = ((time % MICROSECONDS) + MICROSECONDS) % MICROSECONDS;
  return { seconds: (time - micros) / MICROSECONDS + EPOCH_2000, micros };
}

const pad = (n: number | bigint, width = 2) => String(n).padStart(width, '0');

/** `2026-11-20 22:04:19.678326` of a Date's UTC fields. */
function fields(date: Date, micros: bigint): string {
  const day = `${pad(date.getUTCFullYear(), 4)}-${pad(date.getUTCMonth() + 1)}-${pad(date.getUTCDate())}`;
  const time = `${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}:${pad(date.getUTCSeconds())}`;
  return `${day} ${time}.${pad(micros, 6)}`;
}

/** The Date of a time's whole seconds; undefined for what no calendar here reaches. */
function dateOf(seconds: bigint): Date | undefined {
  const reachable = seconds >= -MAX_DATE && seconds <= MAX_DATE;
  const date = new Date(reachable ? Number(seconds) * 1000 : Number.NaN);
  const year = date.getUTCFullYear();
  return year > 0 && year < 10_000 ? date : undefined;
}

/** A time that no calendar here reaches: infinity, or nonsense. */
const unreachable = (time: bigint) => `${time} µs from 2000-01-01`;

/**
 * `2026-11-20 22:04:19.678326+00`: what PostgreSQL reads back as the same time whatever its
 * timezone and datestyle are.
 */
export function formatTimestamp(time: TimestampTz): string {
  const { seconds, micros } = split(time);
  const date = dateOf(seconds);
  return date ? `${fields(date, micros)}+00` : unreachable(time);
}

/**
 * ISO 8601, `2026-11-20T22:04:19.678326+00:00`: not with Z, because PostgreSQL does not take that
 * for a recovery_target_time.
 */
export function formatIsoTimestamp(time: TimestampTz): string {
  return formatTimestamp(time).replace(/^(\S{10}) (\S{15})\+00$/, '$1T$2+00:00');
}

/** `2026-11-20 23:04:19.678326+01`: in the time zone of this process. */
export function formatLocalTimestamp(time: TimestampTz): string {
  const { seconds, micros } = split(time);
  const date = dateOf(seconds);
  if (!date) return unreachable(time);
  const shift = localOffset(date);
  const local = fields(new Date(date.getTime() + shift * 1000), micros);
  const [hours, minutes, rest] = [3600, 60, 1].map((unit, i) => {
    const above = i === 0 ? Number.POSITIVE_INFINITY : 3600 / 60 ** (i - 1);
    return Math.floor((Math.abs(shift) % above) / unit);
  }) as [number, number, number];
  const tail = rest ? `:${pad(minutes)}:${pad(rest)}` : minutes ? `:${pad(minutes)}` : '';
  return `${local}${shift < 0 ? '-' : '+'}${pad(hours)}${tail}`;
}

/** Seconds that local clocks are ahead of UTC at a time. */
function localOffset(date: Date): number {
  const local = Date.UTC(
    date.getFullYear(),
    date.getMonth(),
    date.getDate(),
    date.getHours(),
    date.getMinutes(),
    date.getSeconds(),
  );
  return (local - date.getTime()) / 1000;
}

const DAY = /(\d{4})-(\d\d)-(\d\d)/;
const CLOCK = /(?:[T ]+(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6}))?)?)?/;
const ZONE = /(?: *(Z|UTC|GMT|[+-]\d\d(?::?\d\d(?::?\d\d)?)?))?/;
const TIMESTAMP = new RegExp(`^${DAY.source}${CLOCK.source}${ZONE.source}$`, 'i');

/**
 * Reads `2026-11-20`, `2026-11-20 22:04[:19[.678326]]`, with `T` for the blank and a zone (`Z`,
 * `UTC`, `+01`, `+0530`, `-03:30`) behind it if wanted; without one the process's time zone is
 * meant.
 * @throws ParseError for anything else, for a day or time that is none, and for a local time that
 *   the clocks skipped or showed twice
 */
export function parseTimestamp(text: string): TimestampTz {
  const m = TIMESTAMP.exec(text.trim());
  if (!m) {
    const expected = 'YYYY-MM-DD HH:MM:SS.ffffff+ZZ';
    throw new ParseError(`not a time: "${text}"`, {
      expected,
      hint: `Write it as ${expected}; seconds and zone may be left out.`,
    });
  }
  const [year, month, day, hour, minute, second] = m.slice(1, 7).map((part) => Number(part ?? 0));
  const wall = [year!, month! - 1, day!, hour!, minute!, second!] as const;
  const utc = new Date(0);
  utc.setUTCFullYear(wall[0], wall[1], wall[2]);
  utc.setUTCHours(wall[3], wall[4], wall[5]);
  const sound =
    utc.getUTCMonth() === wall[1] &&
    utc.getUTCDate() === wall[2] &&
    utc.getUTCHours() === wall[3] &&
    utc.getUTCMinutes() === wall[4] &&
    utc.getUTCSeconds() === wall[5];
  if (!sound || year === 0) throw new ParseError(`no such day or time: "${text}"`);
  const zone = m[8];
  const ms = zone === undefined ? fromLocal(utc, text) : utc.getTime() - zoneSeconds(zone) * 1000;
  const micros = BigInt((m[7] ?? '').padEnd(6, '0'));
  return (timestampFromSeconds(BigInt(ms / 1000)) + micros) as TimestampTz;
}

function zoneSeconds(zone: string): number {
  const m = /^([+-])(\d\d):?(\d\d)?:?(\d\d)?$/.exec(zone);
  if (!m) return 0;
  const seconds = Number(m[2]) * 3600 + Number(m[3] ?? 0) * 60 + Number(m[4] ?? 0);
  return m[1] === '-' ? -seconds : seconds;
}

/** Milliseconds since 1970 of the local time whose fields are the UTC fields of `wall`. */
function fromLocal(wall: Date, text: string): number {
  const found = new Set<number>();
  // The offset that holds at the time itself is one of those a day around it.
  for (const hours of [-24, -12, 0, 12, 24]) {
    const offset = localOffset(new Date(wall.getTime() + hours * 3_600_000)) * 1000;
    const candidate = wall.getTime() - offset;
    if (localOffset(new Date(candidate)) * 1000 === offset) found.add(candidate);
  }
  const hint = 'Say which is meant with a zone, as in +00.';
  if (found.size === 0) {
    throw new ParseError(`"${text}" does not exist in the local time zone`, { hint });
  }
  if (found.size > 1) {
    throw new ParseError(`"${text}" occurs twice in the local time zone`, { hint });
  }
  return [...found][0]!;
}
