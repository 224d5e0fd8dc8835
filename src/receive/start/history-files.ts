import { join } from 'node:path';
import { keepDamaged, readStoredHistory } from '../../archive/history.js';
import type { ReplicationConnection } from '../../connection/connection.js';
import { ProtocolError, TimelineConflictError } from '../../errors.js';
import { writeFileDurably } from '../../files/durable.js';
import type { FileSystem } from '../../files/file-system.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import { isLostFile, readServerHistory } from '../../server/server-history.js';
import type { ServerState } from '../../server/server-state.js';
import { historyFileName } from '../../wal/file-name.js';
import type { StoredHistory } from '../../wal/history-file.js';
import {
  childTimeline,
  isInHistory,
  rootHistory,
  type TimelineHistory,
  timelineEnd,
} from '../../wal/timeline.js';

function conflict(
  directory: string,
  timeline: number,
  { expected, actual, followed }: { expected: string; actual: string; followed: boolean },
): never {
  throw new TimelineConflictError(
    `timeline ${timeline} of the server is not the timeline ${timeline} that is stored here: their histories differ`,
    {
      path: join(directory, historyFileName(timeline)),
      expected,
      actual,
      hint: followed
        ? 'Two servers were promoted from one parent. Use a new directory for this one.'
        : `Nothing of the stored one was ever received here: if a clone pushed it, move its files (${historyFileName(timeline).slice(0, 8)}*) out of the directory.`,
    },
  );
}

/** What is stored here of the histories of the server's timelines. @throws StorageError */
export async function readHistories(
  directory: string,
  server: Pick<ServerState, 'history'>,
  timelines: readonly number[],
  fs: FileSystem,
): Promise<Map<number, StoredHistory>> {
  const histories = new Map<number, StoredHistory>();
  for (const timeline of timelines) {
    if (!isInHistory(server.history, timeline)) continue;
    histories.set(timeline, await readStoredHistory(directory, timeline, fs));
  }
  return histories;
}

/**
 * Compares the server's history with the history files stored here: two standbys promoted from
 * one parent both become the next timeline of one system identifier, and only this tells. A damaged
 * file says nothing, and is not believed either way. Pure.
 * @param followed whether WAL of a timeline was received here before
 * @returns the timelines of the server whose files here are damaged
 * @throws TimelineConflictError
 */
export function checkHistories(
  histories: ReadonlyMap<number, StoredHistory>,
  server: ServerState,
  { directory, followed }: { directory: string; followed: (timeline: number) => boolean },
): number[] {
  const damaged: number[] = [];
  for (const [timeline, stored] of histories) {
    if (stored.state === 'absent') continue;
    if (stored.state === 'damaged') {
      damaged.push(timeline);
      continue;
    }
    if (timeline === server.timeline && server.historyFile) {
      if (stored.content.equals(server.historyFile)) continue;
      conflict(directory, timeline, {
        expected: stored.content.toString('latin1'),
        actual: server.historyFile.toString('latin1'),
        followed: followed(timeline),
      });
    }
    const expected = describe(stored.history);
    const actual = describe(ancestorHistory(server.history, timeline));
    if (expected !== actual) {
      conflict(directory, timeline, { expected, actual, followed: followed(timeline) });
    }
  }
  return damaged;
}

/** The history of a timeline as that of one that descends from it tells it. */
export function ancestorHistory({ ancestors }: TimelineHistory, timeline: number): TimelineHistory {
  return { timeline, ancestors: ancestors.filter((a) => a.timeline < timeline) };
}

function describe(history: TimelineHistory): string {
  return history.ancestors.map((a) => `${a.timeline} until ${formatLsn(a.end)}`).join(', ');
}

/** Where a timeline was left for another one, as the server said it. */
export interface Fork {
  parent: number;
  lsn: Lsn;
}

/** How a history file is stored, and what it has to agree with. */
export interface HistoryOptions {
  mode: number;
  sync: boolean;
  fs: FileSystem;
  /** What the server answered before, if it was asked. */
  known?: Buffer | undefined;
  fork?: Fork | undefined;
}

/**
 * The history of a timeline. Fetches and stores the history file of one above 1 that is not here
 * yet, or only damaged. It carries no checksum, and what is stored is believed for ever: so two answers must agree,
 * and where the server has told the fork, that too.
 * @throws ProtocolError, StorageError
 */
export async function ensureHistoryFile(
  connection: ReplicationConnection,
  directory: string,
  timeline: number,
  { known, fork, ...how }: HistoryOptions,
): Promise<TimelineHistory> {
  if (timeline === 1) return rootHistory(timeline);
  const stored = await readStoredHistory(directory, timeline, how.fs);
  if (stored.state === 'good') {
    checkFork(stored.history, fork);
    return stored.history;
  }
  const { fileName, content } = await connection.timelineHistory(timeline);
  const expected = historyFileName(timeline);
  // The name is the server's: anything else might lead out of the directory.
  if (fileName !== expected) {
    throw new ProtocolError(
      `server reported unexpected history file name for timeline ${timeline}: ${fileName}`,
      { expected, actual: fileName },
    );
  }
  const other = known ?? (await connection.timelineHistory(timeline)).content;
  if (!content.equals(other)) {
    throw new ProtocolError(`server reported two different histories for timeline ${timeline}`, {
      expected: other.toString('latin1'),
      actual: content.toString('latin1'),
    });
  }
  const history = readServerHistory(timeline, content);
  checkFork(history, fork);
  const path = join(directory, expected);
  if (stored.state === 'damaged') await keepDamaged(directory, timeline, stored.content, how);
  await writeFileDurably(path, content, { ...how, temporary: `${path}.tmp` });
  return history;
}

/**
 * Puts the server's own history files in the place of damaged ones: an empty file, as a crash leaves
 * it, would make every recovery to that timeline fail.
 */
export async function mendHistories(
  timelines: readonly number[],
  o: {
    directory: string;
    connection: ReplicationConnection;
    server: ServerState;
    sync: boolean;
    fs: FileSystem;
    warn: (code: string, message: string) => void;
  },
): Promise<void> {
  for (const timeline of timelines) {
    const path = join(o.directory, historyFileName(timeline));
    const known = timeline === o.server.timeline ? o.server.historyFile : undefined;
    const how = { mode: o.server.fileMode, sync: o.sync, fs: o.fs, known };
    try {
      await ensureHistoryFile(o.connection, o.directory, timeline, how);
      o.warn('WK_STORED_DAMAGE', `"${path}" was damaged; it was replaced by the server's`);
    } catch (e) {
      if (!isLostFile(e)) throw e;
      const text = `"${path}" is damaged, and the server has none: put a good copy in its place`;
      o.warn('WK_STORED_DAMAGE', text);
    }
  }
}

/**
 * A timeline that does not begin where its parent was left would leave a hole, or cover one.
 * @throws ProtocolError
 */
export function checkFork(history: TimelineHistory, fork: Fork | undefined): void {
  if (!fork) return;
  const { timeline } = history;
  const end = timelineEnd(history, fork.parent);
  if (end === fork.lsn && childTimeline(history, fork.parent) === timeline) return;
  throw new ProtocolError(
    `server ended timeline ${fork.parent} at ${formatLsn(fork.lsn)} in favour of timeline ${timeline}, whose history says otherwise`,
    {
      lsn: fork.lsn,
      expected: `${fork.parent} until ${formatLsn(fork.lsn)}`,
      actual: describe(history),
      hint: 'If it stays so, the timelines of the server contradict each other.',
    },
  );
}
