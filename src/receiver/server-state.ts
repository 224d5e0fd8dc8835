import type { ReplicationConnection } from '../connection/connection.js';
import { ParseError, ServerError, UsageError } from '../errors.js';
import { parseSegmentSize } from '../wal/file-name.js';
import type { Lsn } from '../wal/lsn.js';
import { rootHistory, type TimelineHistory } from '../wal/timeline.js';
import { readServerHistory } from './history-files.js';

/** What one connection says about its server. */
export interface ServerState {
  systemId: bigint;
  timeline: number;
  flushLsn: Lsn;
  segmentSize: number;
  /** Permission bits for files, after data_directory_mode. */
  fileMode: number;
  history: TimelineHistory;
  /** The current timeline's history file; undefined on timeline 1, which has none. */
  historyFile: Buffer | undefined;
}

/** Asks what has to be known before streaming, in pg_receivewal's order. */
export async function readServerState(connection: ReplicationConnection): Promise<ServerState> {
  const fileMode = parseDataDirectoryMode(await connection.show('data_directory_mode'));
  const identity = await connection.identifySystem();
  if (identity.database !== null) {
    throw new UsageError('replication connection is unexpectedly database specific', {
      actual: identity.database,
    });
  }
  const segmentSize = parseSegmentSize(await connection.show('wal_segment_size'));
  const { systemId, timeline, flushLsn } = identity;
  const file = timeline > 1 ? await connection.timelineHistory(timeline) : undefined;
  const history = file ? readServerHistory(timeline, file.content) : rootHistory(timeline);
  const historyFile = file?.content;
  return { systemId, timeline, flushLsn, segmentSize, fileMode, history, historyFile };
}

/** 0640 if the server's data directory gives the group access, else 0600 (common/file_perm.c). */
function parseDataDirectoryMode(text: string): number {
  const mode = /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
  if (Number.isNaN(mode)) throw new ParseError(`group access flag could not be parsed: ${text}`);
  return mode & 0o050 ? 0o640 : 0o600;
}

/** What to do about a slot that is not as it should be. */
export interface EnsureSlot {
  /** Create it if it is missing, and anew if it keeps no WAL (any more). */
  ensure: boolean;
  /** The server said that it is invalid, which its position alone does not tell. */
  invalid?: boolean;
}

/** A slot's place. `readable`: the server can tell of slots (15 and newer). */
export interface SlotState {
  name: string;
  readable: boolean;
  restartLsn?: Lsn;
  restartTimeline?: number;
  /** It was there and kept nothing, and was dropped and created again. */
  replaced: boolean;
}

/**
 * The slot's place. With `ensure` one that is missing is created. One that was invalidated, or
 * never reserved anything, is replaced: it holds no WAL, so nothing is lost with it, and from
 * PostgreSQL 16 on it never would again, though it can be streamed from up to 17.
 */
export async function readSlot(
  connection: ReplicationConnection,
  name: string,
  { ensure, invalid = false }: EnsureSlot,
): Promise<SlotState> {
  const readable = connection.serverVersion >= 150000;
  const read = async () => (readable ? connection.readReplicationSlot(name) : undefined);
  let slot = await read();
  const replaced = ensure && (invalid || (slot !== undefined && slot.restartLsn === undefined));
  if (replaced) {
    await connection.dropSlot(name);
    slot = undefined;
  }
  if (!slot && ensure) {
    try {
      await connection.createPhysicalSlot(name, { reserveWal: true });
    } catch (e) {
      const exists = e instanceof ServerError && e.sqlstate === '42710';
      if (!exists) throw e;
    }
    slot = await read();
  }
  if (!slot && readable) {
    throw new ServerError(`replication slot "${name}" does not exist`, {
      sqlstate: '42704',
      hint: 'Create it with --create-slot.',
    });
  }
  return {
    name,
    readable,
    replaced,
    ...(slot?.restartLsn === undefined ? {} : { restartLsn: slot.restartLsn }),
    ...(slot?.restartTimeline === undefined ? {} : { restartTimeline: slot.restartTimeline }),
  };
}
