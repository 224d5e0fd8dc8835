import { formatLsn } from '../lsn.js';
import type { ServerFacts, SqlFacts } from '../server/server-facts.js';
import type { SlotInfo } from '../server/slots.js';
import { formatBinaryBytes } from '../units.js';
import { segmentOf } from '../wal/file-name.js';
import type { ArchiveEnd } from './archive-facts.js';
import { NEED_SQL } from './check-server.js';
import { type CheckResult, judge } from './result.js';

/** Retained WAL from which an unlimited slot endangers the server's disk, bytes. */
const MUCH = 1024 ** 3;
/** Part of the limit that may be left before it is time to act. */
const LITTLE = 0.25;

/** The replication slot: whether it is there, works, and keeps what the archive still needs. */
export function checkSlot(
  name: string | undefined,
  server: ServerFacts,
  sql: SqlFacts | undefined,
  end: ArchiveEnd | undefined,
): CheckResult[] {
  const { ok, warn, fail } = judge('slot');
  if (name === undefined) {
    const keep = server.settings.wal_keep_size ?? 'unknown';
    return [
      warn(
        `none given: the server may remove WAL before it is received (wal_keep_size ${keep})`,
        'Use a slot: "walkeep slot create NAME", and -S NAME here and for receive.',
      ),
    ];
  }
  const info = sql?.slots.find((s) => s.name === name);
  const gone = sql ? !info : server.slot === 'missing';
  if (gone) {
    const hint = `Create it: "walkeep slot create ${name}".`;
    return [fail(`replication slot "${name}" does not exist`, hint)];
  }
  if ((info && info.type !== 'physical') || server.slot === 'logical') {
    return [fail(`replication slot "${name}" is a logical one`, 'Use a physical slot.')];
  }
  const found = ok(`replication slot "${name}" exists`);
  const start = checkStart(name, server, info, end);
  if (!info) {
    const unseen = (check: string) => judge(check).unknown('not visible', NEED_SQL);
    const known =
      server.slot === undefined ? judge('slot').unknown('not visible', NEED_SQL) : found;
    return [known, ...start, unseen('slot active'), unseen('slot WAL'), unseen('slot retention')];
  }
  return [
    found,
    ...start,
    checkActive(info),
    checkWal(info),
    // What is invalid for good is kept by no setting.
    ...(isLost(info) ? [] : [checkRetention(info, server.settings)]),
  ];
}

/** A slot that begins behind the archive's end does not keep what comes next. */
function checkStart(
  name: string,
  { slot, state }: ServerFacts,
  info: SlotInfo | undefined,
  end: ArchiveEnd | undefined,
): CheckResult[] {
  const { warn, fail } = judge('slot');
  const position = typeof slot === 'object' ? slot.restartLsn : undefined;
  const restart = position ?? info?.restartLsn;
  // A server before 15 tells its slots by SQL only.
  if (!info && slot === undefined) return [];
  if (restart === undefined) {
    if (info && isLost(info)) return [];
    // READ_REPLICATION_SLOT tells a slot that was invalidated as one that was never used.
    const why = info ? 'keeps no WAL yet' : 'keeps no WAL: never used, or invalidated';
    const hint = info
      ? 'It does from its first use on; or drop it and "walkeep slot create" it anew.'
      : 'Drop it and "walkeep slot create" it anew, unless the receiver is about to use it first.';
    return [warn(`replication slot "${name}" ${why}`, hint)];
  }
  if (!end || segmentOf(restart, state.segmentSize) <= segmentOf(end.lsn, state.segmentSize)) {
    return [];
  }
  return [
    fail(
      `replication slot "${name}" begins at ${formatLsn(restart)}, the archive ends at ${formatLsn(end.lsn)}`,
      'WAL in between may be gone from the server; if it is, a new base backup is needed.',
    ),
  ];
}

/** Invalidated: it keeps nothing, and never will again. */
function isLost({ walStatus, invalidation }: SlotInfo): boolean {
  return walStatus === 'lost' || invalidation !== undefined;
}

function checkActive(info: SlotInfo): CheckResult {
  const { ok, warn } = judge('slot active');
  if (info.active) return ok(`in use by process ${info.activePid}`);
  const none = isLost(info) || info.restartLsn === undefined;
  return warn(
    `not in use: nothing is received, and the server keeps ${none ? 'nothing' : 'the WAL'} for it`,
    'Start "walkeep receive".',
  );
}

function checkWal(info: SlotInfo): CheckResult {
  const { ok, warn, fail } = judge('slot WAL');
  const anew = 'Drop and create it again; WAL that is missing by now needs a new base backup.';
  if (info.invalidation !== undefined) {
    return fail(`invalidated (${info.invalidation}): the server keeps nothing for it`, anew);
  }
  const retained =
    info.retainedBytes === undefined
      ? ''
      : `, ${formatBinaryBytes(Number(info.retainedBytes))} retained`;
  switch (info.walStatus) {
    case 'lost':
      return fail('lost: WAL that the archive needs was removed', anew);
    case 'unreserved':
      return fail(
        `unreserved${retained}: WAL that the archive needs is removed at the next checkpoint`,
        'Start the receiver now, or raise max_slot_wal_keep_size.',
      );
    case 'extended':
      return warn(
        `extended${retained}: more than max_wal_size is kept for it`,
        'See why the receiver does not follow.',
      );
    case undefined:
      return ok('nothing retained');
    default:
      return ok(`${info.walStatus}${retained}`);
  }
}

/** Whether a receiver that stays away costs WAL, or fills the server's disk. */
function checkRetention(info: SlotInfo, settings: ServerFacts['settings']): CheckResult {
  const { ok, warn, fail, unknown } = judge('slot retention');
  const idle = settings.idle_replication_slot_timeout;
  if (idle !== undefined && !/^0/.test(idle)) {
    return warn(
      `idle_replication_slot_timeout = ${idle} invalidates the slot when the receiver stays away`,
      'Set it to 0, or let nothing keep the receiver away that long.',
    );
  }
  const limit = settings.max_slot_wal_keep_size;
  if (limit === undefined) return unknown('max_slot_wal_keep_size could not be read');
  const retained = Number(info.retainedBytes ?? 0n);
  if (limit.startsWith('-1')) {
    const text = 'max_slot_wal_keep_size is unlimited';
    if (retained < MUCH) return ok(`${text}: no WAL is lost, its disk must have room for it`);
    return warn(
      `${text}, and ${formatBinaryBytes(retained)} are retained: the server's disk may fill up`,
      'Start the receiver, or see why it does not follow.',
    );
  }
  const text = `max_slot_wal_keep_size = ${limit}`;
  if (info.safeWalSize === undefined) return ok(text);
  const safe = Number(info.safeWalSize);
  const left = `${text}, ${formatBinaryBytes(safe)} left before WAL is removed`;
  if (safe <= 0) return fail(left, 'Start the receiver now, or raise the setting.');
  if (safe < LITTLE * (safe + retained)) {
    return warn(left, 'See why the receiver does not follow, or raise the setting.');
  }
  return ok(left);
}
