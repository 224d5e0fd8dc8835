import { availableParallelism } from 'node:os';
import type { Archive } from '../archive/archive.js';
import { acceptExpiredGaps } from '../archive/backups/expired-gaps.js';
import type { Catalog } from '../archive/catalog.js';
import { byPlace, type Finding, findingKey, type Severity } from '../archive/findings.js';
import { type ArchiveOptions, withArchives } from '../archive/places/open-archive.js';
import { readArchive, readCatalog, requireWal } from '../archive/read-catalog.js';
import { ArchiveAccessError, UsageError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import {
  aFunction,
  aNumber,
  anLsn,
  anObject,
  aSignal,
  aSwitch,
  aTimeline,
  type Checks,
  checkOptions,
} from '../options.js';
import { BackupCheck } from './backups.js';
import { catalogFindings } from './catalog-findings.js';
import { planJobs } from './plan.js';
import { runJobs } from './pool.js';
import type { JobReport } from './stream.js';

/** What to check and whom to tell. */
export interface VerifyOptions {
  /** Only segments that reach beyond this LSN. */
  since?: Lsn | undefined;
  /** Only this timeline. */
  timeline?: number | undefined;
  /** Only names, sizes, headers and continuity: no records are read. */
  quick?: boolean | undefined;
  /** `false` leaves base backups out, as do `since` and `timeline`. */
  backups?: boolean | undefined;
  /** Also the checksums of the pages in base backups. */
  verifyPages?: boolean | undefined;
  /** Threads. Default: one for each core. */
  jobs?: number | undefined;
  /** Bytes of WAL that a thread takes at a time. */
  jobBytes?: number | undefined;
  /** Each finding as it comes, in no order. */
  onFinding?: ((finding: Finding) => void) | undefined;
  onProgress?: ((progress: VerifyProgress) => void) | undefined;
  /** What opens what is encrypted. */
  keys?: ArchiveOptions | undefined;
  signal?: AbortSignal | undefined;
}

const CHECKS: Checks<VerifyOptions> = {
  since: anLsn,
  timeline: aTimeline,
  quick: aSwitch,
  backups: aSwitch,
  verifyPages: aSwitch,
  jobs: aNumber(1, 1024),
  jobBytes: aNumber(1, Number.MAX_SAFE_INTEGER),
  onFinding: aFunction,
  onProgress: aFunction,
  keys: anObject,
  signal: aSignal,
};

/** How far a check is. Bytes are those of decompressed WAL, and of base backups as they are stored. */
export interface VerifyProgress {
  bytes: number;
  totalBytes: number;
}

/** What was checked. */
export interface VerifySummary {
  directory: string;
  /** Undefined if nothing tells which cluster the archive is of. */
  systemId: bigint | undefined;
  /** Bytes. */
  segmentSize: number;
  timelines: number;
  segments: number;
  /** Decompressed WAL that was read. */
  bytes: number;
  /** Base backups, complete or not. */
  backups: number;
  milliseconds: number;
  errors: number;
  warnings: number;
  infos: number;
  quick: boolean;
}

export interface VerifyResult {
  /** Ordered by file, which is by timeline and position. */
  findings: Finding[];
  summary: VerifySummary;
}

/**
 * Checks an archive: that the WAL in it is what its names say, complete and undamaged. The result
 * holds what was found; finding nothing but `info` means a recovery can read all of it.
 * @throws StorageError if the directory cannot be read or is no WAL archive; UsageError; the
 *   signal's reason
 */
export async function verifyArchive(
  directory: string,
  options: VerifyOptions = {},
): Promise<VerifyResult> {
  checkOptions('verify', options, CHECKS);
  return withArchives(directory, options.keys ?? {}, async (archive) => {
    const { keys, signal, since, timeline, backups = true } = options;
    const catalog = await readCatalog(archive);
    const isAll = backups && since === undefined && timeline === undefined;
    if (!isAll) requireWal(catalog);
    await acceptExpiredGaps(catalog, directory, signal);
    const check = isAll ? await openBackups(catalog, keys, signal) : undefined;
    try {
      // Backups may have their own WAL, and need no other.
      if (!check?.count) requireWal(catalog);
      return await verifyIn(archive, catalog, options, check);
    } finally {
      await check?.close();
    }
  });
}

async function openBackups(
  catalog: Catalog,
  keys: ArchiveOptions | undefined,
  signal: AbortSignal | undefined,
): Promise<BackupCheck | undefined> {
  try {
    return await BackupCheck.open(catalog.archive.place, keys?.systemId, signal);
  } catch (e) {
    // A place that is no archive at all is told as what it is not.
    if (e instanceof ArchiveAccessError) requireWal(catalog);
    throw e;
  }
}

async function verifyIn(
  archive: Archive,
  catalog: Catalog,
  options: VerifyOptions,
  backups: BackupCheck | undefined,
): Promise<VerifyResult> {
  const began = performance.now();
  const directory = archive.place;
  const { since, timeline, quick = false, jobs: threads = availableParallelism() } = options;
  if (timeline !== undefined && !catalog.timelines.some((t) => t.timeline === timeline)) {
    throw new UsageError(`"${directory}" has no timeline ${timeline}`, {
      expected: catalog.timelines.map((t) => t.timeline).join(', '),
    });
  }
  const found = new Map<string, Finding>();
  const finding = (f: Finding): void => {
    const key = findingKey(f);
    if (found.has(key)) return;
    found.set(key, f);
    options.onFinding?.(f);
  };
  for (const f of catalogFindings(catalog, { since, timeline })) finding(f);

  const jobs = planJobs(catalog, {
    since,
    timeline,
    quick,
    jobBytes: options.jobBytes,
    keys: options.keys,
  });
  const own = jobs.filter((job) => !job.leadIn);
  const segments = own.reduce((n, job) => n + job.segments.length, 0);
  const totalBytes = segments * catalog.segmentSize + (quick ? 0 : (backups?.size ?? 0));
  let bytes = 0;
  let ofBackups = 0;
  const progress = (more: number): void => {
    bytes += more;
    options.onProgress?.({ bytes: bytes + ofBackups, totalBytes });
  };
  let vanished = false;
  const report: JobReport = {
    finding,
    progress,
    vanished: () => {
      vanished = true;
    },
  };
  await runJobs(jobs, { archive, threads, signal: options.signal }, report);
  // What was moved away meanwhile is judged as if it had been before: at the begin it may be gone.
  if (vanished) {
    const now = await readArchive(archive);
    await acceptExpiredGaps(now, directory, options.signal);
    for (const f of catalogFindings(now, { since, timeline })) finding(f);
  }

  const { keys, signal } = options;
  const ofBackup = (more: number): void => {
    ofBackups += more;
    progress(0);
  };
  const { verifyPages: pages } = options;
  await backups?.run(catalog, { quick, pages, keys, finding, progress: ofBackup, signal });

  // Where there is no WAL, the backups tell of what cluster they are.
  const { systemId, segmentSize } = (segments === 0 && backups?.cluster) || catalog;
  const findings = [...found.values()].sort(byPlace);
  const count = (severity: Severity) => findings.filter((f) => f.severity === severity).length;
  return {
    findings,
    summary: {
      directory,
      systemId,
      segmentSize,
      timelines: new Set(own.map((job) => job.timeline)).size,
      segments,
      bytes,
      backups: backups?.count ?? 0,
      milliseconds: performance.now() - began,
      errors: count('error'),
      warnings: count('warning'),
      infos: count('info'),
      quick,
    },
  };
}
