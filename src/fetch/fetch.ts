import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Archive } from '../archive/archive.js';
import { historyIn } from '../archive/history.js';
import { type ArchiveOptions, openArchive } from '../archive/places/open-archive.js';
import { overAndOver, type StoredSegment } from '../archive/segment-source.js';
import { CorruptWalError, UsageError, WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import {
  aName,
  anObject,
  aSwitch,
  aText,
  type Checks,
  checkOptions,
  listOf,
  required,
} from '../options.js';
import { readServerControl, type ServerControl } from '../server/control-file.js';
import { parseStoredName } from '../wal/file-name.js';
import type { TimelineHistory } from '../wal/timeline.js';
import type { FetchName, SegmentRequest } from './complete.js';
import { type Problem, TargetFile, UncheckedCopy } from './target.js';

/** What to fetch, from where, to where. */
export interface FetchOptions {
  /**
   * The archives, asked in this order: the first one that gives a verified file ends it. "Not there"
   * is said only if each of them was asked and says so.
   */
  places: readonly string[];
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
  /** What opens what is encrypted. */
  keys?: ArchiveOptions | undefined;
}

const CHECKS: Checks<FetchOptions> = {
  places: required(listOf(aName, 'a list of places')),
  name: required(aText),
  target: required(aText),
  verify: aSwitch,
  allowTorn: aSwitch,
  dataDir: aText,
  standby: aSwitch,
  keys: anObject,
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
      /** Why archives before this one did not give it. */
      passedOver?: readonly WalkeepError[];
    }
  | {
      found: false;
      /** Why that is in order. */
      reason: string;
    };

/** A fetch under way. */
interface FetchRequest
  extends Required<Omit<FetchOptions, 'places' | 'name' | 'dataDir' | 'keys'>> {
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
 *   TargetError, FsyncError, NotSupportedError, StorageError, StoreUncertainError, StoreAccessError:
 *   could not tell
 */
export async function fetchFile(options: FetchOptions): Promise<FetchResult> {
  checkOptions('fetch', options, CHECKS);
  const { places, name, target, dataDir, keys } = options;
  const { verify = true, allowTorn = false, standby = false } = options;
  const wanted = parseFetchName(name);
  if (places.length === 0) throw new UsageError('fetch: no archive is given');
  const control = dataDir === undefined ? undefined : readServerControl(dataDir);
  const requests = new Map<string, FetchRequest>();
  const requestAt = async (place: string): Promise<FetchRequest> => {
    const known = requests.get(place);
    if (known) return known;
    const archive = await openArchive(place, {
      ...keys,
      ...(control ? { systemId: control.systemId } : {}),
    });
    const suspects = new Map<string, Lsn>();
    const request = { archive, target, verify, allowTorn, standby, wanted, control, suspects };
    requests.set(place, request);
    return request;
  };
  try {
    for (let looks = 1; looks <= MOST_LOOKUPS; looks++) {
      const answer = await lookUp(places, requestAt, target);
      if (answer !== 'changed') return answer;
    }
  } finally {
    for (const { archive } of requests.values()) await archive.close();
  }
  throw overAndOver(join(places[0] as string, name));
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

type Found = FetchResult & { found: true };
/** `changed`: a file was renamed while it was looked at. */
type Answer = FetchResult | 'changed';

/**
 * Asks one archive after the other: for the whole file first, and only if none has it for what there
 * is of it, and for why it is not there. One that could not be asked may have it: then nothing less
 * than the whole file is an answer.
 */
async function lookUp(
  places: readonly string[],
  requestAt: (place: string) => Promise<FetchRequest>,
  target: string,
): Promise<Answer> {
  const failed = new Failures();
  let changed = false;
  for (const place of places) {
    const answer = await failed.attempt(async () => lookUpWhole(await requestAt(place)));
    if (answer === 'changed') changed = true;
    else if (answer) return failed.any ? { ...answer, passedOver: failed.all } : answer;
  }
  failed.throw();
  let partial: FetchResult | undefined;
  let least: Lsn | undefined;
  const reasons = new Set<string>();
  for (const place of places) {
    const answer = await failed.attempt(async () => lookUpRest(await requestAt(place), least));
    if (answer === 'changed') changed = true;
    else if (answer?.found === false) reasons.add(answer.reason);
    else if (answer) {
      partial = answer;
      least = answer.validEnd;
    }
  }
  if (partial && (failed.any || changed)) rmSync(target, { force: true });
  failed.throw();
  if (changed) return 'changed';
  return partial ?? { found: false, reason: [...reasons].join('; ') };
}

/** What kept archives from answering. */
class Failures {
  readonly all: WalkeepError[] = [];

  get any(): boolean {
    return this.all.length > 0;
  }

  /** Undefined if it failed. @throws what no other archive could help against */
  async attempt<T>(call: () => Promise<T>): Promise<T | undefined> {
    try {
      return await call();
    } catch (e) {
      if (!(e instanceof WalkeepError) || OUR_SIDE.includes(e.code)) throw e;
      this.all.push(e);
      return undefined;
    }
  }

  /** @throws the first one, if there is any */
  throw(): void {
    if (this.any) throw this.all[0];
  }
}

/** Faults of where it is to be put. */
const OUR_SIDE = ['WK_TARGET', 'WK_DISK_FULL', 'WK_FSYNC'];

/** A complete segment, or a history file. */
async function lookUpWhole(request: FetchRequest): Promise<Found | 'changed' | undefined> {
  const { archive, wanted } = request;
  await archive.reach();
  switch (wanted.kind) {
    case 'segment':
      return lookUpComplete(request);
    case 'partial':
      return undefined;
    case 'history':
    case 'backup':
      return lookUpText(request);
  }
}

/** Partials, or why there is nothing. */
async function lookUpRest(request: FetchRequest, least: Lsn | undefined): Promise<Answer> {
  const { archive, wanted } = request;
  const empty = new Set<string>();
  if (wanted.kind === 'segment' || wanted.kind === 'partial') {
    const partials = await archive.stored(wanted.base, true);
    if (wanted.kind === 'segment') await archive.refuseIrregular(wanted.base, false);
    if (partials.length === 0) await archive.refuseIrregular(wanted.base, true);
    else {
      const answer = await lookUpPartials(request, partials, empty, least);
      if (answer) return answer;
    }
  }
  const { explainAbsence } = await import('./absent.js');
  const absence = await explainAbsence({ ...request, empty });
  if (absence === 'changed') return absence;
  if (absence !== 'forked') return { found: false, reason: absence.reason };
  const forked = await lookUpPartials(request, [], empty, least);
  if (forked) return forked;
  // Its files are known to be empty now.
  const again = await explainAbsence({ ...request, empty });
  if (again === 'changed') return again;
  const reason = again === 'forked' ? 'nothing is written of it yet' : again.reason;
  return { found: false, reason };
}

async function lookUpComplete(request: FetchRequest): Promise<Found | 'changed' | undefined> {
  const { archive, wanted, target, verify } = request;
  const segment = { archive, wanted, target, near: [dirname(target)] };
  const systemId = () => knownSystemId(request);
  let damage: CorruptWalError | undefined;
  for (const source of await archive.stored(wanted.base, false, { toRead: true })) {
    const problem = await serveComplete(segment, source, verify ? systemId : undefined);
    if (problem === undefined) return { found: true, path: source.path };
    if (problem === 'gone') return 'changed';
    // A copy that was cut short, say: another form of the segment may be whole.
    damage ??= problem;
  }
  if (damage) throw damage;
  return undefined;
}

async function lookUpPartials(
  request: FetchRequest,
  partials: readonly StoredSegment[],
  empty: Set<string>,
  least: Lsn | undefined,
): Promise<Answer | undefined> {
  const systemId = request.verify ? await knownSystemId(request) : undefined;
  const near = [dirname(request.target)];
  const { servePartial } = await import('./partial.js');
  const answer = await servePartial({ ...request, systemId, near, empty, least }, partials);
  return answer === 'empty' ? undefined : answer;
}

/** The cluster that the segment must be of: the server's, or the one that the archive names. */
async function knownSystemId({ control, archive }: FetchRequest): Promise<bigint | undefined> {
  return control ? control.systemId : (await archive.cluster())?.systemId;
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
}: FetchRequest): Promise<Found | undefined> {
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
      await readHoldings(archive, wanted, control.systemId);
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
