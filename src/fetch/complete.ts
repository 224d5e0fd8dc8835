import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { accessError, requireSameCluster } from '../archive/access.js';
import type { Archive } from '../archive/archive.js';
import { requireHistory } from '../archive/history.js';
import { leadIn, type SegmentWal } from '../archive/lead-in.js';
import { openDirectory } from '../archive/places/directory-archive.js';
import { identifySegment } from '../archive/segment-identity.js';
import { type StoredSegment, segmentAt } from '../archive/segment-source.js';
import { CorruptWalError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { walBuffers } from '../wal/chunk.js';
import { faultToError, type WalFault } from '../wal/fault.js';
import { segmentOf, segmentStart } from '../wal/file-name.js';
import { LONG_PAGE_HEADER, parsePageHeader, XLP_FIRST_IS_CONTRECORD } from '../wal/page.js';
import type { TimelineHistory } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import { AT_ONCE, type Problem, type TargetFile, type UncheckedCopy } from './target.js';

/** What PostgreSQL can ask a restore_command for. */
export interface FetchName {
  /** The whole name, as `%f` gives it. */
  name: string;
  /** `backup`: a backup history file. */
  kind: 'segment' | 'partial' | 'history' | 'backup';
  /** Timeline in the name. */
  timeline: number;
  /** The 24 digits of a segment or partial; otherwise the whole name. */
  base: string;
}

/** What one fetch of a segment works on. */
export interface SegmentRequest {
  archive: Archive;
  wanted: FetchName;
  /** Path to put it at. */
  target: string;
  /** The cluster it must be of, as far as that is known. */
  systemId: bigint | undefined;
  /** Directories, beside the archive, in which the segment before may lie as plain file. */
  near: readonly string[];
}

/** A segment as its name and first page tell it. */
export interface SegmentIdentity {
  /** Timeline in the file name. */
  timeline: number;
  history: TimelineHistory | undefined;
  segment: bigint;
  /** Bytes. */
  segmentSize: number;
  /** XLOG_BLCKSZ, bytes. */
  blockSize: number;
  systemId: bigint;
  /** It begins with the rest of a record. */
  continues: boolean;
}

const REPLACE = 'Put a good copy in its place: recovery cannot go past it.';

/**
 * Checks all of a complete segment while it is being copied: name, size, cluster, timeline, every
 * record. Undefined if it is good.
 * @param path where it comes from
 * @throws SystemIdentifierError, and what `copy.done` throws
 */
export async function checkComplete(
  request: SegmentRequest,
  path: string,
  copy: UncheckedCopy,
): Promise<Problem | undefined> {
  const { file } = copy;
  const places = { archive: request.archive, near: request.near };
  const along = await checkAlong(request, path, copy, places).catch((e: unknown) => ({
    failed: e,
  }));
  const problem = await copy.done;
  // What could not be read says more than what was looked for in it.
  if (problem) return problem;
  if ('failed' in along) throw along.failed;
  if (along instanceof CorruptWalError) return along;
  const { segmentSize } = along.id;
  const { size } = file;
  if (size !== segmentSize) {
    return new CorruptWalError(`"${path}" has ${size} bytes of WAL instead of ${segmentSize}`, {
      path,
      expected: String(segmentSize),
      actual: String(size),
      hint: REPLACE,
    });
  }
  let { id, fault } = along;
  // What was checked may not be what is there.
  if (copy.restarted) {
    const again = await identifyCopy(request, path, file);
    if (again instanceof CorruptWalError) return again;
    id = again;
    ({ fault } = await faultIn(id, file, places));
  }
  if (!fault) return undefined;
  // A file outside the archive accuses nobody that the archive itself acquits. Without that the
  // server, which reads on from that file, would take the fault for the end of WAL.
  const archived = await faultIn(id, file, { archive: request.archive, near: [] });
  if (!archived.fault && archived.ledIn) return undefined;
  return damaged(path, archived.fault ?? fault);
}

async function checkAlong(
  request: SegmentRequest,
  path: string,
  copy: UncheckedCopy,
  places: SegmentPlaces,
): Promise<{ id: SegmentIdentity; fault: WalFault | undefined } | CorruptWalError> {
  await copy.beyond(LONG_PAGE_HEADER - 1);
  const id = await identifyCopy(request, path, copy.file);
  if (id instanceof CorruptWalError) return id;
  const { segmentSize } = id;
  const { verifier } = await verifierOf(id, places);
  for (let at = 0; at < segmentSize; ) {
    const there = Math.min(await copy.beyond(at), segmentSize);
    if (there <= at) break;
    readCopy(copy.file, at, there, (bytes) => verifier.feed(bytes));
    at = there;
  }
  return { id, fault: verifier.fault };
}

async function faultIn(
  id: SegmentIdentity,
  file: TargetFile,
  places: SegmentPlaces,
): Promise<{ fault: WalFault | undefined; ledIn: boolean }> {
  const { verifier, ledIn } = await verifierOf(id, places);
  readCopy(file, 0, id.segmentSize, (bytes) => verifier.feed(bytes));
  return { fault: verifier.fault, ledIn };
}

function damaged(path: string, fault: WalFault): CorruptWalError {
  const { message, detail } = faultToError(fault);
  return new CorruptWalError(`"${path}" is damaged: ${message}`, {
    path,
    lsn: fault.lsn,
    ...(detail === undefined ? {} : { detail }),
    hint: REPLACE,
  });
}

/**
 * Reads back what was copied, from one offset to another or as far as there is any.
 * @param take takes the next bytes, valid during the call
 * @throws TargetError
 */
export function readCopy(
  file: TargetFile,
  from: number,
  to: number,
  take: (bytes: Uint8Array) => void,
): void {
  // Memory in which WAL is checked without being copied.
  const buffer = walBuffers()[0] as Uint8Array;
  for (let at = from; at < to; ) {
    const n = file.read(buffer, at, Math.min(buffer.length, to - at));
    if (n === 0) return;
    take(buffer.subarray(0, n));
    at += n;
  }
}

/**
 * Compares the first page of what was copied with the name and the cluster.
 * @throws SystemIdentifierError, ArchiveAccessError, CorruptWalError for a damaged history file
 */
export async function identifyCopy(
  { archive, wanted, systemId, target }: SegmentRequest,
  path: string,
  file: TargetFile,
): Promise<SegmentIdentity | CorruptWalError> {
  const head = new Uint8Array(LONG_PAGE_HEADER);
  const page = head.subarray(0, file.read(head, 0));
  const found = identifySegment(page, { name: wanted.base, systemId });
  switch (found.state) {
    case 'unknown':
      return unlike(path, 'does not begin with a WAL page');
    case 'another':
      return unlike(path, 'holds another segment than its name says');
    case 'foreign':
      requireSameCluster(path, systemId, found.header.systemId);
  }
  const { systemId: id, segmentSize, blockSize, pageAddress } = found.header;
  const { timeline } = wanted;
  // PostgreSQL keeps what it restored beside the target, which need not be brought from afar again.
  const beside = openDirectory(dirname(target));
  const places = archive.isDirectory ? [archive, beside] : [beside, archive];
  const history = await requireHistory(timeline, places);
  const segment = segmentOf(pageAddress, segmentSize);
  const place = { timeline, history, segment, segmentSize, blockSize };
  return { ...place, systemId: id, continues: continuesRecord(head) };
}

function unlike(path: string, why: string): CorruptWalError {
  return new CorruptWalError(`"${path}" ${why}`, { path, hint: REPLACE });
}

/** True if a first page says that its segment begins with the rest of a record. */
export function continuesRecord(head: Uint8Array): boolean {
  return (parsePageHeader(head).info & XLP_FIRST_IS_CONTRECORD) !== 0;
}

/**
 * Where the segment before is looked for. `near`: also as plain file beside the target, where
 * PostgreSQL keeps what it restored last, before a compressed file of the archive.
 */
export interface SegmentPlaces {
  archive: Archive | undefined;
  near: readonly string[];
}

/**
 * The verifier for a segment: where a record goes on into it, one that was led in. Without the
 * segment before, or if its tail is bad, it starts afresh and leaves the rest of that record
 * unchecked.
 * @throws ArchiveAccessError if a segment before is there and cannot be read, and no other serves
 */
export async function verifierOf(
  id: SegmentIdentity,
  places: SegmentPlaces,
): Promise<{ verifier: WalVerifier; ledIn: boolean }> {
  const { timeline, history, segmentSize, systemId, blockSize, continues } = id;
  const startLsn = segmentStart(id.segment, segmentSize) as Lsn;
  const owner = history ? { history } : { timeline };
  const wal: SegmentWal = { startLsn, segmentSize, systemId, blockSize, ...owner };
  const { archive, near } = places;
  // Where files of both do not fit together, those of one may.
  const choices =
    near.length === 0 ? [places] : [places, { archive, near: [] }, { archive: undefined, near }];
  let failure: unknown;
  for (const choice of continues ? choices : []) {
    const candidates = (name: string) => filesBefore(name, segmentSize, choice);
    try {
      const found = await leadIn(wal, candidates, AT_ONCE);
      if (found.state === 'sound') return { verifier: found.verifier, ledIn: true };
    } catch (e) {
      failure ??= e;
    }
  }
  if (failure) throw accessError('read file', (failure as { path: string }).path, failure);
  return { verifier: new WalVerifier(wal), ledIn: false };
}

async function filesBefore(
  name: string,
  segmentSize: number,
  { archive, near }: SegmentPlaces,
): Promise<StoredSegment[]> {
  const beside = near.flatMap((dir) => plainFile(join(dir, name), segmentSize));
  // What is here already is not brought from afar.
  if (beside.length > 0 && archive?.isDirectory === false) return beside;
  const stored = (await archive?.stored(name, false)) ?? [];
  const isPlain = ({ compression, inStore }: StoredSegment) => compression === 'none' && !inStore;
  const plain: StoredSegment[] = [];
  for (const file of stored.filter(isPlain)) {
    if ((await file.size()) === segmentSize) plain.push(file);
  }
  return [...plain, ...beside, ...stored.filter((file) => !isPlain(file))];
}

function plainFile(path: string, segmentSize: number): StoredSegment[] {
  try {
    const size = fs.statSync(path, { throwIfNoEntry: false })?.size;
    return size === segmentSize ? [segmentAt(path, 'none', { size })] : [];
  } catch {
    return [];
  }
}
