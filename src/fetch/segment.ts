import { dirname, join } from 'node:path';
import { onArchive } from '../archive/access.js';
import { historyAt } from '../archive/history.js';
import type { FetchName } from '../archive/stored-name.js';
import { CorruptWalError } from '../errors.js';
import { faultToError, type WalFault } from '../wal/fault.js';
import { historyFileName, parseSegmentFileName, segmentStart } from '../wal/file-name.js';
import { LONG_HEADER_SIZE, parseLongHeader } from '../wal/long-header.js';
import { parsePageHeader, XLP_FIRST_IS_CONTRECORD } from '../wal/page.js';
import { rootHistory, type TimelineHistory } from '../wal/timeline.js';
import { requireSameCluster } from './cluster.js';
import { type LeadPlaces, leadInto, type SegmentIdentity } from './lead.js';
import { followStaged, readStaged } from './source.js';
import type { Staging } from './stage.js';
import type { TargetFile } from './target.js';

/** What one fetch of a segment works on. */
export interface SegmentRequest {
  /** The archive. */
  directory: string;
  wanted: FetchName;
  /** Path to put it at. */
  target: string;
  /** The cluster it must be of, as far as that is known. */
  systemId: bigint | undefined;
  /** Directories, beside the archive, in which the segment before may lie as plain file. */
  near: readonly string[];
}

const REPLACE = 'Put a good copy in its place: recovery cannot go past it.';

/**
 * Checks all of a complete segment while it is staged: name, size, cluster, timeline, every record.
 * @param path where it comes from
 * @throws CorruptWalError, SystemIdentifierError, and what `staging.done` throws
 */
export async function checkComplete(
  request: SegmentRequest,
  path: string,
  staging: Staging,
): Promise<void> {
  const { file } = staging;
  const places = { archive: request.directory, near: request.near };
  let subject: Subject;
  let fault: WalFault | undefined;
  try {
    await staging.beyond(LONG_HEADER_SIZE - 1);
    subject = identifyStaged(request, path, file);
    const verifier = await leadInto(subject.id, subject.continues, places);
    await followStaged(staging, subject.id.segmentSize, (bytes) => verifier.feed(bytes));
    fault = verifier.fault;
  } catch (e) {
    // What could not be read says more than what was looked for in it.
    await staging.done;
    throw e;
  }
  await staging.done;
  const { segmentSize } = subject.id;
  const { size } = file;
  if (size !== segmentSize) {
    throw new CorruptWalError(`"${path}" has ${size} bytes of WAL instead of ${segmentSize}`, {
      path,
      expected: String(segmentSize),
      actual: String(size),
      hint: REPLACE,
    });
  }
  // What was checked may not be what is there.
  if (staging.restarted) {
    subject = identifyStaged(request, path, file);
    ({ fault } = await faultIn(subject, file, places));
  }
  if (!fault) return;
  // A file outside the archive accuses nobody that the archive itself acquits. Without that the
  // server, which reads on from that file, would take the fault for the end of WAL.
  const own = await faultIn(subject, file, { archive: request.directory, near: [] });
  if (own.fault || !own.led) throw damaged(path, own.fault ?? fault);
}

async function faultIn(
  { id, continues }: Subject,
  file: TargetFile,
  places: LeadPlaces,
): Promise<{ fault: WalFault | undefined; led: boolean }> {
  const verifier = await leadInto(id, continues, places);
  // It has seen pages: those of the segment before.
  const led = verifier.magic !== undefined;
  readStaged(file, id.segmentSize, (bytes) => verifier.feed(bytes));
  return { fault: verifier.fault, led };
}

function damaged(path: string, fault: WalFault): Error {
  const { message, detail } = faultToError(fault);
  return new CorruptWalError(`"${path}" is damaged: ${message}`, {
    path,
    lsn: fault.lsn,
    ...(detail === undefined ? {} : { detail }),
    hint: REPLACE,
  });
}

/** A segment file whose first page agrees with its name. */
export interface Subject {
  id: SegmentIdentity;
  /** It begins with the rest of a record. */
  continues: boolean;
}

/**
 * Checks the first page of what was staged against the name and the cluster.
 * @throws CorruptWalError, SystemIdentifierError, ArchiveAccessError
 */
export function identifyStaged(request: SegmentRequest, path: string, file: TargetFile): Subject {
  const { wanted, systemId } = request;
  const head = new Uint8Array(LONG_HEADER_SIZE);
  const header = parseLongHeader(head.subarray(0, file.read(head, 0)));
  if (!header) {
    const message = `"${path}" does not begin with a WAL page`;
    throw new CorruptWalError(message, { path, hint: REPLACE });
  }
  requireSameCluster(path, systemId, header.systemId);
  const { segmentSize, blockSize } = header;
  const segment = parseSegmentFileName(wanted.base, segmentSize)?.segment;
  if (segment === undefined || segmentStart(segment, segmentSize) !== header.pageAddress) {
    const message = `"${path}" holds another segment than its name says`;
    throw new CorruptWalError(message, { path, hint: REPLACE });
  }
  const id = {
    timeline: wanted.timeline,
    history: readHistory(request),
    segment,
    segmentSize,
    blockSize,
    systemId: header.systemId,
  };
  return { id, continues: (parsePageHeader(head).info & XLP_FIRST_IS_CONTRECORD) !== 0 };
}

/**
 * The history of the timeline in the name: from the archive, else the one that PostgreSQL keeps
 * beside the target; undefined if neither has it.
 */
function readHistory({ directory, wanted, target }: SegmentRequest): TimelineHistory | undefined {
  const { timeline } = wanted;
  if (timeline === 1) return rootHistory(1);
  for (const dir of [directory, dirname(target)]) {
    const path = join(dir, historyFileName(timeline));
    const history = onArchive('read file', path, () => historyAt(dir, timeline));
    if (history) return history;
  }
  return undefined;
}
