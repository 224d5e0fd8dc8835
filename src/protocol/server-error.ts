import { AuthenticationError, ServerError, type WalkeepError, WalRemovedError } from '../errors.js';
import type { ServerNotice } from './backend-message.js';

/**
 * SQLSTATEs by name (errcodes.txt). 55000 stands for many states and counts as removed WAL only
 * together with its text.
 */
const INVALID_PASSWORD = '28P01';
const INVALID_AUTHORIZATION = '28000';
const UNDEFINED_FILE = '58P01';
const NOT_IN_PREREQUISITE_STATE = '55000';
const TOO_MANY_CONNECTIONS = '53300';
const UNDEFINED_OBJECT = '42704';

const SEGMENT_FILE = /\b[0-9A-F]{24}\b/;

/**
 * The typed error for an ErrorResponse: WalRemovedError where WAL is gone for good,
 * AuthenticationError for a refused login, else ServerError. `context` is put before the
 * server's `SEVERITY:  text`.
 */
export function toServerError(notice: ServerNotice, context = ''): WalkeepError {
  const severity = notice.severity ?? 'ERROR';
  const message = `${context}${severity}:  ${notice.message}`;
  const hint = notice.hint ?? ownHint(notice, context);
  const details = {
    severity,
    sqlstate: notice.code,
    ...(notice.detail === undefined ? {} : { detail: notice.detail }),
    ...(hint === undefined ? {} : { hint }),
  };
  if (isWalRemoved(notice)) {
    return new WalRemovedError(message, {
      hint: AFTER_REMOVED_WAL,
      ...details,
      file: SEGMENT_FILE.exec(notice.message)?.[0],
    });
  }
  if (notice.code === INVALID_PASSWORD || notice.code === INVALID_AUTHORIZATION) {
    return new AuthenticationError(message, details);
  }
  return new ServerError(message, details);
}

/** WAL that the server has removed is not lost if it is anywhere else; what is lost leaves a hole. */
const AFTER_REMOVED_WAL =
  'Look for the segments in pg_wal of its standbys or in another archive, and bring them with "walkeep push"; ' +
  'give the receiver a slot, so that the server keeps WAL for it; if they are lost, take a new base backup and ' +
  'go on behind the hole with --accept-gap.';

/** For who is to stream from a slot that is not there. */
export const MISSING_SLOT =
  'Create it with --create-slot, or "walkeep slot create"; under walkeep serve: ensure_slot: true.';

/** What to do where the server itself does not say. */
function ownHint({ code, message }: ServerNotice, context: string): string | undefined {
  const streams = context.includes('"START_REPLICATION');
  if (streams && code === UNDEFINED_OBJECT && message.includes('slot')) return MISSING_SLOT;
  if (code !== TOO_MANY_CONNECTIONS || !message.includes('max_wal_senders')) return undefined;
  return 'Raise max_wal_senders on the server (with wal_level replica or logical), or end another receiver.';
}

/**
 * walsender.c and xlogreader's "requested WAL segment … has already been removed" (58P01), and a
 * slot that was invalidated: 55000 "can no longer get changes / access replication slot" (18),
 * "cannot read from / use …" with the cause in DETAIL. Texts may be localised: 58P01 during
 * replication alone means a missing segment file, whatever the language.
 */
function isWalRemoved(notice: ServerNotice): boolean {
  const text = `${notice.message}\n${notice.detail ?? ''}`;
  if (/has already been removed/.test(text)) return true;
  if (notice.code === UNDEFINED_FILE) return SEGMENT_FILE.test(notice.message);
  if (notice.code !== NOT_IN_PREREQUISITE_STATE) return false;
  return /can no longer (access|get changes)|wal_removed|invalidated|max_slot_wal_keep_size/.test(
    text,
  );
}
