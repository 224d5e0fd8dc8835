import { randomBytes } from 'node:crypto';
import type { Archive } from '../archive/archive.js';
import { abandonedOf } from '../archive/backups/abandoned.js';
import { type BackupArea, openBackupArea } from '../archive/backups/area.js';
import { readBackups } from '../archive/backups/catalog.js';
import { TIMING } from '../archive/backups/hold.js';
import { backupKey, CLAIM, RECORD } from '../archive/backups/keys.js';
import {
  holdIntent,
  type Intent,
  type RunningLease,
  readLeases,
} from '../archive/backups/lease.js';
import { type PlacedSegment, type PlaceWal, readPlaceWal } from '../archive/backups/place-wal.js';
import { planRetention, type RetentionPlan } from '../archive/backups/retention.js';
import { judgeBackups, type PlacedBackup } from '../archive/backups/state.js';
import { openArchive } from '../archive/places/open-archive.js';
import { DiskFullError, StoreAccessError } from '../errors.js';
import { contentOf } from '../store/content.js';
import { segmentStart } from '../wal/file-name.js';
import { localNeeds } from './local-needs.js';
import {
  checkExpireOptions,
  type ExpiredBackup,
  type ExpiredWal,
  type ExpireOptions,
  type ExpireResult,
} from './options.js';

export type { ExpiredBackup, ExpiredWal, ExpireOptions, ExpireResult };

/** Keys that are removed by one call: between two it is seen whether that is still ours to do. */
const BATCH = 200;

/**
 * Removes from a place the backups, and the WAL, that nothing needs: no window, no backup that stays,
 * none that is running or pinned, no restore. Backups first, each with its record before all else, then
 * WAL, the oldest first: wherever it ends, what is listed can be restored, and the next run goes on.
 * @throws UsageError, LeaseLostError if another ended it after a long silence, what the place throws
 */
export async function expirePlace(place: string, options: ExpireOptions): Promise<ExpireResult> {
  checkExpireOptions(options);
  const { systemId, signal } = options;
  // Nothing is begun: an empty directory, as under a disk that is away, would be an archive from now on.
  const area = await openBackupArea(place, { systemId, signal });
  try {
    const archive = await openArchive(place, options);
    try {
      return await expireArea(area, archive, options);
    } finally {
      await archive.close();
    }
  } finally {
    await area.close();
  }
}

/** The same of a place that is open. */
export async function expireArea(
  area: BackupArea,
  archive: Archive,
  options: ExpireOptions,
): Promise<ExpireResult> {
  const { signal, onWatch, timing = TIMING } = options;
  if (options.dryRun === true) {
    const now = await placeTime(area, signal);
    return (
      await look(area, archive, options, { now, leases: await readLeases(area, { now, signal }) })
    ).result;
  }
  const id = `expire-${randomBytes(4).toString('hex')}`;
  const intent = await holdIntent(area, { id, signal, timing, onWatch }).catch(noSpace);
  try {
    // Leases first: who releases his has stored his backup before, or pinned it.
    const leases = await intent.leases();
    const seen = await look(area, archive, options, { now: intent.now, leases });
    await intent.settle(seen.plan.removal);
    return await new Removing({ area, archive }, intent, options, seen).run();
  } finally {
    await intent.release();
  }
}

/** What frees space needs some, to tell others of itself before it removes anything. */
function noSpace(cause: unknown): never {
  if (!(cause instanceof DiskFullError)) throw cause;
  const { message, path } = cause;
  const hint =
    'An expire writes less than 100 KB before it removes anything. Free as much: "walkeep cleanup" writes nothing, and removes WAL before a segment that you name.';
  throw new DiskFullError(message, { cause, hint, ...(path === undefined ? {} : { path }) });
}

/** By its clock; what asks a directory is on its machine, or as far away as its file server. */
async function placeTime(area: BackupArea, signal: AbortSignal | undefined): Promise<Date> {
  if (area.prefix === '') return new Date();
  const key = `${area.prefix}clock/${randomBytes(8).toString('hex')}`;
  try {
    await area.store.create(key, contentOf(Buffer.from('\n')), { signal });
    const head = await area.store.head(key, { signal });
    return head?.modified ?? new Date();
  } catch (e) {
    // A dry run needs no space.
    if (e instanceof StoreAccessError || e instanceof DiskFullError) return new Date();
    throw e;
  } finally {
    await area.store.remove([key], { signal }).catch(() => {});
  }
}

/** What was seen, and what follows from it. */
interface Seen {
  backups: PlacedBackup[];
  leases: readonly RunningLease[];
  wal: PlaceWal;
  plan: RetentionPlan;
  /** Of the plan, without what the directory itself needs. */
  segments: PlacedSegment[];
  result: ExpireResult;
}

async function look(
  area: BackupArea,
  archive: Archive,
  options: ExpireOptions,
  at: { now: Date; leases: readonly RunningLease[] },
): Promise<Seen> {
  const { signal } = options;
  const found = await readBackups(area, signal);
  const abandoned = await abandonedOf(area, found, at.leases, signal);
  const backups = judgeBackups(found, { ...at, abandoned });
  const segmentSize = backups.find((b) => b.found.record)?.found.record?.segmentSize;
  const wal = await readPlaceWal(area, archive, { segmentSize, signal });
  const plan = planOf({ backups, wal, options, ...at });
  const planned = plan.removedWal as PlacedSegment[];
  const { needed, notes } = await localNeeds(archive, wal, planned, options);
  for (const { timeline, why } of wal.unread) {
    notes.push(`history of timeline ${timeline}: ${why}`);
  }
  const segments = planned.filter((one) => !needed(one));
  return {
    ...{ backups, leases: at.leases, wal, plan, segments },
    result: {
      ...{ place: area.place, now: at.now, nothing: plan.nothing, retained: [], notes },
      backups: plan.removedBackups.map(({ id, why }) => {
        const { found, stored } = backups.find((b) => b.id === id) as PlacedBackup;
        const size = found.objects.reduce((sum, object) => sum + object.size, 0);
        return { kind: 'backup', id, why, stored, objects: found.objects.length, size };
      }),
      wal: rangesOf(segments, wal.segmentSize),
      index: indexOf(wal, segments).length,
      ...{ kept: plan.keptBackups, keptWal: plan.keptWal },
    },
  };
}

function planOf(given: {
  backups: readonly PlacedBackup[];
  wal: PlaceWal;
  options: ExpireOptions;
  now: Date;
  leases: readonly RunningLease[];
}): RetentionPlan {
  const { backups, wal, options, now, leases } = given;
  const { window, redundancy } = options;
  return planRetention({ window, redundancy, now, backups, leases, wal });
}

function rangesOf(segments: readonly PlacedSegment[], segmentSize: number): ExpiredWal[] {
  const ranges: ExpiredWal[] = [];
  const last = new Map<number, ExpiredWal>();
  for (const { timeline, segment, files } of segments) {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    const from = segmentStart(segment, segmentSize);
    const to = segmentStart(segment + 1n, segmentSize);
    const open = last.get(timeline);
    if (open?.to === from)
      Object.assign(open, { to, segments: open.segments + 1, size: open.size + size });
    else {
      const range: ExpiredWal = { kind: 'wal', timeline, from, to, segments: 1, size };
      last.set(timeline, range);
      ranges.push(range);
    }
  }
  return ranges;
}

/** Objects of the index of which no segment stays. */
function indexOf(wal: PlaceWal, removed: readonly PlacedSegment[]): string[] {
  const gone = new Set(removed);
  const kept = new Set<string>();
  for (const size of new Set(wal.index.map(({ segments }) => BigInt(segments)))) {
    for (const one of wal.segments) {
      if (!gone.has(one)) kept.add(`${one.timeline} ${one.segment / size} ${size}`);
    }
  }
  const perId = 0x1_0000_0000n / BigInt(wal.segmentSize);
  return wal.index
    .filter(({ base, segments }) => {
      const timeline = Number.parseInt(base.slice(0, 8), 16);
      const first = BigInt(`0x${base.slice(8, 16)}`) * perId + BigInt(`0x${base.slice(16)}`);
      return !kept.has(`${timeline} ${first / BigInt(segments)} ${segments}`);
    })
    .map((object) => object.key);
}

/** A place, opened for its backups and for its WAL. */
interface Place {
  area: BackupArea;
  archive: Archive;
}

class Removing {
  readonly #area: BackupArea;
  readonly #archive: Archive;
  readonly #intent: Intent;
  readonly #options: ExpireOptions;
  readonly #seen: Seen;
  readonly #result: ExpireResult;
  /** Of which a lock holds the record: they go on being backups. */
  readonly #locked = new Set<string>();

  constructor(at: Place, intent: Intent, options: ExpireOptions, seen: Seen) {
    this.#area = at.area;
    this.#archive = at.archive;
    this.#intent = intent;
    this.#options = options;
    this.#seen = seen;
    this.#result = { ...seen.result, backups: [], wal: [], index: 0 };
  }

  async run(): Promise<ExpireResult> {
    const { plan, wal } = this.#seen;
    for (const { id } of plan.removedBackups) await this.#backup(id);
    const planned = this.#segments();
    const removed = await this.#wal(planned);
    this.#result.wal = rangesOf(removed, wal.segmentSize);
    const index = indexOf(wal, removed);
    for (let at = 0; at < index.length; at += BATCH) {
      this.#result.index += (await this.#remove(index.slice(at, at + BATCH))).length;
    }
    return this.#result;
  }

  /** Its record first: without it, it is no backup any more. What says who began it goes last. */
  async #backup(id: string): Promise<void> {
    const { backups, result } = this.#seen;
    const { prefix } = this.#area;
    const expired = result.backups.find((b) => b.id === id) as ExpiredBackup;
    const { found } = backups.find((b) => b.id === id) as PlacedBackup;
    if (backups.some((b) => this.#locked.has(b.id) && b.record?.parent === id)) {
      this.#locked.add(id);
      return;
    }
    this.#options.onRemove?.(expired);
    const [record, claim] = [backupKey(prefix, id, RECORD), backupKey(prefix, id, CLAIM)];
    const keys = found.objects.map((object) => object.key);
    if (keys.includes(record) && (await this.#remove([record])).length === 0) {
      this.#locked.add(id);
      return;
    }
    const rest = keys.filter((key) => key !== record && key !== claim);
    for (let at = 0; at < rest.length; at += BATCH) await this.#remove(rest.slice(at, at + BATCH));
    await this.#remove([claim], backupKey(prefix, id));
    this.#result.backups.push(expired);
  }

  /** What a backup that a lock holds needs stays with it, as if it were pinned. */
  #segments(): PlacedSegment[] {
    const { backups, leases, wal, segments, result } = this.#seen;
    if (this.#locked.size === 0) return segments;
    const pinned = backups.map((b) => (this.#locked.has(b.id) ? { ...b, kept: true } : b));
    const options = this.#options;
    const plan = planOf({ backups: pinned, wal, options, now: result.now, leases });
    const removed = new Set(plan.removedWal);
    return segments.filter((one) => removed.has(one));
  }

  /**
   * Oldest first, up to the first that a lock holds: what is newer stays too, and there is no hole.
   * @returns what was removed
   */
  async #wal(planned: readonly PlacedSegment[]): Promise<PlacedSegment[]> {
    const { segmentSize } = this.#seen.wal;
    const ranges = rangesOf(planned, segmentSize);
    const removed: PlacedSegment[] = [];
    for (let at = 0; at < planned.length; at += BATCH) {
      const batch = planned.slice(at, at + BATCH);
      for (const { timeline, segment } of batch) {
        const from = segmentStart(segment, segmentSize);
        const begun = ranges.find((r) => r.timeline === timeline && r.from === from);
        if (begun) this.#options.onRemove?.(begun);
      }
      const files = batch.flatMap((one) => one.files);
      const keys = files.map((file) => file.key);
      const links = files.filter((file) => file.link).map((file) => file.key);
      const objects = files.filter((file) => !file.link).map((file) => file.key);
      const gone = new Set([...(await this.#removeLinks(links)), ...(await this.#remove(objects))]);
      removed.push(...batch.filter((one) => one.files.every((file) => gone.has(file.key))));
      if (gone.size < keys.length) break;
    }
    return removed;
  }

  /** What they lead to stays: the directory does not know whose it is besides. */
  async #removeLinks(names: readonly string[]): Promise<string[]> {
    if (names.length === 0) return [];
    await this.#intent.confirm();
    const { removed, retained } = await this.#archive.remove(names);
    this.#result.retained.push(...retained);
    return removed;
  }

  /**
   * @param prune a prefix that nothing is created below any more
   * @returns what was removed
   */
  async #remove(keys: readonly string[], prune?: string): Promise<string[]> {
    const { signal } = this.#options;
    signal?.throwIfAborted();
    await this.#intent.confirm();
    const { removed, retained } = await this.#area.store.remove(keys, { signal, prune });
    this.#result.retained.push(...retained);
    return removed;
  }
}
