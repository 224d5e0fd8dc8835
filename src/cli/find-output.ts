import {
  dropsFiles,
  eventTime,
  type KnownName,
  type TransactionEvent,
  type WalEvent,
} from '../find/event.js';
import { printable } from '../find/target.js';
import { formatLsn } from '../lsn.js';
import { formatRelation } from '../wal/records/relation.js';
import {
  formatIsoTimestamp,
  formatLocalTimestamp,
  formatTimestamp,
  type TimestampTz,
  timestampFromSeconds,
} from '../wal/records/timestamp.js';
import { type DroppedStatistics, STATISTICS_OF_RELATION } from '../wal/records/xact.js';
import { fold } from './help.js';

/** No line of the table is longer, except for a name that is. */
const WIDTH = 80;
const LSN_WIDTH = 12;
const TIME_WIDTH = 29;
const UTC_WIDTH = 8;
const INDENT = ' '.repeat(LSN_WIDTH + 1);
/** Files, subtransactions and relations named in a line of details. */
const NAMED = 20;

/** True where local time is UTC, in winter and in summer: one column of times is enough. */
function isUtc(): boolean {
  const year = new Date().getFullYear();
  return [0, 6].every((month) => new Date(year, month).getTimezoneOffset() === 0);
}

export function tableHeader(): string {
  return row('LSN', 'TIME', 'UTC', 'EVENT');
}

function row(lsn: string, local: string, utc: string, event: string): string {
  const columns = [lsn.padEnd(LSN_WIDTH), local.padEnd(TIME_WIDTH)];
  if (!isUtc()) columns.push(utc.padEnd(UTC_WIDTH));
  return [...columns, event].join(' ').trimEnd();
}

/** An event as lines of the table: where, when, what, and below it what needs more room. */
export function tableLines(event: WalEvent): string[] {
  const time = shownTime(event);
  const local = time === undefined ? '' : formatLocalTimestamp(time);
  // The offset of the local time tells the day.
  const utc =
    time === undefined ? '' : (/ (\d\d:\d\d:\d\d)/.exec(formatTimestamp(time))?.[1] ?? '');
  const details = detailsOf(event).flatMap((text) => fold(printable(text), WIDTH - INDENT.length));
  return [
    row(formatLsn(event.lsn), local, utc, title(event)),
    ...details.map((line) => INDENT + line),
  ];
}

/** How to learn what relations are called of which the WAL has numbers alone. */
export function namesHint(event: WalEvent): string | undefined {
  if (!dropsFiles(event)) return undefined;
  const known = event.names ?? [];
  const dropped = event.droppedStatistics
    .filter((s) => s.kind === STATISTICS_OF_RELATION)
    .map((s) => Number(s.objectId));
  const oids = (dropped.length > 0 ? dropped : event.changedRelations).filter(
    (oid) => !known.some((one) => one.oid === oid),
  );
  if (oids.length === 0) return undefined;
  const list = `${oids.slice(0, NAMED).join(', ')}${oids.length > NAMED ? ', …' : ''}`;
  return (
    'The WAL has no names of what was dropped. A server that is recovered to before that has: ' +
    `SELECT oid::regclass FROM pg_class WHERE oid IN (${list})`
  );
}

function shownTime(event: WalEvent): TimestampTz | undefined {
  return event.kind === 'checkpoint' ? timestampFromSeconds(event.time) : eventTime(event);
}

function title(event: WalEvent): string {
  switch (event.kind) {
    case 'commit':
    case 'abort':
      return `${event.kind} ${event.prepared ? 'prepared ' : ''}${event.xid}`;
    case 'prepare':
      return `prepare ${event.xid}`;
    case 'restore-point':
      return 'restore point';
    case 'checkpoint':
      return event.shutdown ? 'shutdown checkpoint' : 'checkpoint';
    case 'end-of-recovery':
      return 'end of recovery';
    case 'branch':
      return `timeline ${event.child} begins`;
    case 'damage':
      return 'unreadable';
  }
}

function detailsOf(event: WalEvent): string[] {
  switch (event.kind) {
    case 'commit':
    case 'abort':
      return transactionDetails(event);
    case 'prepare':
      return [
        `prepared as "${event.gid}"`,
        ...named('will remove', event.droppedOnCommit.map(formatRelation)),
      ];
    case 'restore-point':
      return [`"${event.name}"`];
    case 'checkpoint':
      return [`redo at ${formatLsn(event.redo)}`];
    case 'end-of-recovery':
      return [`timeline ${event.timeline}, before it ${event.previousTimeline}`];
    case 'branch':
      return [
        `leaves timeline ${event.parent}${event.followed ? '' : ' (not followed here)'}` +
          `${event.reason === '' ? '' : `: ${event.reason}`}`,
      ];
    case 'damage':
      return [damageText(event)];
  }
}

export function damageText(event: Extract<WalEvent, { kind: 'damage' }>): string {
  const resumed =
    event.resumedAt === undefined ? '' : `; reading went on at ${formatLsn(event.resumedAt)}`;
  return `${event.message} (at ${formatLsn(event.lsn)}${resumed})`;
}

function transactionDetails(event: TransactionEvent): string[] {
  const relations = event.droppedStatistics
    .filter((s) => s.kind === STATISTICS_OF_RELATION)
    .map((s) => String(s.objectId));
  const commit = event.kind === 'commit';
  return [
    ...(event.gid === undefined ? [] : [`prepared as "${event.gid}"`]),
    ...named('subtransactions', event.subxids.map(String)),
    // An abort removes what it created itself: nobody misses that.
    ...(commit ? named('dropped relations (OID)', relations) : []),
    ...(dropsFiles(event) && relations.length === 0
      ? named('relations concerned (OID)', event.changedRelations.map(String))
      : []),
    ...(commit && event.names ? named('last known names', event.names.map(knownName)) : []),
    ...(commit ? named('removed files', event.dropped.map(formatRelation)) : []),
    ...(dropsFiles(event) ? named('new files', event.created.map(formatRelation)) : []),
    ...(commit ? named('emptied files', event.emptied.map(formatRelation)) : []),
    ...event.droppedDatabases.map((d) => `dropped database ${d.dbOid} (OID)`),
  ];
}

const knownName = ({ name, asOf }: KnownName): string => `${name} (at ${formatLsn(asOf)})`;

function named(label: string, items: readonly string[]): string[] {
  if (items.length === 0) return [];
  const more = items.length > NAMED ? ` and ${items.length - NAMED} more` : '';
  return [`${label}: ${items.slice(0, NAMED).join(' ')}${more}`];
}

/** An event as an object for JSON: LSNs as PostgreSQL writes them, times as ISO 8601 in UTC. */
export function jsonEvent(event: WalEvent): Record<string, unknown> {
  const { kind, lsn, ...rest } = event;
  const lsns = ['endLsn', 'redo', 'undoLsn', 'from', 'resumedAt'];
  const members = Object.entries(rest).map(([key, value]: [string, unknown]) => {
    if (key === 'time') return [key, formatIsoTimestamp(shownTime(event)!)];
    if (lsns.includes(key)) return [key, formatLsn(value as bigint)];
    if (key === 'names') return [key, (value as KnownName[]).map(withLsn)];
    if (key === 'origin') return [key, originOf(value as Origin)];
    if (key === 'droppedStatistics') return [key, (value as DroppedStatistics[]).map(withNumber)];
    return [key, typeof value === 'bigint' ? Number(value) : value];
  });
  return { kind, lsn: formatLsn(lsn), ...Object.fromEntries(members) };
}

type Origin = NonNullable<TransactionEvent['origin']>;

const withNumber = (s: DroppedStatistics) => ({ ...s, objectId: Number(s.objectId) });

const withLsn = ({ asOf, ...name }: KnownName) => ({ ...name, asOf: formatLsn(asOf) });

const originOf = ({ lsn, time }: Origin) => ({
  lsn: formatLsn(lsn),
  time: formatIsoTimestamp(time),
});
