import { join } from 'node:path';
import type { ReplicationConnection } from '../connection/connection.js';
import { type ParseError, ProtocolError, TimelineConflictError } from '../errors.js';
import { storageError, writeFileDurably } from '../storage/durable.js';
import type { FileSystem } from '../storage/file-system.js';
import { historyFileName } from '../wal/file-name.js';
import { formatLsn, type Lsn } from '../wal/lsn.js';
import {
  childTimeline,
  parseTimelineHistory,
  rootHistory,
  type TimelineHistory,
  timelineEnd,
} from '../wal/timeline.js';
import type { ServerState } from './server-state.js';

async function readLocal(
  fs: FileSystem,
  directory: string,
  timeline: number,
): Promise<Buffer | undefined> {
  const path = join(directory, historyFileName(timeline));
  return fs.readFile(path).catch((e: NodeJS.ErrnoException) => {
    if (e.code === 'ENOENT') return undefined;
    throw storageError('read file', path, e);
  });
}

function conflict(directory: string, timeline: number, expected: string, actual: string): never {
  throw new TimelineConflictError(
    `timeline ${timeline} of the server is not the timeline ${timeline} that is stored here: their histories differ`,
    {
      path: join(directory, historyFileName(timeline)),
      expected,
      actual,
      hint: 'Two servers were promoted from one parent. Use a new directory for this one.',
    },
  );
}

/**
 * Compares the server's history with the history files stored here: two standbys promoted from
 * one parent both become the next timeline of one system identifier, and only this tells.
 * @throws TimelineConflictError
 */
export async function checkHistories(
  directory: string,
  server: ServerState,
  timelines: readonly number[],
  fs: FileSystem,
): Promise<void> {
  for (const timeline of timelines) {
    const stored = await readLocal(fs, directory, timeline);
    if (!stored) continue;
    if (timeline === server.timeline && server.historyFile) {
      if (!stored.equals(server.historyFile)) {
        conflict(
          directory,
          timeline,
          stored.toString('latin1'),
          server.historyFile.toString('latin1'),
        );
      }
    } else if (server.history.ancestors.some((a) => a.timeline === timeline)) {
      const local = parseTimelineHistory(timeline, stored.toString('latin1'));
      const ours = describe(local);
      const theirs = describe({
        timeline,
        ancestors: server.history.ancestors.filter((a) => a.timeline < timeline),
      });
      if (ours !== theirs) conflict(directory, timeline, ours, theirs);
    }
  }
}

function describe(history: TimelineHistory): string {
  return history.ancestors.map((a) => `${a.timeline} until ${formatLsn(a.end)}`).join(', ');
}

/**
 * The server's history of a timeline above 1.
 * @throws ProtocolError if it is none, or names no parent, as every real one does
 */
export function readServerHistory(timeline: number, content: Buffer): TimelineHistory {
  let history: TimelineHistory;
  try {
    history = parseTimelineHistory(timeline, content.toString('latin1'));
  } catch (cause) {
    const { message, hint } = cause as ParseError;
    throw new ProtocolError(message, { cause, ...(hint === undefined ? {} : { hint }) });
  }
  if (history.ancestors.length > 0) return history;
  throw new ProtocolError(`server sent an empty history of timeline ${timeline}`);
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
 * yet. It carries no checksum, and what is stored is believed for ever: so two answers must agree,
 * and where the server has told the fork, that too.
 * @throws ProtocolError, ParseError, StorageError
 */
export async function ensureHistoryFile(
  connection: ReplicationConnection,
  directory: string,
  timeline: number,
  { known, fork, ...how }: HistoryOptions,
): Promise<TimelineHistory> {
  if (timeline === 1) return rootHistory(timeline);
  const stored = await readLocal(how.fs, directory, timeline);
  if (stored) {
    const history = parseTimelineHistory(timeline, stored.toString('latin1'));
    checkFork(history, fork);
    return history;
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
  await writeFileDurably(path, content, { ...how, temporary: `${path}.tmp` });
  return history;
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
