import { refuseUnreadableForm, VanishedError } from '../archive/access.js';
import { CorruptWalError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { parseSegmentFileName, segmentOffset } from '../wal/file-name.js';
import { forkedSources } from './fork.js';
import { readOwnSegment } from './own.js';
import { acknowledgedOn, copyPartial, type PartialCopy } from './partial.js';
import type { FetchResult } from './result.js';
import type { SegmentRequest } from './segment.js';
import { findSources, type Source } from './stage.js';
import { goesOnBehind, takeStock } from './stock.js';

/** A fetch that found partials only. */
export interface PartialRequest extends SegmentRequest {
  /** False: damage and holes do not matter. */
  verify: boolean;
  allowTorn: boolean;
}

/**
 * Serves the partial with the longest valid WAL, unless it is more than torn, or the server itself
 * has at least as much: what its walreceiver got, or what was saved from the primary's pg_wal, must
 * not be replaced by less.
 * @param empty gets the paths of those in which nothing was written
 * @param suspects partials that an earlier look found more than torn, and where
 * @returns undefined if all are empty
 * @throws CorruptWalError, SystemIdentifierError, ArchiveAccessError, TargetError, VanishedError
 */
export async function servePartial(
  request: PartialRequest,
  partials: readonly Source[],
  empty: Set<string>,
  suspects: Map<string, Lsn>,
): Promise<FetchResult | undefined> {
  const { directory, wanted, target, verify, allowTorn } = request;
  const acknowledged = await acknowledgedOn(directory, wanted.timeline);
  const copies: PartialCopy[] = [];
  try {
    for (const source of partials) {
      const copy = await copyPartial(request, source, acknowledged);
      if (copy) copies.push(copy);
      else empty.add(source.path);
    }
    if (wanted.kind === 'segment') copies.push(...(await copiesOfFork(request, copies, empty)));
    const best = copies.sort(bestFirst)[0];
    if (!best) return undefined;
    const { path } = best.source;
    const { validEnd } = best;
    const isSegment = wanted.kind === 'segment';
    // Completed while it was read.
    if (isSegment && findSources(directory, wanted.base, false).length > 0) {
      throw new VanishedError(path);
    }
    const own = isSegment ? await readOwnSegment(directory, target, best.subject.id) : undefined;
    const keeps = { found: false, reason: 'the server has at least as much of it itself' } as const;
    if (own?.whole) return keeps;
    // All of the segment may be in it.
    if (!best.whole) refuseUnreadableForm(directory, wanted.base);
    const damage = verify ? (best.damage ?? (await holeBehind(request, best))) : undefined;
    if (damage !== undefined && !allowTorn) {
      // A receiver at work: what followed was written after this copy was made. Then the next look
      // finds more of it; damage stays where it is.
      if (suspects.get(path) === validEnd) throw moreThanTorn(best, damage);
      suspects.set(path, validEnd);
      throw new VanishedError(path);
    }
    if (own && own.validEnd >= validEnd) return keeps;
    await best.file.commit();
    return { found: true, path, validEnd, ...(damage === undefined ? {} : { damage }) };
  } finally {
    for (const { file } of copies) await file.discard();
  }
}

/** What later timelines repeat of a timeline's end, if its own files do not reach it. */
async function copiesOfFork(
  request: PartialRequest,
  own: readonly PartialCopy[],
  empty: Set<string>,
): Promise<PartialCopy[]> {
  const { directory, wanted, systemId } = request;
  const stock = await takeStock(directory, systemId);
  const segment = parseSegmentFileName(wanted.base, stock.segmentSize)?.segment;
  if (segment === undefined) return [];
  const copies: PartialCopy[] = [];
  try {
    for (const { source, fork } of forkedSources(stock, directory, wanted, segment)) {
      if ([...own, ...copies].some((copy) => copy.validEnd >= fork)) break;
      const length = segmentOffset(fork, stock.segmentSize);
      const copy = await copyPartial(request, source, undefined, length);
      if (copy) copies.push(copy);
      else empty.add(source.path);
    }
    return copies;
  } catch (e) {
    for (const { file } of copies) await file.discard();
    throw e;
  }
}

function bestFirst(a: PartialCopy, b: PartialCopy): number {
  if (a.validEnd !== b.validEnd) return a.validEnd > b.validEnd ? -1 : 1;
  return Number(a.damage !== undefined) - Number(b.damage !== undefined);
}

/** Where the WAL goes on behind a partial that does not reach the end of its segment. */
async function holeBehind(
  { directory, wanted }: PartialRequest,
  { whole, subject }: PartialCopy,
): Promise<string | undefined> {
  if (whole) return undefined;
  const stock = await takeStock(directory, subject.id.systemId);
  return goesOnBehind(stock, wanted.timeline, subject.id.segment);
}

function moreThanTorn({ source, validEnd }: PartialCopy, damage: string): Error {
  return new CorruptWalError(`"${source.path}" is more than torn: ${damage}`, {
    path: source.path,
    lsn: validEnd,
    hint: 'With --allow-torn it is served as it is: recovery then ends where its WAL does.',
  });
}
