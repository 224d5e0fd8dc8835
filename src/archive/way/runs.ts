import { availableParallelism } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import type { Lsn } from '../../lsn.js';
import { packageFile } from '../../package.js';
import { WorkingThread } from '../../threads.js';
import { kindOf, type RecordKinds } from '../../wal/record.js';
import type { ArchiveOptions } from '../places/open-archive.js';
import { type FoundRecord, PackedReader } from './packed.js';
import { decoding, type Plan, type PlannedSegment } from './plan.js';
import { feedSegment, finish } from './read.js';
import { NOT_CLEAN, type RunJob, type RunResult, readRun } from './run.js';
import { type Damage, DamageTolerantScan, type ScanVisitor, type Unread } from './scan.js';

export interface WayOptions {
  /** Which records are visited. */
  kinds: RecordKinds;
  /** The same, with those `NOTED` that need not be visited where `wants` does not want them. */
  noted?: RecordKinds | undefined;
  keys?: ArchiveOptions | undefined;
  /** Threads. Default: one for each core; with one, this thread reads. */
  jobs?: number | undefined;
  /** Bytes of WAL that are read in one go. Default: 32 MiB. */
  jobBytes?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Awaited behind each segment. */
  between?: (() => Promise<void>) | undefined;
}

/** Takes what is found; true: that was enough. */
export interface WayVisitor extends Pick<ScanVisitor, 'damage'> {
  record(record: FoundRecord, major: number | undefined): boolean;
  /**
   * Asked before a run is visited whose `kinds` were `NOTED`: true if one of these transactions, or of
   * those in the run's records, matters, so that the records of their ends are to be visited, too.
   */
  wants?(ended: Int32Array, records: () => Iterable<FoundRecord>): boolean;
}

/** How far a way was read. */
export interface WayEnd {
  /** Behind the last byte that was looked at; undefined before the first. */
  position: Lsn | undefined;
  /** The visitor had enough. */
  enough: boolean;
}

const RUN = 32 * 1024 * 1024;
/** Runs of each thread that are read, or wait to be, before they are visited. */
const AHEAD = 3;
/** With fewer runs threads take longer to start than they save. */
const WORTH_THREADS = 4;

/** Segments that are read together: as a run, apart from all others, or one by itself. */
interface Part {
  segments: PlannedSegment[];
  start: Lsn;
  end: Lsn;
  /** The segment behind a run. */
  follow?: PlannedSegment;
}

/**
 * Visits the records of a way in their order, as `scanSegments` with a `DamageTolerantScan` does, but
 * what is whole and good in threads: runs of segments are read there, and of each it is proven that it
 * goes on where the one before it ends. Whatever is not as it should be is read again, by such a scan,
 * which alone says what is wrong with it.
 * @throws the signal's reason
 */
export async function scanWay(
  plan: Plan,
  segments: readonly PlannedSegment[],
  options: WayOptions,
  visitor: WayVisitor,
): Promise<WayEnd> {
  const parts = partsOf(plan, segments, options.jobBytes ?? RUN);
  const runs = new Runs(plan, parts, options);
  const walk = new Walk(plan, options, visitor);
  try {
    for (const part of parts) {
      options.signal?.throwIfAborted();
      let run = part.follow && (await runs.next());
      options.signal?.throwIfAborted();
      const joined = run?.clean && (await walk.join(part));
      if (joined && run && wantsMore(run, visitor)) run = await runs.again(options.kinds);
      if (joined && run?.clean) await walk.deliver(part, run);
      else await walk.read(part, part === parts.at(-1));
      if (walk.enough) break;
    }
  } finally {
    await runs.close();
  }
  return { position: walk.position, enough: walk.enough };
}

function wantsMore({ ended, packed }: RunResult, visitor: WayVisitor): boolean {
  if (ended.length === 0) return false;
  return visitor.wants?.(ended, () => new PackedReader(packed)) ?? true;
}

function partsOf(plan: Plan, segments: readonly PlannedSegment[], most: number): Part[] {
  const size = BigInt(plan.segmentSize);
  const isWhole = ({ start, files }: PlannedSegment): boolean =>
    files.length === 1 && !files[0]!.partial && files[0]!.end === start + size;
  // Without both, a page says less about what stands on it than what came before it.
  const known = !plan.orphan && plan.systemId !== undefined;
  const parts: Part[] = [];
  for (const [i, segment] of segments.entries()) {
    const next = segments[i + 1];
    const end = (segment.start + size) as Lsn;
    const inRun = known && isWhole(segment) && next?.start === end && isWhole(next);
    const last = parts.at(-1);
    const room = last?.follow === segment && BigInt(most) >= end - last.start;
    if (inRun && last && room) {
      last.segments.push(segment);
      Object.assign(last, { end, follow: next });
    } else {
      parts.push({
        ...{ segments: [segment], start: segment.start, end },
        ...(inRun ? { follow: next } : {}),
      });
    }
  }
  return parts;
}

/** Reads runs ahead of who takes their results. */
class Runs {
  readonly #plan: Plan;
  readonly #jobs: RunJob[];
  readonly #threads: WorkingThread<RunJob, RunResult>[] = [];
  readonly #results: Promise<RunResult>[] = [];
  #taken = 0;

  constructor(plan: Plan, parts: readonly Part[], { kinds, noted, keys, jobs }: WayOptions) {
    this.#plan = plan;
    const { archive, segmentSize, systemId, timeline, history } = plan;
    const whole = ({ start, files }: PlannedSegment) => ({ start, name: files[0]!.name });
    this.#jobs = parts.flatMap(({ segments, follow }) =>
      follow
        ? {
            ...{ place: archive.place, keys: { ...keys, systemId: systemId as bigint } },
            ...{
              segmentSize,
              systemId: systemId as bigint,
              timeline,
              history,
              kinds: noted ?? kinds,
            },
            ...{ segments: segments.map(whole), follow: whole(follow) },
          }
        : [],
    );
    const threads = Math.min(jobs ?? availableParallelism(), this.#jobs.length);
    // Several archives that are read as one note which copies they passed over: here, and not there.
    const alone = threads < 2 || archive.passedOver !== undefined;
    const isPossible = packageFile('archive/way/worker.js') !== undefined;
    if (alone || !isPossible || this.#jobs.length < WORTH_THREADS) return;
    for (let i = 0; i < threads; i++) {
      this.#threads.push(new WorkingThread<RunJob, RunResult>('archive/way/worker.js'));
    }
  }

  /** The last result once more, with all records and none noted. */
  again(kinds: RecordKinds): Promise<RunResult> {
    const job = { ...this.#jobs[this.#taken - 1]!, kinds };
    return readRun(this.#plan.archive, job, { readAhead: true });
  }

  /** The result of the next run. */
  async next(): Promise<RunResult> {
    const job = this.#jobs[this.#taken]!;
    if (this.#threads.length === 0) {
      this.#taken++;
      // Between two runs a signal or a timer is heard.
      await setImmediate();
      return readRun(this.#plan.archive, job, { readAhead: true });
    }
    const ahead = this.#taken + AHEAD * this.#threads.length;
    for (let i = this.#results.length; i < Math.min(ahead, this.#jobs.length); i++) {
      const thread = this.#threads[i % this.#threads.length]!;
      // What a thread cannot do is done here.
      this.#results.push(thread.run(this.#jobs[i]!).catch(() => NOT_CLEAN));
    }
    const result = await this.#results[this.#taken]!;
    // Nobody needs it any more, and it may be large.
    this.#results[this.#taken] = Promise.resolve(NOT_CLEAN);
    this.#taken++;
    return result;
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }
}

type Held =
  | { record: FoundRecord; major: number | undefined }
  | { damage: Damage; why: Unread | undefined };

/** Goes along the way, in turns through runs that are read and by a scan of its own. */
class Walk {
  enough = false;
  readonly #plan: Plan;
  readonly #options: WayOptions;
  readonly #visitor: WayVisitor;
  /** Reads what is no clean run; undefined while all before `#at` was proven to be good. */
  #scan: DamageTolerantScan | undefined;
  #at: Lsn | undefined;
  /** While it is tried whether a scan comes to where a run begins: what may be the run's to tell. */
  #held: Held[] | undefined;
  #border = 0n;
  /** What the scan said of the segment that it is in. */
  #told = false;

  constructor(plan: Plan, options: WayOptions, visitor: WayVisitor) {
    this.#plan = plan;
    this.#options = options;
    this.#visitor = visitor;
  }

  get position(): Lsn | undefined {
    return this.#scan?.position ?? this.#at;
  }

  /**
   * True if a run goes on with what was read before it: the scan has come without damage to a record
   * that begins in the run. Where it has not, it goes on itself.
   */
  async join(part: Part): Promise<boolean> {
    const scan = this.#scan;
    if (!scan) return true;
    if (scan.position !== part.start) return false;
    this.#border = part.start;
    this.#held = [];
    let reached: Lsn | undefined;
    let joined = false;
    const stop = (): boolean => {
      const end = scan.validEnd ?? 0n;
      joined = reached !== undefined && end > reached;
      if (reached === undefined && end > part.start) reached = end as Lsn;
      return joined || this.#isBroken;
    };
    const { signal } = this.#options;
    this.#told = await feedSegment(this.#plan, part.segments[0]!, scan, signal, stop);
    const held = this.#held;
    const isGood = joined && !this.#isBroken && !scan.enough;
    this.#held = undefined;
    this.enough = scan.enough;
    if (isGood) {
      this.#scan = undefined;
      return true;
    }
    for (const one of held) {
      if (this.enough) break;
      this.enough =
        'record' in one
          ? this.#visitor.record(one.record, one.major)
          : this.#visitor.damage(one.damage, one.why);
    }
    return false;
  }

  get #isBroken(): boolean {
    return this.#held?.some((one) => 'damage' in one) ?? false;
  }

  /** Visits what a run has. */
  async deliver({ segments }: Part, { packed, major }: RunResult): Promise<void> {
    const visitor = this.#visitor;
    const records = new PackedReader(packed);
    for (const { start } of segments) {
      const end = (start + BigInt(this.#plan.segmentSize)) as Lsn;
      for (let lsn = records.lsn; lsn !== undefined && lsn < end; lsn = records.lsn) {
        const record = records.take();
        this.enough = visitor.record(record, major);
        if (!this.enough) continue;
        this.#at = record.endLsn;
        return;
      }
      this.#at = end;
      await this.#options.between?.();
    }
  }

  /** Reads what is no clean run. */
  async read({ segments }: Part, isLast: boolean): Promise<void> {
    if (this.enough) return;
    const { signal, between } = this.#options;
    this.#scan ??= this.#newScan();
    const scan = this.#scan;
    for (const [i, segment] of segments.entries()) {
      const told = await feedSegment(this.#plan, segment, scan, signal);
      this.#told ||= told;
      await between?.();
      this.enough = scan.enough;
      if (this.enough) return;
      const full = scan.position === segment.start + BigInt(this.#plan.segmentSize);
      if (isLast && i === segments.length - 1) finish(segment, scan, this.#told);
      else if (full) scan.endSegment();
      this.enough = scan.enough;
      this.#told = false;
    }
  }

  #newScan(): DamageTolerantScan {
    const { kinds } = this.#options;
    const select = (rmgr: number, info: number): boolean => kinds[kindOf(rmgr, info)] === 1;
    return new DamageTolerantScan(
      { ...decoding(this.#plan), select },
      {
        record: (record, major) => {
          const held = this.#held;
          if (!held || (held.length === 0 && record.lsn < this.#border)) {
            return this.#visitor.record(record, major);
          }
          held.push({ record, major });
          return false;
        },
        damage: (damage, why) => {
          if (!this.#held) return this.#visitor.damage(damage, why);
          this.#held.push({ damage, why });
          return false;
        },
      },
    );
  }
}
