import { ProtocolError, ServerError } from '../errors.js';
import { historyFileName } from '../wal/file-name.js';
import { judgeHistory } from '../wal/history-file.js';
import type { TimelineHistory } from '../wal/timeline.js';

/**
 * The server's history of a timeline above 1.
 * @throws ProtocolError if it is none, or names no parent, as every real one does
 */
export function readServerHistory(timeline: number, content: Buffer): TimelineHistory {
  const judged = judgeHistory(historyFileName(timeline), timeline, content);
  if (judged.state === 'good') return judged.history;
  throw new ProtocolError(
    `server sent no history of timeline ${timeline}: ${judged.problem.detail}`,
    {
      cause: judged.problem,
      hint: 'Its file in pg_wal may be damaged: put a good copy in its place.',
    },
  );
}

/** True for the answer of a server that has no file of that name: undefined_file. */
export function isLostFile(error: unknown): error is ServerError {
  return error instanceof ServerError && error.sqlstate === '58P01';
}
