import type { ReplicationConnection } from '../connection/connection.js';
import { CorruptWalError, ParseError, ProtocolError, ServerError, UsageError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { MISSING_SLOT } from '../protocol/server-error.js';
import { historyFileName } from '../wal/file-name.js';
import type { StoredHistory } from '../wal/history-file.js';
import { rootHistory, type TimelineHistory } from '../wal/timeline.js';
import { isLostFile, readServerHistory } from './server-history.js';

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

/** What helps where a server has lost its own history file. */
export interface StoredHistories {
  read(timeline: number): Promise<StoredHistory>;
  warn?(code: string, message: string): void;
}

/** Asks what has to be known before streaming, in pg_receivewal's order. */
export async function readServerState(
  connection: ReplicationConnection,
  stored?: StoredHistories,
): Promise<ServerState> {
  const fileMode = parseDataDirectoryMode(await connection.show('data_directory_mode'));
  const identity = await connection.identifySystem();
  if (identity.database !== null) {
    throw new UsageError('replication connection is unexpectedly database specific', {
      actual: identity.database,
    });
  }
  const segmentSize = await connection.segmentSize();
  const { systemId, timeline, flushLsn } = identity;
  const { history, historyFile } = await serverHistory(connection, timeline, stored);
  return { systemId, timeline, flushLsn, segmentSize, fileMode, history, historyFile };
}

type HistoryState = Pick<ServerState, 'history' | 'historyFile'>;

/**
 * The history of the server's timeline. A server needs the file for nothing but answering: without
 * it, it runs and streams, and a good copy in the archive tells the same.
 */
async function serverHistory(
  connection: ReplicationConnection,
  timeline: number,
  stored: StoredHistories | undefined,
): Promise<HistoryState> {
  if (timeline === 1) return { history: rootHistory(1), historyFile: undefined };
  try {
    const { content } = await connection.timelineHistory(timeline);
    return { history: readServerHistory(timeline, content), historyFile: content };
  } catch (e) {
    const lost =
      isLostFile(e) || (e instanceof ProtocolError && e.cause instanceof CorruptWalError);
    const ours = lost ? await stored?.read(timeline) : undefined;
    if (ours?.state === 'good') {
      const name = historyFileName(timeline);
      stored?.warn?.(
        'WK_SERVER_HISTORY',
        `the server has lost its history file "${name}": going on with the one that is stored here; copy that to its pg_wal, standbys and pg_rewind need it`,
      );
      return { history: ours.history, historyFile: ours.content };
    }
    if (!isLostFile(e)) throw e;
    const { message, sqlstate, severity, detail } = e;
    throw new ServerError(message, {
      ...{ sqlstate, severity, cause: e },
      ...(detail === undefined ? {} : { detail }),
      hint: 'The server has lost the history of its timeline: put a copy into its pg_wal, from a standby, a backup or an archive.',
    });
  }
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
  /** Made now: there was none, or it kept nothing, and was dropped and created again. */
  made?: 'created' | 'replaced';
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
  let made: SlotState['made'];
  if (ensure && (invalid || (slot !== undefined && slot.restartLsn === undefined))) {
    await connection.dropSlot(name);
    slot = undefined;
    made = 'replaced';
  }
  if (!slot && ensure) {
    try {
      await connection.createPhysicalSlot(name, { reserveWal: true });
      made ??= 'created';
    } catch (e) {
      const exists = e instanceof ServerError && e.sqlstate === '42710';
      if (!exists) throw e;
    }
    slot = await read();
  }
  if (!slot && readable) {
    throw new ServerError(`replication slot "${name}" does not exist`, {
      sqlstate: '42704',
      hint: MISSING_SLOT,
    });
  }
  return {
    name,
    readable,
    ...(made === undefined ? {} : { made }),
    ...(slot?.restartLsn === undefined ? {} : { restartLsn: slot.restartLsn }),
    ...(slot?.restartTimeline === undefined ? {} : { restartTimeline: slot.restartTimeline }),
  };
}
