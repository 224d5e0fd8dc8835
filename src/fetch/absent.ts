import { dirname } from 'node:path';
import type { Archive } from '../archive/archive.js';
import { historyOf } from '../archive/catalog-lineage.js';
import { requireHistory } from '../archive/history.js';
import { type LedgerState, lineageHistory } from '../archive/ledger-entry.js';
import { openDirectory } from '../archive/places/directory-archive.js';
import { MissingWalError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import type { ServerControl } from '../server/control-file.js';
import { parseSegmentFileName, segmentOf, segmentStart, storedNames } from '../wal/file-name.js';
import { timelineAt } from '../wal/timeline.js';
import type { FetchName } from './complete.js';
import {
  forkedFiles,
  goesOnBehind,
  type Holdings,
  readHoldings,
  readServerSegment,
} from './holdings.js';

/** A file that was looked for in vain. */
export interface AbsentRequest {
  archive: Archive;
  wanted: FetchName;
  target: string;
  /** The server that asks, as far as that is known. */
  control: ServerControl | undefined;
  /** It is a standby: what is not archived it can get by streaming. */
  standby: boolean;
  /** Names of files that were found and hold nothing yet. */
  empty: ReadonlySet<string>;
}

const HOLE_HINT = 'Recovery would end early: find the WAL, or choose a recovery target before it.';

/**
 * Why it is in order that the archive, which was really asked, does not have the file. `forked`: a
 * later timeline's file begins with the segment; `changed`: the file has come meanwhile.
 */
export type Absence = { reason: string } | 'forked' | 'changed';

/**
 * Explains why a file is not there. Costs a listing of the directory.
 * @throws MissingWalError if the archive should have it
 * @throws ArchiveAccessError if it is there in a form that cannot be read; or as `readHoldings`
 */
export async function explainAbsence(request: AbsentRequest): Promise<Absence> {
  const { archive, wanted, control } = request;
  await archive.refuseUnreadableForm(wanted.base);
  const holdings = await readHoldings(archive, wanted, control?.systemId);
  if (hasCome(request, holdings)) return 'changed';
  if (wanted.kind === 'history') return { reason: explainHistory(request, holdings) };
  if (wanted.kind !== 'segment') return { reason: 'it is not in the archive' };
  const reason = await explainSegment(request, holdings);
  return reason === undefined ? 'forked' : { reason };
}

function hasCome({ wanted, empty }: AbsentRequest, { names }: Holdings): boolean {
  const isWal = wanted.kind === 'segment' || wanted.kind === 'partial';
  const expected = isWal ? storedNames(wanted.base, true) : [wanted.name];
  if (wanted.kind === 'segment') expected.push(...storedNames(wanted.base, false));
  return expected.some((n) => names.includes(n) && !empty.has(n));
}

/**
 * PostgreSQL asks for the history of timelines that may not exist. That of one whose WAL is here
 * exists: without it recovery would stay on an older timeline. A server that is on it already may
 * do without.
 */
function explainHistory({ wanted, control, archive }: AbsentRequest, holdings: Holdings): string {
  const { timeline, name } = wanted;
  const known = holdings.segments.has(timeline) && timeline > 1;
  if (known && (control === undefined || control.timeline < timeline)) {
    const message = `"${archive.place}" holds WAL of timeline ${timeline}, but not its history ${name}`;
    throw new MissingWalError(message, true, 'Put the history file there: any server has it.');
  }
  return `there is no timeline ${timeline} in the archive`;
}

/** Undefined if a later timeline's file begins with the segment. */
async function explainSegment(
  request: AbsentRequest,
  holdings: Holdings,
): Promise<string | undefined> {
  const { archive, wanted, target, standby } = request;
  const { timeline, name } = wanted;
  const { segmentSize } = holdings;
  const segment = parseSegmentFileName(name, segmentSize)?.segment;
  if (segment === undefined) return 'no segment of this archive can have that name';
  const forked = await forkedFiles(holdings, archive, wanted, segment);
  if (forked.some(({ file }) => !request.empty.has(file.name))) return undefined;
  // What PostgreSQL restored already.
  const restored = await requireHistory(timeline, [openDirectory(dirname(target))]);
  const history = historyOf(
    timeline,
    restored ? [...holdings.histories, restored] : holdings.histories,
    holdings.ledger,
  );
  const fork = history?.ancestors.at(-1)?.end;
  if (fork !== undefined && segment < segmentOf(fork, segmentSize)) {
    return `timeline ${timeline} begins at ${formatLsn(fork)}`;
  }
  const missing = whyMissing(holdings, request, segment, fork);
  if (missing === undefined) return 'it is behind the last one in the archive';
  const systemId = request.control?.systemId ?? holdings.ledger?.systemId;
  const has = (number: bigint, owner = timeline) =>
    readServerSegment(archive, target, {
      timeline: owner,
      history,
      segment: number,
      segmentSize,
      systemId,
    });
  if ((await has(segment))?.whole) return 'the server has it itself';
  const first = firstSegment(holdings);
  if (first !== undefined && segment < first) {
    const from = `the archive begins at ${formatLsn(segmentStart(first, segmentSize))}`;
    // Where recovery begins, PostgreSQL itself stops if it cannot read; later it takes that for
    // the end.
    const before = segmentStart(segment, segmentSize) - 1n;
    const owner = history ? timelineAt(history, before) : timeline;
    if (standby || !(await has(segment - 1n, owner))) return from;
    throw new MissingWalError(`${from}, behind the missing ${name}`, false, HOLE_HINT);
  }
  const { evidence, coming } = missing;
  throw new MissingWalError(`the archive lacks ${name}, but ${evidence}`, coming, HOLE_HINT);
}

function firstSegment({ segments }: Holdings): bigint | undefined {
  let first: bigint | undefined;
  for (const numbers of segments.values()) {
    for (const n of numbers) if (first === undefined || n < first) first = n;
  }
  return first;
}

/** What says that a segment should be there; undefined if nothing does. */
function whyMissing(
  holdings: Holdings,
  { wanted: { timeline }, empty }: AbsentRequest,
  segment: bigint,
  fork: Lsn | undefined,
): { evidence: string; coming: boolean } | undefined {
  const { ledger, segmentSize, names } = holdings;
  const behind = goesOnBehind(holdings, timeline, segment);
  if (behind !== undefined) return { evidence: behind, coming: false };
  const start = segmentStart(segment, segmentSize);
  const stored = ledger && ledgerEnd(ledger, timeline, segmentStart(segment + 1n, segmentSize));
  if (stored !== undefined && stored > start) {
    const evidence = `its ledger says that WAL was stored up to ${formatLsn(stored)}`;
    return { evidence, coming: false };
  }
  if (fork !== undefined && segment === segmentOf(fork, segmentSize)) {
    const evidence = `timeline ${timeline} begins in it, at ${formatLsn(fork)}`;
    // A receiver stores the history, and an empty file, a moment before the first bytes.
    const begun = names.some(
      (name) => parseSegmentFileName(name, segmentSize)?.timeline === timeline && !empty.has(name),
    );
    return { evidence, coming: !begun };
  }
  return undefined;
}

/** Up to where the ledger knows of WAL on a timeline that it followed before `lsn`. */
function ledgerEnd(ledger: LedgerState, timeline: number, lsn: bigint): bigint | undefined {
  const { lineage } = ledger;
  const entry = lineage.find((e) => e.timeline === timeline);
  if (!entry || entry.start >= lsn) return undefined;
  if (ledger.timeline === timeline) return ledger.end;
  // Another timeline that was followed later may be no child of this one, but a branch beside it.
  const children = lineage.filter(
    ({ timeline: t }) => lineageHistory(ledger, t)?.ancestors.at(-1)?.timeline === timeline,
  );
  if (children.length === 0) return ledger.left.get(timeline);
  return children.map(({ start }) => start).reduce((a, b) => (a > b ? a : b));
}
