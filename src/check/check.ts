import type { Archive } from '../archive/archive.js';
import { openArchive } from '../archive/places/open-archive.js';
import type { ReplicationConnection } from '../connection/connection.js';
import type { ReplicationMode } from '../connection/startup.js';
import { AuthenticationError, ServerError, WalkeepError } from '../errors.js';
import {
  aFunction,
  anObject,
  aText,
  aTime,
  type Checks,
  checkOptions,
  required,
} from '../options.js';
import {
  readServerFacts,
  readSqlFacts,
  type ServerFacts,
  type SqlFacts,
} from '../server/server-facts.js';
import type { StoredHistory } from '../wal/history-file.js';
import { type ArchiveFacts, readArchiveFacts } from './archive-facts.js';
import {
  checkCluster,
  checkContinuity,
  checkDisk,
  checkDiverged,
  checkPermissions,
  checkReceiver,
} from './check-archive.js';
import { type BackupDemands, checkBackups } from './check-backups.js';
import { archivedWal, type CheckedMembers, checkMembers, lookAtMembers } from './check-members.js';
import { checkOthers } from './check-others.js';
import {
  checkPosition,
  type LagDemands,
  type RecoveryPoint,
  recoveryPoint,
} from './check-position.js';
import {
  checkArchiveMode,
  checkClock,
  checkServer,
  checkSync,
  NEED_SQL,
  ourWalSender,
} from './check-server.js';
import { checkShipping } from './check-shipping.js';
import { checkSlot } from './check-slot.js';
import { checkStore } from './check-store.js';
import { type CheckResult, judge } from './result.js';

/** What is checked together. */
export interface CheckOptions extends BackupDemands, LagDemands {
  directory: string;
  /** The receiver's slot. */
  slot?: string | undefined;
  /** The receiver's application_name: who it is in synchronous_standby_names. */
  applicationName: string;
  /** Members that may be promoted, to be looked at together with a `slot`. */
  members?: CheckedMembers | undefined;
  /** Makes a connection: `physical` as the receiver's, `off` for SQL. */
  connect(mode: ReplicationMode): Promise<ReplicationConnection>;
}

const CHECKS: Checks<CheckOptions> = {
  backupAge: aTime,
  window: aTime,
  warning: anObject,
  critical: anObject,
  directory: required(aText),
  slot: aText,
  applicationName: required(aText),
  members: anObject,
  connect: required(aFunction),
};

/** What came out. */
export interface CheckReport {
  results: CheckResult[];
  /** Undefined where server or archive could not be read, or have nothing in common. */
  recoveryPoint: RecoveryPoint | undefined;
  /** Bytes free for the archive; undefined if the directory could not be read. */
  free: number | undefined;
}

/** Milliseconds for what is asked on one connection: a check that hangs reports nothing. */
const PATIENCE = 30_000;

/**
 * Says whether an archive and a server are safe together. Nothing is changed on either; a store is
 * tried with objects of its own, which are removed again. What this
 * user may not see is reported as unknown, what fails is a result: it throws for defects only.
 */
export async function runCheck(options: CheckOptions): Promise<CheckReport> {
  checkOptions('check', options, CHECKS);
  const place = await openPlace(options.directory);
  try {
    return await checkTogether(options, place);
  } finally {
    await place.archive?.close();
  }
}

/** An archive, or why it cannot be opened. */
type Place = { archive: Archive; error?: undefined } | { archive?: undefined; error: WalkeepError };

function openPlace(text: string): Promise<Place> {
  return openArchive(text).then(
    (archive) => ({ archive }),
    (error) => {
      if (!(error instanceof WalkeepError)) throw error;
      return { error };
    },
  );
}

async function checkTogether(options: CheckOptions, place: Place): Promise<CheckReport> {
  const { slot, applicationName, members, warning, critical } = options;
  const looked = members && slot !== undefined ? await lookAtMembers(members, slot) : [];
  const read = async (timeline: number): Promise<StoredHistory> =>
    (await place.archive?.history(timeline)) ?? { state: 'absent' };
  const physical = await attempt(options, 'physical', (c) => readServerFacts(c, slot, { read }));
  const plain = await attempt(options, 'off', readSqlFacts);
  const results = connectionResults(physical, plain);
  const server = 'facts' in physical ? physical.facts : undefined;
  const sql = 'facts' in plain ? plain.facts : undefined;
  const { archive, problem } = await readArchive(place, server);
  const ours = ourWalSender(sql, applicationName, slot);
  let point: RecoveryPoint | undefined;
  if (server) {
    results.push(...checkServer(server, sql));
    results.push(...checkSlot(slot, server, sql, archive?.end));
    results.push(...checkSync(server, sql, applicationName, ours));
    results.push(...checkOthers(server, sql, applicationName));
    results.push(checkArchiveMode(server, sql), checkClock(sql));
  }
  if (problem) results.push(problem);
  if (archive) {
    if (server) {
      const cluster = checkCluster(server, archive);
      results.push(...cluster);
      if (cluster.every((r) => r.status !== 'fail')) {
        point = recoveryPoint(server, archive, ours);
        const { walSenderTimeout } = sql ?? {};
        const demands = { walSenderTimeout, warning, critical };
        results.push(checkPosition(server, archive, point, demands));
      }
    }
    results.push(...checkContinuity(archive), ...checkDiverged(archive));
    results.push(...(await checkBackups(place.archive!.place, archive.catalog, options)));
    const { local, store } = archive;
    if (store) results.push(...checkStore(store));
    if (local) {
      results.push(checkReceiver(archive), checkDisk(archive, local.disk));
      results.push(checkPermissions(local.permissions));
      results.push(...(await checkShipping(place.archive!.place)));
    }
  }
  if (members && slot !== undefined) {
    const wal = archivedWal(server, archive, ours);
    results.push(...checkMembers(looked, slot, wal, members.slots));
  }
  return { results, recoveryPoint: point, free: archive?.local?.disk.free };
}

type Attempt<T> = { facts: T; description: string } | { error: WalkeepError };

async function attempt<T>(
  { connect }: CheckOptions,
  mode: ReplicationMode,
  ask: (connection: ReplicationConnection) => Promise<T>,
): Promise<Attempt<T>> {
  let connection: ReplicationConnection | undefined;
  let timer: NodeJS.Timeout | undefined;
  try {
    connection = await connect(mode);
    const { description } = connection;
    timer = setTimeout(() => connection?.destroy(), PATIENCE);
    return { facts: await ask(connection), description };
  } catch (error) {
    if (error instanceof WalkeepError) return { error };
    throw error;
  } finally {
    clearTimeout(timer);
    await connection?.close();
  }
}

/** SQLSTATE of a wrong password. */
const INVALID_PASSWORD = '28P01';

/** A server that is there but does not let this user replicate. */
function lacksRight(error: WalkeepError, plain: Attempt<SqlFacts>): boolean {
  if (error instanceof ServerError) return error.sqlstate === '42501';
  // The same user may log in, only not for replication: so says pg_hba.conf.
  return error instanceof AuthenticationError && !isPassword(error) && 'facts' in plain;
}

function isPassword({ needsPassword, sqlstate }: AuthenticationError): boolean {
  return needsPassword || sqlstate === INVALID_PASSWORD;
}

/** What to do about a refused login; the server's own words tell the rest. */
function loginHint(error: AuthenticationError): string {
  if (error.hint !== undefined) return error.hint;
  if (error.needsPassword) return 'Put it into the password file (~/.pgpass), or give it with -W.';
  return isPassword(error)
    ? 'See that the password file (~/.pgpass) has the right one for this host, port and user.'
    : 'See that the role exists and may log in, and that pg_hba.conf has a line for "replication".';
}

function connectionResults(
  physical: Attempt<ServerFacts>,
  plain: Attempt<SqlFacts>,
): CheckResult[] {
  const connection = judge('connection');
  const right = judge('replication right');
  const sql = judge('SQL');
  const sqlResult =
    'facts' in plain
      ? sql.ok('statistics are visible')
      : sql.unknown(
          `no ordinary connection: ${oneLine(plain.error)}`,
          plain.error instanceof AuthenticationError && isPassword(plain.error)
            ? loginHint(plain.error)
            : NEED_SQL,
        );
  if ('facts' in physical) {
    return [connection.ok(physical.description), right.ok('granted'), sqlResult];
  }
  const { error } = physical;
  const message = oneLine(error);
  const there = 'facts' in plain ? connection.ok(plain.description) : connection.ok('answers');
  if (lacksRight(error, plain)) {
    const hint =
      error.hint ?? 'Give the role REPLICATION, and "replication" a line in pg_hba.conf.';
    return [there, right.fail(message, hint), sqlResult];
  }
  if (error instanceof AuthenticationError) {
    return [there, judge('login').fail(message, loginHint(error)), sqlResult];
  }
  const hint = error.hint ?? 'See that the server runs and can be reached from here.';
  return [connection.fail(message, hint)];
}

async function readArchive(
  place: Place,
  server: ServerFacts | undefined,
): Promise<{ archive?: ArchiveFacts; problem?: CheckResult }> {
  try {
    if (place.error) throw place.error;
    return { archive: await readArchiveFacts(place.archive, server?.state.history) };
  } catch (error) {
    if (!(error instanceof WalkeepError)) throw error;
    const hint = error.hint ?? 'Give the directory of the receiver.';
    return { problem: judge('directory').fail(error.message, hint) };
  }
}

const oneLine = (error: WalkeepError): string => error.message.split('\n').join('; ');
