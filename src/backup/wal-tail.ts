import type { ReadableSegment } from '../archive/good-wal.js';
import type { StoredSegment } from '../archive/segment-source.js';
import { partialSegment, readChecked } from '../archive/shipping/checked-segment.js';
import type { StoreArchiveWriter } from '../archive/store-archive-writer.js';
import type { ReplicationConnection } from '../connection/connection.js';
import type { WalStream } from '../connection/wal-stream.js';
import { CorruptWalError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import type { CopyBothHandler } from '../protocol/frame-reader.js';
import type { ServerState } from '../server/server-state.js';
import { parseSegmentFileName, segmentStart } from '../wal/file-name.js';
import type { MissingWal } from './wal.js';

/**
 * Brings what a store lacks of the last segment: nobody ships that before it is full, or quiet for a
 * minute, and a standby does not end it when a backup ends.
 * @throws what streaming and storing throw; CorruptWalError if what came does not reach far enough
 */
export async function storeTail(
  connection: ReplicationConnection,
  writer: StoreArchiveWriter,
  { systemId, segmentSize, history }: ServerState,
  missing: MissingWal & { end: Lsn },
  signal: AbortSignal | undefined,
): Promise<void> {
  const { name, end } = missing;
  const segment = parseSegmentFileName(name, segmentSize);
  if (!segment) return;
  const start = segmentStart(segment.segment, segmentSize);
  const { timeline } = segment;
  const bytes = await streamed(connection, { startLsn: start, timeline }, end, signal);
  const file: ReadableSegment = {
    read: async (limit, take) => {
      take(bytes.subarray(0, limit));
      return { bytes: bytes.length, end: 'complete', trailingGarbage: false };
    },
  };
  const into = Buffer.alloc(bytes.length);
  const expected = { systemId, segmentSize, history };
  const content = await readChecked(file as StoredSegment, segment, expected, into, bytes.length);
  const wal = partialSegment(content, segment, name, segmentSize);
  if (!wal || wal.end < end) {
    const upTo = formatLsn(wal?.end ?? start);
    throw new CorruptWalError(`the WAL of the server is good up to ${upTo} only`, { lsn: end });
  }
  await writer.putPartial(wal, signal);
}

/** The WAL from the start of a segment to `end` at least, or to the end of the segment's timeline. */
async function streamed(
  connection: ReplicationConnection,
  from: { startLsn: Lsn; timeline: number },
  end: Lsn,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const wanted = Number(end - from.startLsn);
  const bytes = Buffer.alloc(wanted);
  let have = 0;
  let settle: (failed?: unknown) => void = () => {};
  const enough = new Promise<void>((resolve, reject) => {
    settle = (error) => (error === undefined ? resolve() : reject(error));
  });
  enough.catch(() => {});
  const handler: CopyBothHandler = {
    onWalHeader: () => {},
    onWalBytes: (chunk) => {
      have += chunk.copy(bytes, have, 0, Math.min(chunk.length, wanted - have));
      if (have === wanted) settle();
    },
    onWalMessageEnd: () => {},
    onKeepalive: () => {},
    onReadEnd: () => {},
    onServerCopyDone: () => settle(),
    onFailure: (error) => settle(error),
  };
  const abort = (): void => settle(signal?.reason);
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted) abort();
  try {
    const stream = await connection.startReplication(from, handler);
    if (!('finish' in stream)) return bytes.subarray(0, have);
    await enough;
    await (stream as WalStream).finish();
    return bytes.subarray(0, have);
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}
