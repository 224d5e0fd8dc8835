import { isListed, parseSyncStandbyNames } from '../protocol/sync-standby-names.js';
import type { ServerFacts, SqlFacts, WalSender } from '../server/server-facts.js';
import { syncWarnings } from '../server/sync-standby.js';
import { type CheckResult, judge } from './result.js';

/** The versions that walkeep is tested with. */
const OLDEST = 14;
const NEWEST = 18;
/** Seconds that two clocks may differ: a recovery target is given in the server's time. */
const CLOCK = 5;

/** The server's version and its settings for replication. */
export function checkServer(server: ServerFacts, sql: SqlFacts | undefined): CheckResult[] {
  return [checkVersion(server), checkWalLevel(server), ...checkLimits(server, sql)];
}

function checkVersion({ version, versionText, standby }: ServerFacts): CheckResult {
  const { ok, warn } = judge('server version');
  const role = standby === undefined ? '' : standby ? ', a standby' : ', a primary';
  const text = `PostgreSQL ${versionText}${role}`;
  const major = Math.floor(version / 10000);
  if (major >= OLDEST && major <= NEWEST) return ok(text);
  const hint = `walkeep is tested with PostgreSQL ${OLDEST} to ${NEWEST}.`;
  return warn(`${text}: walkeep does not know this version`, hint);
}

function checkWalLevel({ settings }: ServerFacts): CheckResult {
  const { ok, fail, unknown } = judge('wal_level');
  const level = settings.wal_level;
  if (level === undefined) return unknown('could not be read');
  if (level !== 'minimal') return ok(level);
  return fail(level, 'Set wal_level = replica and restart the server.');
}

function checkLimits({ settings }: ServerFacts, sql: SqlFacts | undefined): CheckResult[] {
  const limit = (name: 'max_wal_senders' | 'max_replication_slots', used: number | undefined) => {
    const { ok, warn, unknown } = judge(name);
    const max = settings[name];
    if (max === undefined) return unknown('could not be read');
    if (used === undefined) return unknown(`${max}, how many are in use is not visible`, NEED_SQL);
    const text = `${used} of ${max} in use`;
    if (used < Number(max)) return ok(text);
    return warn(`${text}: none is free`, `Raise ${name} and restart the server.`);
  };
  return [
    // The one that served this check may still be ending.
    limit('max_wal_senders', sql?.walSenders.filter((w) => w.state !== 'startup').length),
    limit('max_replication_slots', sql?.slots.length),
  ];
}

/** The hint where an ordinary connection would tell more. */
export const NEED_SQL = 'Give this user the right to connect to a database, for example postgres.';

/** The walsender that serves our receiver; our own session here does not stream. */
export function ourWalSender(
  sql: SqlFacts | undefined,
  applicationName: string,
  slot: string | undefined,
): WalSender | undefined {
  const pid = sql?.slots.find((s) => s.name === slot)?.activePid;
  const streaming = (sql?.walSenders ?? []).filter((w) => w.state !== 'startup');
  return (
    streaming.find((w) => w.pid === pid) ??
    streaming.find((w) => slot === undefined && w.applicationName === applicationName)
  );
}

/** What the settings for synchronous replication mean for commits. */
export function checkSync(
  { settings }: ServerFacts,
  sql: SqlFacts | undefined,
  applicationName: string,
  walSender: WalSender | undefined,
): CheckResult[] {
  const { ok, warn, fail, unknown } = judge('sync state');
  const names = settings.synchronous_standby_names;
  if (names === undefined) return [unknown('synchronous_standby_names could not be read')];
  const parsed = parseSyncStandbyNames(names);
  if (names.trim() !== '' && !parsed) {
    return [unknown(`synchronous_standby_names = '${names}' is not understood`)];
  }
  if (!parsed || !isListed(parsed, applicationName)) {
    return [ok(`asynchronous: no commit waits for "${applicationName}"`)];
  }
  const results: CheckResult[] = syncWarnings(names, settings.synchronous_commit, {
    applicationName,
    synchronous: true,
    apply: 'none',
  }).map((w) => warn(w.message, w.hint ?? 'See synchronous_standby_names on the server.'));
  const listed = `"${applicationName}" is listed in synchronous_standby_names`;
  if (!sql) results.push(unknown(`${listed}; its state is not visible`, NEED_SQL));
  else if (!walSender) {
    const hint = 'Start the receiver with --synchronous, or take its name out of the list.';
    results.push(fail(`${listed}, but no receiver of that name streams: commits may hang`, hint));
  } else if (walSender.syncState === undefined) {
    results.push(unknown(`${listed}; its state is not visible`, 'Grant pg_monitor to this user.'));
  } else if (results.length === 0) results.push(ok(`${walSender.syncState}, ${listed}`));
  return results;
}

/** The server's own archiving beside ours. */
export function checkArchiveMode(
  { settings }: ServerFacts,
  sql: SqlFacts | undefined,
): CheckResult {
  const { ok, warn, fail, unknown } = judge('archive_mode');
  const { archive_mode: mode, archive_command: command, archive_library: library } = settings;
  if (mode === undefined || command === undefined) return unknown('could not be read');
  if (mode === 'off') return ok('off');
  if (library) return failing(`${mode}, archive_library = '${library}'`);
  if (command === '' || command === '(disabled)') {
    return fail(
      `${mode}, but archive_command is empty: the server keeps all WAL for ever`,
      "Set archive_mode = off (with a restart), or archive_command = '/bin/true'.",
    );
  }
  return failing(`${mode}, archive_command = '${command}'`);

  function failing(text: string): CheckResult {
    if (!sql) return unknown(`${text}; whether it works is not visible`, NEED_SQL);
    const { lastFailedAt, lastFailedWal, lastArchivedAt } = sql.archiver;
    if (lastFailedAt === undefined || lastFailedAt <= (lastArchivedAt ?? 0)) return ok(text);
    return warn(
      `${text} failed for ${lastFailedWal}: the server keeps all WAL from there on`,
      "See the server's log; repair the command, or set it to '/bin/true'.",
    );
  }
}

/** The two clocks: recovery targets are times of the server's. */
export function checkClock(sql: SqlFacts | undefined): CheckResult {
  const { ok, warn, unknown } = judge('clock');
  if (!sql) return unknown("the server's clock is not visible", NEED_SQL);
  const { ahead, within } = sql.clock;
  const text = `the server is ${Math.abs(ahead).toFixed(1)} s ${ahead < 0 ? 'behind' : 'ahead'}`;
  if (Math.abs(ahead) - within <= CLOCK) return ok(text);
  return warn(
    text,
    'Let both keep their time with NTP: a recovery target is a time of the server.',
  );
}
