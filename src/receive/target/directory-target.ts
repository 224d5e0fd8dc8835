import { join } from 'node:path';
import { temporaryName } from '../../archive/leftovers.js';
import { type CompressOptions, compressFile } from '../../codec/codec.js';
import type { Lsn } from '../../lsn.js';
import { type Compression, segmentStart, storedName } from '../../wal/file-name.js';
import type { WalVerifier } from '../../wal/verifier.js';
import { compressPartial } from './compressed-partial.js';
import type { OpenSegment } from './open-segment.js';
import { PacedTarget, type PacedTargetOptions } from './paced-target.js';
import { SegmentFinisher, type SegmentFinisherOptions } from './segment-finisher.js';
import { SegmentWriter, type SegmentWriterOptions } from './segment-writer.js';
import type { WalTarget } from './wal-target.js';

/** Segment size up to which the start waits for a zero-filled first segment, bytes. */
const SPARE_WAIT = 64 * 1024 * 1024;

export interface DirectoryTargetOptions
  extends Omit<SegmentWriterOptions, 'finisher'>,
    Pick<SegmentFinisherOptions, 'record' | 'onFinished' | 'oneByOne'>,
    Pick<PacedTargetOptions, 'synchronous' | 'writeReport' | 'syncInterval' | 'syncTimes'> {
  compression?: { method: Compression; level?: number } | undefined;
  /** Notes durably what was flushed; at a clean end, before the incomplete segment is touched. */
  recordFlushed: () => Promise<void>;
  /** LSN up to which bytes on the timeline are known to be acknowledged. */
  acknowledged: () => bigint;
  /** Makes a verifier that stands at a segment's start. */
  verifierAt: (startLsn: Lsn) => Promise<WalVerifier>;
  /** A clean end has closed an incomplete segment, which keeps this name. */
  onPartial: (file: string) => void;
}

/**
 * The segment files of a directory as the target of a stream. At a clean end an incomplete segment
 * keeps a partial name, with compression in its compressed form.
 */
export async function openDirectoryTarget(o: DirectoryTargetOptions): Promise<WalTarget> {
  const compress = compressOptions(o);
  const finisher: SegmentFinisher = new SegmentFinisher({
    ...o,
    ...(compress ? { convert: (segment: OpenSegment) => convert(segment, compress, o) } : {}),
    onDurable: (end) => writer.finished(end),
    onProgress: () => target.changeRoom(),
    onFailure: (error) => target.lose(error),
  });
  // Past the page cache, unless the files are read again at once to be compressed.
  const directIo = o.directIo !== false && compress === undefined;
  const writer: SegmentWriter = new SegmentWriter({ ...o, finisher, directIo });
  const target = new PacedTarget({
    ...{ writer, synchronous: o.synchronous, writeReport: o.writeReport },
    ...{ syncInterval: o.syncInterval, syncTimes: o.syncTimes },
    close: async () => {
      const open = await writer.close();
      await o.recordFlushed();
      if (open) o.onPartial(await nameIncomplete(open, writer.positions.written, compress, o));
    },
    abandon: async () => void (await writer.close()),
  });
  if (o.synchronous) {
    const spare = writer.prepareSpare();
    // Worth waiting for unless it would take seconds: only the first segment is affected.
    if (o.segmentSize <= SPARE_WAIT) await spare;
  }
  return target;
}

function compressOptions(o: DirectoryTargetOptions): CompressOptions | undefined {
  const { method, level } = o.compression ?? { method: 'none' };
  if (method === 'none') return undefined;
  const { mode, sync, fs } = o;
  return { method, mode, sync, fs, ...(level === undefined ? {} : { level }) };
}

/** Stores a full segment compressed under a dotfile's name, durably. */
async function convert(
  segment: OpenSegment,
  compress: CompressOptions,
  { directory, segmentSize, fs }: DirectoryTargetOptions,
) {
  const name = storedName(segment.name, compress.method, false);
  const temporary = join(directory, temporaryName(name));
  await compressFile(segment.path, temporary, segmentSize, compress).catch(async (e) => {
    // Space is given back at once where its lack was the cause.
    await fs.unlink(temporary).catch(() => {});
    throw e;
  });
  return { temporary, name };
}

/**
 * With compression the incomplete segment gets its compressed form now, which replaces the plain one
 * only once it is durable. @returns the name that it has, without directory
 */
async function nameIncomplete(
  open: OpenSegment,
  written: number,
  compress: CompressOptions | undefined,
  { directory, segmentSize, fs, acknowledged, verifierAt }: DirectoryTargetOptions,
): Promise<string> {
  if (!compress) return `${open.name}.partial`;
  const start = segmentStart(open.segment, segmentSize);
  // Bytes that are written or acknowledged, also by an earlier stream.
  const known = Math.max(written - open.begin, Number(acknowledged() - start));
  return compressPartial(open, Math.min(known, segmentSize), compress, {
    ...{ directory, segmentSize, fs },
    verifier: () => verifierAt(start),
  });
}
