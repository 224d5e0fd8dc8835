import { basename } from 'node:path';
import { storedUpTo } from '../archive/ledger-entry.js';
import { ledgerOf } from '../archive/ledger-of.js';
import { PartialCheck } from '../archive/partial-check.js';
import { CorruptWalError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import { segmentStart } from '../wal/file-name.js';
import { LONG_PAGE_HEADER, parsePageHeader, SHORT_PAGE_HEADER } from '../wal/page.js';
import { parseRecordHeader, RECORD_HEADER_SIZE } from '../wal/record.js';
import type { WalVerifier } from '../wal/verifier.js';
import { leadInto } from './lead.js';
import { identifyStaged, type SegmentRequest, type Subject } from './segment.js';
import { readStaged } from './source.js';
import { type Source, stagePartial } from './stage.js';
import type { TargetFile } from './target.js';

/** A partial that was copied into a temporary file beside the target, and what it is worth. */
export interface PartialCopy {
  source: Source;
  subject: Subject;
  file: TargetFile;
  /** End of the last complete good record. */
  validEnd: Lsn;
  /** The WAL is good up to the end of the segment. */
  whole: boolean;
  /** Why it is more than a torn tail. */
  damage: string | undefined;
}

/**
 * Up to where the archive's receiver has stored the WAL of a timeline for good, as far as its ledger
 * tells: acknowledged it, or completed its segments.
 */
export async function acknowledgedOn(dir: string, timeline: number): Promise<Lsn | undefined> {
  const ledger = await ledgerOf(dir);
  return ledger?.timeline === timeline ? storedUpTo(ledger) : undefined;
}

/**
 * Copies a partial, filled with zeros to the segment size, and checks it. Undefined if nothing was
 * written into it yet.
 * @param acknowledged read before the copy is made: a receiver may go on meanwhile
 * @param length bytes of it that are of the timeline asked for; default all
 * @throws CorruptWalError, SystemIdentifierError, ArchiveAccessError, TargetError, VanishedError
 */
export async function copyPartial(
  request: SegmentRequest,
  source: Source,
  acknowledged: Lsn | undefined,
  length?: number,
): Promise<PartialCopy | undefined> {
  const { path } = source;
  const file = await stagePartial(source, request.target);
  try {
    if (length !== undefined && file.size > length) file.resize(length);
    const { size } = file;
    if (isEmpty(file, size)) {
      await file.discard();
      return undefined;
    }
    const subject = identifyStaged(request, path, file);
    const { segmentSize, segment } = subject.id;
    if (size > segmentSize) {
      throw new CorruptWalError(`"${path}" is larger than a segment`, { path });
    }
    file.resize(segmentSize);
    const verifier = await verifierFor(request, subject);
    const start = segmentStart(segment, segmentSize);
    const name = basename(path);
    const check = new PartialCheck(
      { name, start, segment },
      segmentSize,
      acknowledged,
      () => verifier,
      () => name,
    );
    readStaged(file, size, (bytes) => check.feed(bytes));
    const whole = check.end(size);
    const lost = check.findings.find((f) => f.code === 'flushed-damaged')?.message;
    const torn = check.findings.every((f) => f.code === 'torn-tail');
    const damage = lost ?? (torn ? undefined : laterPage(file, subject, verifier));
    return { source, subject, file, validEnd: verifier.validEnd, whole, damage };
  } catch (e) {
    await file.discard();
    throw e;
  }
}

function isEmpty(file: TargetFile, size: number): boolean {
  const head = new Uint8Array(SHORT_PAGE_HEADER);
  file.read(head, 0);
  if (head.some((b) => b !== 0)) return false;
  let empty = true;
  readStaged(file, size, (bytes) => {
    empty &&= bytes.every((b) => b === 0);
  });
  return empty;
}

function verifierFor(request: SegmentRequest, { id, continues }: Subject): Promise<WalVerifier> {
  return leadInto(id, continues, { archive: request.directory, near: request.near });
}

/**
 * Tells of a page of this segment behind what is bad: WAL was lost in between. The pages over which
 * a torn record itself was to reach do not count: its first part may have been the last thing that
 * was written.
 */
function laterPage(file: TargetFile, subject: Subject, verifier: WalVerifier): string | undefined {
  const { segmentSize, blockSize, segment } = subject.id;
  const { fault } = verifier;
  if (!fault) return undefined;
  const start = segmentStart(segment, segmentSize);
  const header = new Uint8Array(SHORT_PAGE_HEADER);
  let end = Number(fault.lsn - start);
  if (end < 0) {
    file.read(header, 0);
    end = behind(LONG_PAGE_HEADER, parsePageHeader(header).remaining, blockSize);
  } else if (fault.kind.startsWith('record-')) {
    file.read(header, end);
    const { totalLength } = parseRecordHeader(header, 0);
    const length = fault.kind === 'record-crc' ? totalLength : RECORD_HEADER_SIZE;
    end = behind(end, length, blockSize);
  }
  for (let at = end - (end % blockSize) + blockSize; at < segmentSize; at += blockSize) {
    file.read(header, at);
    const { magic, address } = parsePageHeader(header);
    if (magic !== verifier.magic || address !== start + BigInt(at)) continue;
    return `${fault.message} at ${formatLsn(fault.lsn)}, and WAL goes on at ${formatLsn(address)}`;
  }
  return undefined;
}

/** Offset of the last byte of a record that begins at `offset`, page headers in between. */
function behind(offset: number, length: number, blockSize: number): number {
  const here = blockSize - (offset % blockSize);
  if (length <= here) return offset + length - 1;
  const pages = Math.ceil((length - here) / (blockSize - SHORT_PAGE_HEADER));
  return offset + length + pages * SHORT_PAGE_HEADER - 1;
}
