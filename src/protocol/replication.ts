import { ProtocolError, ServerError, UsageError } from '../errors.js';
import { formatLsn, type Lsn, parseLsn } from '../lsn.js';
import {
  aName,
  anLsn,
  aSwitch,
  aTimeline,
  type Checks,
  checkOptions,
  required,
} from '../options.js';
import type { ResultField } from './backend-message.js';

/** One result of a command; a value is its text as bytes, or null. */
export interface QueryResult {
  fields: ResultField[];
  rows: (Buffer | null)[][];
  commandTag: string;
}

/** Answer to IDENTIFY_SYSTEM. */
export interface SystemIdentification {
  /** Unsigned 64-bit identifier of the cluster. */
  systemId: bigint;
  timeline: number;
  /** Flush position of the server; on a standby the replayed or received position. */
  flushLsn: Lsn;
  /** Database of the connection; null for physical replication. */
  database: string | null;
}

/** Answer to READ_REPLICATION_SLOT; undefined fields were NULL (nothing reserved yet, or lost). */
export interface SlotPosition {
  restartLsn: Lsn | undefined;
  restartTimeline: number | undefined;
}

/** Answer to TIMELINE_HISTORY. */
export interface TimelineHistoryFile {
  fileName: string;
  /** The file's bytes; no encoding is promised. */
  content: Buffer;
}

/** Why a stream ended: the timeline ended and another begins, or there is no more to come. */
export type StreamEnd =
  | { kind: 'timeline'; timeline: number; startLsn: Lsn }
  | { kind: 'shutdown' };

/** First version with READ_REPLICATION_SLOT and parenthesised slot options. */
const PG15 = 150000;

/** An identifier in double quotes. @throws UsageError if it cannot be one. */
export function quoteIdentifier(name: string): string {
  if (name === '' || name.includes('\0')) {
    throw new UsageError(`invalid name of a replication slot: ${JSON.stringify(name)}`);
  }
  return `"${name.replaceAll('"', '""')}"`;
}

export function identifySystemCommand(): string {
  return 'IDENTIFY_SYSTEM';
}

/** @throws ProtocolError if the result is not one row of at least four readable fields. */
export function parseIdentifySystem(result: QueryResult): SystemIdentification {
  const row = oneRow(result, 'could not identify system', 4, 'or more');
  const systemId = text(row[0]);
  if (!/^\d{1,20}$/.test(systemId) || BigInt(systemId) > 0xffff_ffff_ffff_ffffn) {
    throw new ProtocolError(`could not parse system identifier "${systemId}"`);
  }
  return {
    systemId: BigInt(systemId),
    timeline: timelineOf(text(row[1])),
    flushLsn: lsnOf(text(row[2]), (t) => `could not parse write-ahead log location "${t}"`),
    database: row[3] ? text(row[3]) : null,
  };
}

/** @throws UsageError unless `name` is a parameter name. */
export function showCommand(name: string): string {
  if (!/^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$/.test(name)) {
    throw new UsageError(`invalid parameter name ${JSON.stringify(name)}`);
  }
  return `SHOW ${name}`;
}

/** @throws ProtocolError if the result is not one row. */
export function parseShow(result: QueryResult, name: string): string {
  return text(oneRow(result, `could not fetch parameter "${name}"`, 1, 'or more')[0]);
}

/** What a new slot is like. */
export interface SlotOptions {
  /** Reserve WAL at once instead of at first use. */
  reserveWal?: boolean;
  /** Dropped with the connection. */
  temporary?: boolean;
}

const SLOT_CHECKS: Checks<SlotOptions> = { reserveWal: aSwitch, temporary: aSwitch };

export function createPhysicalSlotCommand(
  name: string,
  options: SlotOptions,
  serverVersion: number,
): string {
  checkOptions('createPhysicalSlot', options, SLOT_CHECKS);
  let sql = `CREATE_REPLICATION_SLOT ${quoteIdentifier(name)}`;
  if (options.temporary) sql += ' TEMPORARY';
  sql += ' PHYSICAL';
  if (options.reserveWal) sql += serverVersion >= PG15 ? ' (RESERVE_WAL)' : ' RESERVE_WAL';
  return sql;
}

/** @throws ProtocolError if the result is not one row of four fields. */
export function parseCreateSlot(result: QueryResult, name: string): void {
  oneRow(result, `could not create replication slot "${name}"`, 4);
}

export function dropSlotCommand(name: string): string {
  return `DROP_REPLICATION_SLOT ${quoteIdentifier(name)}`;
}

/** @throws ProtocolError if the command returned rows. */
export function parseDropSlot(result: QueryResult, name: string): void {
  if (result.rows.length !== 0 || result.fields.length !== 0) {
    throw shape(result, `could not drop replication slot "${name}"`, 0, 0);
  }
}

/** @throws ServerError for a server older than 15, which does not have the command. */
export function readReplicationSlotCommand(name: string, serverVersion: number): string {
  if (serverVersion < PG15) {
    throw new ServerError('READ_REPLICATION_SLOT needs PostgreSQL 15 or newer', {
      sqlstate: '0A000',
    });
  }
  return `READ_REPLICATION_SLOT ${quoteIdentifier(name)}`;
}

/** Undefined if there is no such slot. @throws ProtocolError for another shape or slot type. */
export function parseReadReplicationSlot(
  result: QueryResult,
  name: string,
): SlotPosition | undefined {
  const row = oneRow(result, `could not read replication slot "${name}"`, 3);
  if (!row[0]) return undefined;
  const type = text(row[0]);
  if (type !== 'physical') {
    throw new ProtocolError(`expected a physical replication slot, got type "${type}" instead`);
  }
  return {
    restartLsn: row[1]
      ? lsnOf(
          text(row[1]),
          (t) => `could not parse restart_lsn "${t}" for replication slot "${name}"`,
        )
      : undefined,
    restartTimeline: row[2] ? timelineOf(text(row[2])) : undefined,
  };
}

/** @throws UsageError if it is no timeline. */
export function timelineHistoryCommand(timeline: number): string {
  return `TIMELINE_HISTORY ${checkedTimeline(timeline)}`;
}

/** @throws ProtocolError if it is not one row of two fields, or of another timeline. */
export function parseTimelineHistory(result: QueryResult, timeline: number): TimelineHistoryFile {
  const row = oneRow(result, 'unexpected response to TIMELINE_HISTORY command', 2);
  const fileName = text(row[0]);
  const expected = `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
  // The name is the server's word; it must never be able to name another file.
  if (fileName !== expected) {
    throw new ProtocolError(
      `server reported unexpected history file name for timeline ${timeline}: ${fileName}`,
      { expected, actual: fileName },
    );
  }
  return { fileName, content: row[1] ?? Buffer.alloc(0) };
}

/** Where and how to stream. */
export interface StartReplicationOptions {
  slot?: string | undefined;
  startLsn: Lsn;
  timeline: number;
}

const START_CHECKS: Checks<StartReplicationOptions> = {
  slot: aName,
  startLsn: required(anLsn),
  timeline: required(aTimeline),
};

export function startReplicationCommand(options: StartReplicationOptions): string {
  checkOptions('startReplication', options, START_CHECKS);
  const slot = options.slot === undefined ? '' : `SLOT ${quoteIdentifier(options.slot)} `;
  const lsn = formatLsn(options.startLsn);
  return `START_REPLICATION ${slot}${lsn} TIMELINE ${checkedTimeline(options.timeline)}`;
}

/**
 * Reads the result that ends a stream: one row `next_tli, next_tli_startpos`, or none after a
 * shutdown or a stop that we asked for. @throws ProtocolError for anything else.
 */
export function parseStreamEnd(result: QueryResult): StreamEnd {
  if (result.fields.length === 0 && result.rows.length === 0) return { kind: 'shutdown' };
  const row = result.rows[0];
  if (result.rows.length !== 1 || result.fields.length < 2 || !row) {
    throw shape(result, 'unexpected result set after end-of-timeline', 1, 2);
  }
  return {
    kind: 'timeline',
    timeline: timelineOf(text(row[0])),
    startLsn: lsnOf(text(row[1]), (t) => `could not parse next timeline's starting point "${t}"`),
  };
}

function oneRow(
  result: QueryResult,
  what: string,
  fields: number,
  more: '' | 'or more' = '',
): (Buffer | null)[] {
  const row = result.rows[0];
  const got = result.fields.length;
  const fits = more ? got >= fields : got === fields;
  if (result.rows.length !== 1 || !row || row.length !== got || !fits) {
    throw shape(result, what, 1, fields, more);
  }
  return row;
}

function shape(
  result: QueryResult,
  what: string,
  rows: number,
  fields: number,
  more = '',
): ProtocolError {
  const expected = `${rows} rows and ${fields}${more && ` ${more}`} fields`;
  const actual = `${result.rows.length} rows and ${result.fields.length} fields`;
  return new ProtocolError(`${what}: got ${actual}, expected ${expected}`, { expected, actual });
}

function text(value: Buffer | null | undefined): string {
  return value ? value.toString('utf8') : '';
}

function timelineOf(value: string): number {
  const timeline = /^\d{1,10}$/.test(value) ? Number(value) : 0;
  if (timeline < 1 || timeline > 0xffff_ffff) {
    throw new ProtocolError(`could not parse timeline "${value}"`);
  }
  return timeline;
}

function lsnOf(value: string, message: (value: string) => string): Lsn {
  try {
    return parseLsn(value);
  } catch (cause) {
    throw new ProtocolError(message(value), { cause });
  }
}

function checkedTimeline(timeline: number): number {
  if (!Number.isInteger(timeline) || timeline < 1 || timeline > 0xffff_ffff) {
    throw new UsageError(`invalid timeline ${timeline}`);
  }
  return timeline;
}
