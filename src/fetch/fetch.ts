import { dirname, join } from 'node:path';
import { ArchiveAccessError, onArchive, requireArchive, VanishedError } from '../archive/access.js';
import { historyIn, readIfThere } from '../archive/history.js';
import { type FetchName, parseFetchName } from '../archive/stored-name.js';
import { CorruptWalError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { aSwitch, aText, type Checks, checkOptions, required } from '../options.js';
import type { TimelineHistory } from '../wal/timeline.js';
import { readServerControl, type ServerControl } from './cluster.js';
import type { FetchResult } from './result.js';
import { findSources, refuseIrregular, type Source, Staging } from './stage.js';
import { TargetFile } from './target.js';

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

export type { FetchResult };

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
  const wanted = parseFetchName(options.name);
  requireArchive(options.directory);
  const control = options.dataDir === undefined ? undefined : readServerControl(options.dataDir);
  const suspects = new Map<string, Lsn>();
  for (let lookups = 1; ; lookups++) {
    try {
      return await lookUp(options, wanted, control, suspects);
    } catch (e) {
      if (!(e instanceof VanishedError)) throw e;
      // The directory may have gone as a whole.
      requireArchive(options.directory);
      if (lookups === MOST_LOOKUPS) {
        const path = join(options.directory, wanted.name);
        throw new ArchiveAccessError(`"${path}" is there and gone again, over and over`, { path });
      }
    }
  }
}

async function lookUp(
  options: FetchOptions,
  wanted: FetchName,
  control: ServerControl | undefined,
  suspects: Map<string, Lsn>,
): Promise<FetchResult> {
  const empty = new Set<string>();
  const isWal = wanted.kind === 'segment' || wanted.kind === 'partial';
  const found = isWal
    ? await lookUpWal(options, wanted, control, empty, suspects)
    : await lookUpText(options, wanted, control);
  if (found) return found;
  const { explainAbsence } = await import('./absent.js');
  const { directory, target, standby = false } = options;
  const request = { directory, wanted, target, control, standby, empty };
  const reason = await explainAbsence(request);
  if (reason !== undefined) return { found: false, reason };
  const forked = await lookUpPartials(options, wanted, control, [], empty, suspects);
  if (forked) return forked;
  return {
    found: false,
    reason: (await explainAbsence(request)) ?? 'nothing is written of it yet',
  };
}

async function lookUpWal(
  options: FetchOptions,
  wanted: FetchName,
  control: ServerControl | undefined,
  empty: Set<string>,
  suspects: Map<string, Lsn>,
): Promise<FetchResult | undefined> {
  const { directory } = options;
  const isSegment = wanted.kind === 'segment';
  const identify = async () => control?.systemId ?? ledgerSystemId(directory);
  const complete = isSegment ? findSources(directory, wanted.base, false) : [];
  let damaged: unknown;
  for (const source of complete) {
    try {
      return await serveComplete(options, wanted, source, identify);
    } catch (e) {
      // A copy that was cut short, say: another form of the segment may be whole.
      if (!(e instanceof CorruptWalError)) throw e;
      damaged ??= e;
    }
  }
  if (damaged) throw damaged;
  const partials = findSources(directory, wanted.base, true);
  if (isSegment) refuseIrregular(directory, wanted.base, false);
  if (partials.length === 0) {
    refuseIrregular(directory, wanted.base, true);
    return undefined;
  }
  return lookUpPartials(options, wanted, control, partials, empty, suspects);
}

async function lookUpPartials(
  { directory, target, verify = true, allowTorn = false }: FetchOptions,
  wanted: FetchName,
  control: ServerControl | undefined,
  partials: readonly Source[],
  empty: Set<string>,
  suspects: Map<string, Lsn>,
): Promise<FetchResult | undefined> {
  const systemId = verify ? (control?.systemId ?? (await ledgerSystemId(directory))) : undefined;
  const near = [dirname(target)];
  const { servePartial } = await import('./tail.js');
  const request = { directory, wanted, target, systemId, near, verify, allowTorn };
  return servePartial(request, partials, empty, suspects);
}

async function serveComplete(
  { directory, target, verify = true }: FetchOptions,
  wanted: FetchName,
  source: Source,
  identify: () => Promise<bigint | undefined>,
): Promise<FetchResult> {
  // In the thread pool, while what checks it is being loaded.
  const staging = new Staging(source, target, false);
  try {
    if (verify) {
      const [{ checkComplete }, systemId] = await Promise.all([import('./segment.js'), identify()]);
      const request = { directory, wanted, target, systemId, near: [dirname(target)] };
      await checkComplete(request, source.path, staging);
    }
    await staging.done;
    await staging.file.commit();
  } finally {
    await staging.done.catch(() => {});
    await staging.file.discard();
  }
  return { found: true, path: source.path };
}

/** The cluster that the archive's ledger names. */
async function ledgerSystemId(directory: string): Promise<bigint | undefined> {
  const { ledgerOf } = await import('../archive/ledger-of.js');
  return (await ledgerOf(directory))?.systemId;
}

async function lookUpText(
  options: FetchOptions,
  wanted: FetchName,
  control: ServerControl | undefined,
): Promise<FetchResult | undefined> {
  const { directory, target, verify = true } = options;
  const path = join(directory, wanted.name);
  const content = onArchive('read file', path, () => readIfThere(path));
  if (content === undefined) return undefined;
  let unfollowed: string | undefined;
  if (verify) {
    if (wanted.kind === 'history') {
      unfollowed = await neverReceived(directory, historyIn(path, wanted.timeline, content));
    } else if (!content.toString('latin1').startsWith('START WAL LOCATION:')) {
      throw new CorruptWalError(`"${path}" is no backup history file`, { path });
    }
    if (control) {
      const { takeStock } = await import('./stock.js');
      await takeStock(directory, control.systemId);
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
  directory: string,
  history: TimelineHistory,
): Promise<string | undefined> {
  const { ledgerOf } = await import('../archive/ledger-of.js');
  const ledger = await ledgerOf(directory);
  if (!ledger) return undefined;
  const { standsBeside } = await import('../archive/catalog-branches.js');
  const { timeline } = history;
  if (standsBeside(timeline, history, [history], ledger) !== 'unfollowed') return undefined;
  return `timeline ${timeline} was never received here, and receiving went on with timeline ${ledger.timeline} behind where it begins`;
}
