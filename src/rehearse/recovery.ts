import type { ReplicationConnection } from '../connection/connection.js';
import { type Lsn, parseLsn } from '../lsn.js';
import { sqlRows } from '../server/sql.js';
import type { RehearseProgress } from './options.js';
import type { Scratch } from './scratch.js';
import type { RehearsalServer } from './server.js';
import { type LogStory, storyOf } from './server-log.js';
import { isNotYet, type Sessions } from './session.js';

const LOOK_EVERY = 50;

const STATE = `SELECT pg_catalog.pg_is_in_recovery() AS recovering,
  CASE WHEN pg_catalog.pg_is_in_recovery()
    THEN pg_catalog.pg_get_wal_replay_pause_state() END AS pause,
  pg_catalog.pg_last_wal_replay_lsn() AS lsn,
  (pg_catalog.date_part('epoch', pg_catalog.pg_last_xact_replay_timestamp()) * 1000)::bigint
    AS committed`;

export interface Reached {
  lsn: Lsn;
  promoted: boolean;
  /** Of the last transaction that was replayed. */
  lastCommit: Date | undefined;
}

export type Recovery = { reached: Reached } | { failed: LogStory } | { paused: LogStory };

export interface RecoveryOptions {
  server: RehearsalServer;
  sessions: Sessions;
  scratch: Scratch;
  promote: boolean;
  /** Segments that are to be replayed. */
  segments: number;
  signal: AbortSignal;
  onProgress: (progress: RehearseProgress) => void;
}

/** Waits until the server stands at its target, or has ended. @throws the signal's reason */
export async function awaitTarget(options: RecoveryOptions): Promise<Recovery> {
  const { server, sessions, scratch, promote, signal, segments } = options;
  let connection: ReplicationConnection | undefined;
  try {
    for (;;) {
      const story = await storyOf(scratch.log);
      options.onProgress({ kind: 'recovery', segments: story.restored, of: segments });
      if (!server.running) return { failed: await storyOf(scratch.log) };
      try {
        connection ??= await sessions.openAny(signal);
        const [row] = await sqlRows(connection, STATE);
        const isPaused = row?.pause === 'paused';
        const isThere = promote ? row?.recovering === 'f' : isPaused;
        if (row && isThere) {
          const now = await storyOf(scratch.log);
          // Settings that are too low pause it as well, before the target.
          if (isPaused && !now.stopping) return { paused: now };
          return {
            reached: {
              lsn: parseLsn(row.lsn ?? '0/0'),
              promoted: row.recovering === 'f',
              lastCommit: row.committed == null ? undefined : new Date(Number(row.committed)),
            },
          };
        }
      } catch (error) {
        signal.throwIfAborted();
        if (!isNotYet(error)) throw error;
        connection?.destroy();
        connection = undefined;
      }
      await server.pause(signal, LOOK_EVERY);
    }
  } finally {
    await connection?.close();
  }
}
