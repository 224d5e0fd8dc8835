import { decompressFile } from '../codec/codec.js';
import { type Compression, type SegmentName, segmentStart } from '../wal/file-name.js';
import type { TimelineHistory } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';

/** What is known of the WAL in a file of a segment. */
export interface KnownWal {
  systemId: bigint;
  /** The ancestors of its timeline; undefined where no history file tells. */
  history: TimelineHistory | undefined;
}

/** How much of a segment a file has, in bytes from the segment's start. */
export interface StoredWal {
  /** Up to the end of the last good record. */
  validLength: number;
  /** Up to the last byte that is not zero: there may be the begin of one more record. */
  contentLength: number;
}

/** Checks the WAL in a file of a segment. @throws StorageError if it cannot be read */
export async function inspectWal(
  path: string,
  compression: Compression,
  segment: SegmentName,
  segmentSize: number,
  known?: KnownWal,
): Promise<StoredWal> {
  const startLsn = segmentStart(segment.segment, segmentSize);
  const verifier = new WalVerifier({
    startLsn,
    segmentSize,
    timeline: segment.timeline,
    history: known?.history,
    systemId: known?.systemId,
  });
  let at = 0;
  let contentLength = 0;
  const feed = (chunk: Uint8Array): void => {
    verifier.feed(chunk);
    const end = contentEnd(chunk);
    if (end > 0) contentLength = at + end;
    at += chunk.length;
  };
  await decompressFile(path, compression, feed, { limit: segmentSize });
  return { validLength: Number(verifier.validEnd - startLsn), contentLength };
}

function contentEnd(chunk: Uint8Array): number {
  let end = chunk.length;
  while (end > 0 && chunk[end - 1] === 0) end -= 1;
  return end;
}
