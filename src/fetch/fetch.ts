import { dirname, join } from 'node:path';
import type { Archive } from '../archive/archive.js';
import { historyIn } from '../archive/history.js';
import { openArchive } from '../archive/places/open-archive.js';
import { overAndOver, type StoredSegment } from '../archive/segment-source.js';
import { CorruptWalError, UsageError, WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { aSwitch, aText, type Checks, checkOptions, required } from '../options.js';
import { readServerControl, type ServerControl } from '../server/control-file.js';
import { parseStoredName } from '../wal/file-name.js';
import type { TimelineHistory } from '../wal/timeline.js';
import type { FetchName, SegmentRequest } from './complete.js';
import { type Problem, TargetFile, UncheckedCopy } from './target.js';

/** What to fetch, from where, to where. */
export interface FetchOptions {
  /** The archive. */
  directory: string;
  /** What PostgreSQL asks for: `%f`. */
  name: string;
  /** Path to put it at: `%p`. */
  target: string;
  /** False: names, headers and records are not looked at. Default true. */
  verify?: boolean;
  /** Serve a partial also where it is damaged rather than torn. */
  allowTorn?: boolean;
  /** The data directory of the server that recovers: it tells its cluster. Default none. */
  dataDir?: string | undefined;
  /** The server is a standby, which can stream what the archive lacks. */
  standby?: boolean;
}

const CHECKS: Checks<FetchOptions> = {
  directory: required(aText),
  name: required(aText),
  target: required(aText),
  verify: aSwitch,
  allowTorn: aSwitch,
  dataDir: aText,
  standby: aSwitch,
};

/** How a fetch ended that could be answered. */
export type FetchResult =
  | {
      found: true;
      /** The file in the archive that was served. */
      path: string;
      /** Of a partial: end of its last complete good record. */
      validEnd?: Lsn;
      /** Why a partial was served only because `allowTorn` says so. */
      damage?: string;
      /** A history file is of a timeline that was never received here. */
      unfollowed?: string;
    }
  | {
      found: false;
      /** Why that is in order. */
      reason: string;
    };

/** A fetch under way. */
interface FetchRequest extends Required<Omit<FetchOptions, 'directory' | 'name' | 'dataDir'>> {
  archive: Archive;
  wanted: FetchName;
  /** The server that asks, as far as that is known. */
  control: ServerControl | undefined;
  /** Partials that an earlier look found more than torn, and where. */
  suspects: Map<string, Lsn>;
}

/** Lookups of a name that keeps vanishing. */
const MOST_LOOKUPS = 20;

/**
 * Brings one file of an archive to where PostgreSQL wants it, for restore_command: complete files
 * before partials, verified, and in place only when durable. `found: false` only if the archive was
 * really asked and rightly does not have it.
 * @throws UsageError, ArchiveAccessError, CorruptWalError, SystemIdentifierError, GapError,
 *   TargetError, FsyncError, NotSupportedError, StorageError: could not tell
 */
export async function fetchFile(options: FetchOptions): Promise<FetchResult> {
  checkOptions('fetch', options, CHECKS);
  const { directory, name, target, dataDir } = options;
  const { verify = true, allowTorn = false, standby = false } = options;
  const wanted = parseFetchName(name);
  const archive = openArchive(directory);
  await archive.reach();
  const control = dataDir === undefined ? undefined : readServerControl(dataDir);
  const paths = { archive, target };
  const suspects = new Map<string, Lsn>();
  const request = { ...paths, verify, allowTorn, standby, wanted, control, suspects };
  for (let looks = 1; looks <= MOST_LOOKUPS; looks++) {
    const answer = await lookUp(request);
    if (answer !== 'changed') return answer;
    // The directory may have gone as a whole.
    await archive.reach();
  }
  throw overAndOver(join(directory, name));
}

/** Reads a `%f`. @throws UsageError if PostgreSQL has no such file */
export function parseFetchName(name: string): FetchName {
  const stored = parseStoredName(name);
  const { timeline = 0 } = stored ?? {};
  if (!stored || timeline === 0 || (stored.kind === 'segment' && stored.compression !== 'none')) {
    throw new UsageError(`"${name}" is not the name of a WAL segment or history file`, {
      hint: 'In restore_command it is %f.',
    });
  }
  if (stored.kind !== 'segment') return { name, kind: stored.kind, timeline, base: name };
  return { name, kind: stored.partial ? 'partial' : 'segment', timeline, base: stored.base };
}

/** `changed`: a file was renamed while it was looked at. */
type Answer = FetchResult | 'changed';

async function lookUp(request: FetchRequest): Promise<Answer> {
  const { kind } = request.wanted;
  const empty = new Set<string>();
  const isWal = kind === 'segment' || kind === 'partial';
  const found = isWal ? await lookUpWal(request, empty) : await lookUpText(request);
  if (found) return found;
  const { explainAbsence } = await import('./absent.js');
  const absence = await explainAbsence({ ...request, empty });
  if (absence === 'changed') return absence;
  if (absence !== 'forked') return { found: false, reason: absence.reason };
  const forked = await lookUpPartials(request, [], empty);
  if (forked) return forked;
  // Its files are known to be empty now.
  const again = await explainAbsence({ ...request, empty });
  if (again === 'changed') return again;
  const reason = again === 'forked' ? 'nothing is written of it yet' : again.reason;
  return { found: false, reason };
}

async function lookUpWal(request: FetchRequest, empty: Set<string>): Promise<Answer | undefined> {
  const { archive, wanted, target, verify } = request;
  const isSegment = wanted.kind === 'segment';
  const segment = { archive, wanted, target, near: [dirname(target)] };
  const systemId = () => knownSystemId(request);
  let damage: CorruptWalError | undefined;
  for (const source of isSegment ? await archive.stored(wanted.base, false) : []) {
    const problem = await serveComplete(segment, source, verify ? systemId : undefined);
    if (problem === undefined) return { found: true, path: source.path };
    if (problem === 'gone') return 'changed';
    // A copy that was cut short, say: another form of the segment may be whole.
    damage ??= problem;
  }
  if (damage) throw damage;
  const partials = await archive.stored(wanted.base, true);
  if (isSegment) await archive.refuseIrregular(wanted.base, false);
  if (partials.length > 0) return lookUpPartials(request, partials, empty);
  await archive.refuseIrregular(wanted.base, true);
  return undefined;
}

async function lookUpPartials(
  request: FetchRequest,
  partials: readonly StoredSegment[],
  empty: Set<string>,
): Promise<Answer | undefined> {
  const systemId = request.verify ? await knownSystemId(request) : undefined;
  const near = [dirname(request.target)];
  const { servePartial } = await import('./partial.js');
  const answer = await servePartial({ ...request, systemId, near, empty }, partials);
  return answer === 'empty' ? undefined : answer;
}

/** The cluster that the segment must be of: the server's, or the one that the ledger names. */
async function knownSystemId({ control, archive }: FetchRequest): Promise<bigint | undefined> {
  return control ? control.systemId : (await archive.ledger())?.systemId;
}

/**
 * Puts a complete segment in place. Undefined if it is there now.
 * @param systemId gives the cluster it must be of; without it nothing is checked
 * @throws as `checkComplete` and `TargetFile.commit`
 */
export async function serveComplete(
  request: Omit<SegmentRequest, 'systemId'>,
  source: StoredSegment,
  systemId: (() => Promise<bigint | undefined>) | undefined,
): Promise<Problem | undefined> {
  // In the thread pool, while what checks it is being loaded.
  const copy = new UncheckedCopy(source, request.target, false);
  try {
    let problem: Problem | undefined;
    if (systemId) {
      const [{ checkComplete }, id] = await Promise.all([import('./complete.js'), systemId()]);
      problem = await checkComplete({ ...request, systemId: id }, source.path, copy);
    } else problem = await copy.done;
    if (!problem) await copy.file.commit();
    return problem;
  } finally {
    await copy.discard();
  }
}

async function lookUpText({
  archive,
  wanted,
  target,
  verify,
  control,
}: FetchRequest): Promise<FetchResult | undefined> {
  const path = join(archive.place, wanted.name);
  const content = await archive.text(wanted.name);
  if (content === undefined) return undefined;
  let unfollowed: string | undefined;
  if (verify) {
    if (wanted.kind === 'history') {
      unfollowed = await neverReceived(archive, historyIn(path, wanted.timeline, content));
    } else if (!content.toString('latin1').startsWith('START WAL LOCATION:')) {
      throw new CorruptWalError(`"${path}" is no backup history file`, { path });
    }
    if (control) {
      const { readHoldings } = await import('./holdings.js');
      await readHoldings(archive, control.systemId);
    }
  }
  const file = TargetFile.create(target);
  try {
    file.write(content, 0);
    await file.commit();
  } finally {
    await file.discard();
  }
  return { found: true, path, ...(unfollowed === undefined ? {} : { unfollowed }) };
}

/**
 * What to say of a timeline that the archive's receiver never followed, though it was received beyond
 * where that one begins. It may be a clone's, and recovery to the latest timeline goes there.
 */
async function neverReceived(
  archive: Archive,
  history: TimelineHistory,
): Promise<string | undefined> {
  const ledger = await archive.ledger();
  if (!ledger) return undefined;
  const { standsBeside } = await import('../archive/catalog-lineage.js');
  const { timeline } = history;
  if (standsBeside(timeline, history, [history], ledger) !== 'unfollowed') return undefined;
  return `timeline ${timeline} was never received here, and receiving went on with timeline ${ledger.timeline} behind where it begins`;
}

/** Milliseconds between the tries of a standby: together as long as a short outage, not longer. */
const RETRIES: readonly number[] = [100, 200, 400, 800, 1500];

/** Milliseconds between two looks for a file that is waited for. */
const POLL = 250;

/** Longest wait in seconds: PostgreSQL cannot be promoted meanwhile. */
export const MOST_WAIT = 300;

/** How long to try. */
export interface RetryOptions {
  standby: boolean;
  /** Seconds to wait for a segment that is not there yet. */
  wait: number;
}

/** As `fetchFile`, or why a standby is told that there is nothing though that is not known. */
export type RetryResult = FetchResult | { found: false; reason: string; unknown: WalkeepError };

/**
 * Calls `fetch` again while a segment is waited for, and on a standby while what failed may pass:
 * an answer other than "not there" would end a healthy hot standby.
 * @throws what `fetch` throws: on a standby only what does not pass
 */
export async function fetchRetrying(
  fetch: (options: FetchOptions) => Promise<FetchResult>,
  options: FetchOptions,
  { standby, wait }: RetryOptions,
): Promise<RetryResult> {
  const retries = standby ? [...RETRIES] : [];
  const end = performance.now() + Math.min(wait, MOST_WAIT) * 1000;
  for (;;) {
    try {
      const result = await fetch(options);
      const waits = !options.name.endsWith('.history') && performance.now() < end;
      if (result.found || !waits) return result;
      await pause(POLL);
    } catch (error) {
      if (!standby || !(error instanceof WalkeepError && error.retryable)) throw error;
      const next = retries.shift();
      if (next === undefined) return { found: false, reason: error.message, unknown: error };
      await pause(next);
    }
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
