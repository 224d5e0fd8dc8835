import { basename } from 'node:path';
import { findComplete, readStored } from '../../archive/lead-in.js';
import type { ReplicationConnection } from '../../connection/connection.js';
import { RewriteError, ServerError, type WalkeepError, WalRemovedError } from '../../errors.js';
import type { FileSystem } from '../../files/file-system.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import type { CopyBothHandler } from '../../protocol/frame-reader.js';
import type { ServerState } from '../../server/server-state.js';
import { segmentOf, segmentStart } from '../../wal/file-name.js';
import { timelineAt } from '../../wal/timeline.js';

/** Bytes that are compared at most. Behind the place where two servers part all of their WAL differs. */
const WINDOW = 1024n * 1024n;

/**
 * Compares the server's WAL right before `end` with the complete segment stored of it. A cluster that
 * was cloned, or restored from an older copy, on the same timeline tells nothing of that: its WAL
 * does not fit to what is stored, which is no damage, or ends before it, which does not pass.
 * Undefined if there is nothing to compare, here or there.
 * @returns true if it is the same
 * @throws RewriteError, StorageError, ConnectionError
 */
export async function isSameWal(
  connection: ReplicationConnection,
  directory: string,
  server: Pick<ServerState, 'segmentSize' | 'history'>,
  end: Lsn,
  fs: FileSystem,
): Promise<true | undefined> {
  if (end === 0n) return undefined;
  const { segmentSize, history } = server;
  const segment = segmentOf(end - 1n, segmentSize);
  const begin = segmentStart(segment, segmentSize);
  const timeline = timelineAt(history, begin + BigInt(segmentSize) - 1n);
  const file = findComplete(directory, { startLsn: begin, ...server, timeline }, segment, fs);
  if (!file) return undefined;
  const from = (end - begin > WINDOW ? end - WINDOW : begin) as Lsn;
  const stored = await readPart(file, segmentSize, Number(from - begin), Number(end - begin), fs);
  if (!stored) return undefined;
  const at = await firstDifference(connection, timeline, from, stored);
  if (at === undefined || at === stored.length) return at === undefined ? undefined : true;
  const lsn = (from + BigInt(at)) as Lsn;
  throw new RewriteError(
    `the server has other WAL at ${formatLsn(lsn)} (timeline ${timeline}) than what is stored in "${basename(file.path)}": it went its own way on the same timeline`,
    {
      lsn,
      path: file.path,
      hint: 'It was restored from an older copy, or is a clone of the server that was archived here. Nothing was overwritten; use a new directory for it.',
    },
  );
}

async function readPart(
  file: NonNullable<ReturnType<typeof findComplete>>,
  segmentSize: number,
  from: number,
  to: number,
  fs: FileSystem,
): Promise<Buffer | undefined> {
  const part = Buffer.alloc(to - from);
  let at = 0;
  const feed = (chunk: Uint8Array): void => {
    const skip = Math.max(0, from - at);
    if (skip < chunk.length && at < to) {
      part.set(chunk.subarray(skip, Math.min(chunk.length, to - at)), at + skip - from);
    }
    at += chunk.length;
  };
  const refused = await readStored(file, segmentSize, feed, fs);
  return refused === undefined && at >= to ? part : undefined;
}

/**
 * Where the server's WAL from `from` on differs from `stored`; its length if it does not. Undefined
 * if the server does not send it.
 */
async function firstDifference(
  connection: ReplicationConnection,
  timeline: number,
  from: Lsn,
  stored: Buffer,
): Promise<number | undefined> {
  let at = 0;
  let differs = false;
  let settle: (result: boolean | WalkeepError) => void = () => {};
  const over = new Promise<boolean | WalkeepError>((resolve) => {
    settle = resolve;
  });
  const handler: CopyBothHandler = {
    onWalHeader: (walStart) => {
      if (!differs && at < stored.length && Number(walStart - from) !== at) settle(false);
    },
    onWalBytes: (chunk) => {
      const expected = stored.subarray(at, at + chunk.length);
      if (differs || expected.length === 0) return;
      const news = chunk.subarray(0, expected.length);
      differs = !news.equals(expected);
      at += differs ? news.findIndex((byte, i) => byte !== expected[i]) : news.length;
      if (differs || at === stored.length) settle(true);
    },
    onWalMessageEnd: () => {},
    onKeepalive: () => {},
    onReadEnd: () => {},
    onServerCopyDone: () => settle(false),
    onFailure: settle,
  };
  void connection.ended.then(() => settle(false));
  // Without the slot: nothing of it is to move.
  const asked = connection.startReplication({ startLsn: from, timeline }, handler);
  const stream = await asked.catch(settle);
  if (!stream || 'kind' in stream) settle(false);
  const result = await over;
  if (typeof result !== 'boolean') {
    // It does not have that WAL any more, or not yet.
    if (result instanceof ServerError && !connection.closed) return undefined;
    throw result;
  }
  if (stream && !('kind' in stream)) await stream.finish();
  return result ? at : undefined;
}

/** The error of a server that is asked for what comes behind its WAL, with what that can mean. */
export function explainBehind(
  error: unknown,
  { flushLsn, timeline }: Pick<ServerState, 'flushLsn' | 'timeline'>,
  at: { lsn: Lsn; timeline: number },
): unknown {
  if (!(error instanceof ServerError) || error.hint !== undefined) return error;
  if (at.timeline !== timeline || flushLsn >= at.lsn || error instanceof WalRemovedError)
    return error;
  const { message, sqlstate, severity, detail } = error;
  return new ServerError(message, {
    ...{ sqlstate, severity, lsn: at.lsn, cause: error },
    ...(detail === undefined ? {} : { detail }),
    hint: `The server ends at ${formatLsn(flushLsn)}, before what is stored. A standby that lags behind catches up; a server that was restored from an older copy does not get this WAL any more and needs a new directory.`,
  });
}
