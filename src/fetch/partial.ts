import { basename } from 'node:path';
import type { Archive } from '../archive/archive.js';
import { storedUpTo } from '../archive/ledger-entry.js';
import { PartialCheck } from '../archive/partial-check.js';
import type { StoredSegment } from '../archive/segment-source.js';
import { CorruptWalError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import { faultScope } from '../wal/fault.js';
import { parseSegmentFileName, segmentOffset, segmentStart } from '../wal/file-name.js';
import { LONG_PAGE_HEADER, parsePageHeader, SHORT_PAGE_HEADER } from '../wal/page.js';
import { parseRecordHeader, RECORD_HEADER_SIZE } from '../wal/record.js';
import type { WalVerifier } from '../wal/verifier.js';
import {
  identifyCopy,
  readCopy,
  type SegmentIdentity,
  type SegmentRequest,
  verifierOf,
} from './complete.js';
import { forkedFiles, goesOnBehind, readHoldings, readServerSegment } from './holdings.js';
import { type TargetFile, UncheckedCopy } from './target.js';

/** A fetch that found partials only. */
export interface PartialRequest extends SegmentRequest {
  /** False: damage and holes do not matter. */
  verify: boolean;
  /** Serve it also where it is more than torn. */
  allowTorn: boolean;
  /** Gets the names of files in which nothing was written. */
  empty: Set<string>;
  /** Another archive has it up to here: less is not served. */
  least: Lsn | undefined;
  /** Partials that an earlier look found more than torn, and where. */
  suspects: Map<string, Lsn>;
}

/** How a fetch ends that found partials. `changed`: to be looked up anew; `empty`: all of them are. */
export type PartialAnswer =
  | { found: true; path: string; validEnd: Lsn; damage?: string }
  | { found: false; reason: string }
  | 'changed'
  | 'empty';

/** A partial that was copied into a temporary file beside the target, and what it is worth. */
interface PartialCopy {
  path: string;
  id: SegmentIdentity;
  file: TargetFile;
  /** End of the last complete good record. */
  validEnd: Lsn;
  /** The WAL is good up to the end of the segment. */
  whole: boolean;
  /** Why it is more than a torn tail. */
  damage: string | undefined;
}

/**
 * Serves the partial with the longest valid WAL, unless it is more than torn, or the server itself
 * has at least as much: what its walreceiver got, or what was saved from the primary's pg_wal, must
 * not be replaced by less.
 * @throws CorruptWalError, SystemIdentifierError, ArchiveAccessError, TargetError
 */
export async function servePartial(
  request: PartialRequest,
  partials: readonly StoredSegment[],
): Promise<PartialAnswer> {
  const copies: PartialCopy[] = [];
  try {
    if ((await copyAll(request, partials, copies)) === 'gone') return 'changed';
    const best = copies.sort(bestFirst)[0];
    return best ? await serveBest(request, best) : 'empty';
  } finally {
    for (const { file } of copies) await file.discard();
  }
}

/** Copies the partials, and what later timelines repeat of the segment if those do not reach it. */
async function copyAll(
  request: PartialRequest,
  partials: readonly StoredSegment[],
  copies: PartialCopy[],
): Promise<'gone' | undefined> {
  const { archive, wanted, systemId, empty } = request;
  // Before the copies are made: a receiver may go on meanwhile.
  const acknowledged = await acknowledgedOn(archive, wanted.timeline);
  const add = async (source: StoredSegment, ...about: [Lsn | undefined, number?]) => {
    const copy = await copyPartial(request, source, ...about);
    if (copy === 'empty') empty.add(source.name);
    else if (copy !== 'gone') copies.push(copy);
    return copy === 'gone' ? copy : undefined;
  };
  for (const source of partials) if (await add(source, acknowledged)) return 'gone';
  if (wanted.kind !== 'segment') return undefined;
  const holdings = await readHoldings(archive, wanted, systemId);
  const segment = parseSegmentFileName(wanted.base, holdings.segmentSize)?.segment;
  if (segment === undefined) return undefined;
  for (const { file, fork } of await forkedFiles(holdings, archive, wanted, segment)) {
    if (copies.some((copy) => copy.validEnd >= fork)) break;
    const length = segmentOffset(fork, holdings.segmentSize);
    if (await add(file, undefined, length)) return 'gone';
  }
  return undefined;
}

function bestFirst(a: PartialCopy, b: PartialCopy): number {
  if (a.validEnd !== b.validEnd) return a.validEnd > b.validEnd ? -1 : 1;
  return Number(a.damage !== undefined) - Number(b.damage !== undefined);
}

async function serveBest(request: PartialRequest, best: PartialCopy): Promise<PartialAnswer> {
  const { archive, wanted, target, verify, allowTorn, suspects } = request;
  const { path, validEnd } = best;
  const isSegment = wanted.kind === 'segment';
  // Completed while it was read.
  if (isSegment && (await archive.stored(wanted.base, false)).length > 0) return 'changed';
  const server = isSegment ? await readServerSegment(archive, target, best.id) : undefined;
  const keeps = { found: false, reason: 'the server has at least as much of it itself' } as const;
  if (server?.whole) return keeps;
  // All of the segment may be in it.
  if (!best.whole) await archive.refuseUnreadableForm(wanted.base);
  const damage = verify ? (best.damage ?? (await holeBehind(request, best))) : undefined;
  if (damage !== undefined && !allowTorn) {
    // A receiver at work: what followed was written after this copy was made. Then the next look
    // finds more of it; damage stays where it is.
    if (suspects.get(path) === validEnd) throw moreThanTorn(best, damage);
    suspects.set(path, validEnd);
    return 'changed';
  }
  if (server && server.validEnd >= validEnd) return keeps;
  if (request.least !== undefined && validEnd <= request.least) {
    return { found: false, reason: 'another archive has as much of it' };
  }
  await best.file.commit();
  return { found: true, path, validEnd, ...(damage === undefined ? {} : { damage }) };
}

/** Where the WAL goes on behind a partial that does not reach the end of its segment. */
async function holeBehind(
  { archive, wanted }: PartialRequest,
  { whole, id }: PartialCopy,
): Promise<string | undefined> {
  if (whole) return undefined;
  const holdings = await readHoldings(archive, wanted, id.systemId);
  return goesOnBehind(holdings, wanted.timeline, id.segment);
}

function moreThanTorn({ path, validEnd }: PartialCopy, damage: string): Error {
  return new CorruptWalError(`"${path}" is more than torn: ${damage}`, {
    path,
    lsn: validEnd,
    hint: 'With --allow-torn it is served as it is: recovery then ends where its WAL does.',
  });
}

/**
 * Up to where the archive's receiver has stored the WAL of a timeline for good, as far as its ledger
 * tells: acknowledged it, or completed its segments.
 */
async function acknowledgedOn(archive: Archive, timeline: number): Promise<Lsn | undefined> {
  const ledger = await archive.ledger();
  return ledger?.timeline === timeline ? storedUpTo(ledger) : undefined;
}

/**
 * Copies a partial, filled with zeros to the segment size, and checks it. `empty` if nothing was
 * written into it yet.
 * @param length bytes of it that are of the timeline asked for; default all
 * @throws CorruptWalError, SystemIdentifierError, ArchiveAccessError, TargetError
 */
async function copyPartial(
  request: SegmentRequest,
  source: StoredSegment,
  acknowledged: Lsn | undefined,
  length?: number,
): Promise<PartialCopy | 'empty' | 'gone'> {
  const { path } = source;
  const copy = new UncheckedCopy(source, request.target, true);
  let result: PartialCopy | undefined;
  try {
    const problem = await copy.done;
    if (problem === 'gone') return problem;
    if (problem) throw problem;
    const { file } = copy;
    if (length !== undefined && file.size > length) file.resize(length);
    const { size } = file;
    if (isEmpty(file, size)) return 'empty';
    const id = await identifyCopy(request, path, file);
    if (id instanceof CorruptWalError) throw id;
    if (size > id.segmentSize) {
      throw new CorruptWalError(`"${path}" is larger than a segment`, { path });
    }
    file.resize(id.segmentSize);
    result = { path, id, file, ...(await judge(request, path, id, { file, size, acknowledged })) };
    return result;
  } finally {
    if (!result) await copy.discard();
  }
}

async function judge(
  { archive, near }: SegmentRequest,
  path: string,
  id: SegmentIdentity,
  { file, size, acknowledged }: { file: TargetFile; size: number; acknowledged: Lsn | undefined },
): Promise<Pick<PartialCopy, 'validEnd' | 'whole' | 'damage'>> {
  const { verifier } = await verifierOf(id, { archive, near });
  const { segment, segmentSize } = id;
  const name = basename(path);
  const check = new PartialCheck(
    { name, start: segmentStart(segment, segmentSize), segment },
    segmentSize,
    acknowledged,
    () => verifier,
    () => name,
  );
  readCopy(file, 0, size, (bytes) => check.feed(bytes));
  const whole = check.end(size);
  const lost = check.findings.find((f) => f.code === 'flushed-damaged')?.message;
  const torn = check.findings.every((f) => f.code === 'torn-tail');
  const damage = lost ?? (torn ? undefined : laterPage(file, id, verifier));
  return { validEnd: verifier.validEnd, whole, damage };
}

function isEmpty(file: TargetFile, size: number): boolean {
  const head = new Uint8Array(SHORT_PAGE_HEADER);
  file.read(head, 0);
  if (head.some((b) => b !== 0)) return false;
  let empty = true;
  readCopy(file, 0, size, (bytes) => {
    empty &&= bytes.every((b) => b === 0);
  });
  return empty;
}

/**
 * Tells of a page of this segment behind what is bad: WAL was lost in between. The pages over which
 * a torn record itself was to reach do not count: its first part may have been the last thing that
 * was written.
 */
function laterPage(
  file: TargetFile,
  id: SegmentIdentity,
  verifier: WalVerifier,
): string | undefined {
  const { segmentSize, blockSize, segment } = id;
  const { fault } = verifier;
  if (!fault) return undefined;
  const start = segmentStart(segment, segmentSize);
  const header = new Uint8Array(SHORT_PAGE_HEADER);
  let end = Number(fault.lsn - start);
  if (end < 0) {
    file.read(header, 0);
    end = behind(LONG_PAGE_HEADER, parsePageHeader(header).remaining, blockSize);
  } else if (faultScope(fault.kind) === 'record') {
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
