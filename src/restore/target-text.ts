import type { RecoveryTarget } from '../archive/targets/target.js';
import { UsageError } from '../errors.js';
import { formatLsn, parseLsn } from '../lsn.js';
import {
  formatLocalTimestamp,
  formatTimestamp,
  parseTimestamp,
  type TimestampTz,
} from '../wal/records/timestamp.js';

/** A target as somebody wrote it. */
export interface WrittenTarget {
  target: RecoveryTarget;
  /** It is a time without a zone: that of this machine was taken, which need not be the server's. */
  zoneTaken: boolean;
}

const LSN = /^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i;
const ZONE = /(?:Z|UTC|GMT|[:.,\d] *[+-]\d\d(?::?\d\d(?::?\d\d)?)?)$/i;
const HAS_CLOCK = /\d\d:\d\d/;
const XID_MAX = 0xffff_ffff;
/** MAXFNAMELEN - 1, beyond which PostgreSQL cuts a name. */
const LONGEST_NAME = 63;

/**
 * Reads `latest`, `immediate`, `xid:N`, `name:X`, an LSN as `X/X`, or a time.
 * @param before stop just before it: without the commit of that time or transaction, or the record
 *   that begins at the LSN
 * @throws UsageError, ParseError
 */
export function parseTarget(text: string, before = false): WrittenTarget {
  const inclusive = !before;
  const target = (found: RecoveryTarget): WrittenTarget => ({ target: found, zoneTaken: false });
  const named = /^(latest|immediate|name:.*)$/is.exec(text)?.[1];
  if (named !== undefined && before) {
    throw new UsageError(`recovery cannot stop before "${text}"`, {
      hint: 'Only a time, an LSN or a transaction has a before.',
    });
  }
  if (text === 'latest' || text === 'immediate') return target({ kind: text });
  const [, name] = /^name:(.+)$/is.exec(text) ?? [];
  if (name !== undefined) {
    if (Buffer.byteLength(name) > LONGEST_NAME) {
      throw new UsageError(`a named point has at most ${LONGEST_NAME} bytes`, { actual: name });
    }
    return target({ kind: 'name', name });
  }
  const [, xid] = /^xid:(.*)$/is.exec(text) ?? [];
  if (xid !== undefined) {
    if (!/^[1-9]\d{0,9}$/.test(xid) || Number(xid) > XID_MAX) {
      throw new UsageError(`"${xid}" is no transaction id`, {
        hint: 'It is a number of 32 bits: of pg_current_xact_id() the rest of a division by 2^32.',
      });
    }
    return target({ kind: 'xid', xid: Number(xid), inclusive });
  }
  if (LSN.test(text)) return target({ kind: 'lsn', lsn: parseLsn(text), inclusive });
  if (!/^\d{4}-/.test(text.trim())) {
    throw new UsageError(`"${text}" is no target of a recovery`, {
      hint: 'Write latest, immediate, a time, an LSN as X/X, xid:N or name:X.',
    });
  }
  const time = parseTimestamp(text);
  const rest = text.trim().slice(10);
  const zoned = HAS_CLOCK.test(rest) ? ZONE.test(rest) : /[Z+-]|UTC|GMT/i.test(rest);
  return { target: { kind: 'time', time, inclusive }, zoneTaken: !zoned };
}

/** `time 2026-11-20 22:04:19.678326+00`, for people. */
export function targetText(target: RecoveryTarget): string {
  const before = 'inclusive' in target && !target.inclusive ? 'just before ' : '';
  switch (target.kind) {
    case 'latest':
      return 'the end of the archive';
    case 'immediate':
      return 'the end of the backup';
    case 'time':
      return `${before}${timeText(target.time)}`;
    case 'lsn':
      return `${before}LSN ${formatLsn(target.lsn)}`;
    case 'xid':
      return `${before}transaction ${target.xid}`;
    case 'name':
      return `the named point "${target.name}"`;
  }
}

/** The options of the command line. */
export function targetWords(target: RecoveryTarget): string[] {
  const before = 'inclusive' in target && !target.inclusive ? ['--before'] : [];
  switch (target.kind) {
    case 'latest':
    case 'immediate':
      return ['--to', target.kind];
    case 'time':
      return ['--to', formatTimestamp(target.time), ...before];
    case 'lsn':
      return ['--to', formatLsn(target.lsn), ...before];
    case 'xid':
      return ['--to', `xid:${target.xid}`, ...before];
    case 'name':
      return ['--to', `name:${target.name}`];
  }
}

/** In UTC, and as clocks show it here where that is another text. */
export function timeText(time: TimestampTz): string {
  const [utc, local] = [formatTimestamp(time), formatLocalTimestamp(time)];
  return utc === local ? utc : `${utc} (${local} here)`;
}
