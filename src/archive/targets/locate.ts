import { formatLsn, type Lsn } from '../../lsn.js';
import { formatTimestamp, type TimestampTz } from '../../wal/records/timestamp.js';
import { timelineAt } from '../../wal/timeline.js';
import type { BackupArea } from '../backups/area.js';
import type { Catalog } from '../catalog.js';
import { readFacts } from '../index/facts.js';
import { type ArchiveKeys, identitiesOf } from '../places/open-archive.js';
import { type EndMark, isEnd, type Mark } from '../way/marks.js';
import type { Damage } from '../way/scan.js';
import { type Elsewhere, findElsewhere } from './elsewhere.js';
import { type MarkTarget, searchMark } from './search-mark.js';
import { firstLaterEnd } from './search-time.js';
import type { LocatedTarget, RecoveryTarget, UnreachableTarget } from './target.js';
import { type WayBegin, type WayStretch, wayFrom } from './way.js';
import { WayMarks } from './way-marks.js';

export interface LocateOptions {
  /** Follow the way to this timeline; default the newest. */
  timeline?: number | undefined;
  /** The backup that recovery begins with. */
  after: WayBegin;
  /** Where the index of the WAL lies; without it WAL is read. */
  area?: BackupArea | undefined;
  /** What opens that index if it is encrypted. */
  keys?: ArchiveKeys | undefined;
  signal?: AbortSignal | undefined;
}

/** Segments at the end of the WAL in which a record with a time is looked for. */
const FEW = 8;

/** Bytes of WAL that a server may decode ahead: its wal_decode_buffer_size, which is 512 kB by default. */
const READ_AHEAD = 64n * 1024n * 1024n;

export type TargetResult = { located: LocatedTarget } | { unreachable: UnreachableTarget };

/**
 * Where a recovery ends that PostgreSQL would make of a backup and the WAL of an archive: the first
 * record that it stops before or behind (access/transam/xlogrecovery.c, recoveryStopsBefore and
 * recoveryStopsAfter). What it would fail for, or arrive at without saying so, is unreachable: a stop
 * before the backup's end, WAL that ends before the target, a time that was before the backup.
 *
 * In one case more than PostgreSQL can do by itself: a time behind the last commit, where a later
 * record (a checkpoint, a restore point) shows that none is missing, is the end of the WAL.
 * @throws UsageError if the archive does not have the timeline; what an archive throws
 */
export async function locateTarget(
  catalog: Catalog,
  target: RecoveryTarget,
  options: LocateOptions,
): Promise<TargetResult> {
  const way = wayFrom(catalog, options.after, options.timeline);
  if ('unreachable' in way) return way;
  const { stretch } = way;
  const { area, keys = {}, signal } = options;
  const reading = { identities: identitiesOf(keys), signal };
  const places = { from: stretch.first, to: stretch.behind };
  const index =
    area && isSearched(target)
      ? await readFacts(area, stretch.plan, places, target, reading)
      : undefined;
  const marks = new WayMarks(stretch.plan, stretch, index?.facts, signal);
  const elsewhere = (sought: MarkTarget) => findElsewhere(catalog, stretch, sought, area, reading);
  const notes = index?.notes ?? [];
  const { after } = options;
  const locator = new Locator(catalog, stretch, marks, { after, notes, elsewhere });
  return locator.locate(target);
}

/** What is looked for in more segments than a few. */
function isSearched(
  target: RecoveryTarget,
): target is Extract<RecoveryTarget, { kind: 'time' | 'xid' | 'name' }> {
  return target.kind === 'time' || target.kind === 'xid' || target.kind === 'name';
}

interface LocatorOptions {
  after: WayBegin;
  notes: readonly string[];
  elsewhere(target: MarkTarget): Promise<Elsewhere | undefined>;
}

class Locator {
  readonly #catalog: Catalog;
  readonly #stretch: WayStretch;
  readonly #marks: WayMarks;
  readonly #end: Lsn;
  readonly #ended: TimestampTz | undefined;
  readonly #notes: string[];
  readonly #elsewhere: LocatorOptions['elsewhere'];

  constructor(
    catalog: Catalog,
    stretch: WayStretch,
    marks: WayMarks,
    { after, notes, elsewhere }: LocatorOptions,
  ) {
    this.#catalog = catalog;
    this.#stretch = stretch;
    this.#marks = marks;
    this.#end = after.lsn;
    this.#ended = after.time;
    this.#notes = [...notes];
    this.#elsewhere = elsewhere;
    const { timeline, unfollowed } = stretch.plan;
    if (unfollowed.length > 0) {
      const others = unfollowed.join(', ');
      this.#notes.push(
        `timeline ${timeline} is followed; later ones were never received: ${others}`,
      );
    }
  }

  async locate(target: RecoveryTarget): Promise<TargetResult> {
    const needed = this.#marks.placeOf((this.#end - 1n) as Lsn);
    if (needed === undefined && this.#end > this.#stretch.from) return this.#stops();
    switch (target.kind) {
      case 'latest':
        return this.#latest();
      case 'immediate':
        return this.#stopAt(this.#end, { name: 'recovery_target', value: 'immediate' });
      case 'lsn':
        return this.#atLsn(target.lsn, target.inclusive);
      case 'time':
        return this.#atTime(target.time, target.inclusive);
      default:
        return this.#atMark(target);
    }
  }

  async #latest(): Promise<TargetResult> {
    const { last, end, damage } = await this.#marks.lastRecord();
    if (damage) return this.#damaged(damage);
    if (this.#stretch.gap || last === undefined) return this.#stops();
    if (end < this.#end) return this.#endsEarly(end);
    return this.#stopAt(end, undefined);
  }

  async #atLsn(lsn: Lsn, inclusive: boolean): Promise<TargetResult> {
    const { from, plan } = this.#stretch;
    if (lsn < from) return this.#beforeBackup(`${formatLsn(lsn)} is before the backup`);
    const at = this.#marks.placeOf(lsn);
    const read = at === undefined ? undefined : await this.#marks.firstRecord(at, lsn);
    if (read?.damage) return this.#damaged(read.damage);
    if (read?.found) {
      const { lsn: begin, endLsn } = read.found;
      const stop = inclusive ? endLsn : begin;
      if (stop < this.#end) return this.#insideBackup(`${formatLsn(lsn)} is inside the backup`);
      return this.#stopAt(stop, lsnSetting(begin, inclusive));
    }
    if (this.#stretch.gap) return this.#stops();
    const { last, end, damage } = await this.#marks.lastRecord();
    if (damage) return this.#damaged(damage);
    if (end < this.#end) return this.#endsEarly(end);
    // All that is before it is here, and nothing else.
    if (lsn === end && !inclusive && last !== undefined) {
      return this.#stopAt(end, lsnSetting(last, true));
    }
    const other = this.#catalog.timelines.findLast(({ history, segments }) => {
      const newest = segments.at(-1);
      return (
        newest !== undefined &&
        lsn > end &&
        (newest.segment + 1n) * BigInt(plan.segmentSize) > lsn &&
        (!history || timelineAt(history, lsn) !== timelineAt(plan.history, lsn))
      );
    });
    if (other) {
      return this.#offBranch(formatLsn(lsn), other.timeline, end);
    }
    return this.#afterLast(`the WAL ends at ${formatLsn(end)}, before ${formatLsn(lsn)}`);
  }

  async #atTime(time: TimestampTz, inclusive: boolean): Promise<TargetResult> {
    const isLater = (one: TimestampTz) => (inclusive ? one > time : one >= time);
    const when = formatTimestamp(time);
    const { mark, damage, assumed } = await firstLaterEnd(this.#marks, time, isLater);
    if (assumed > 0) {
      this.#notes.push(
        `${assumed} segments were not read and have no index: clocks are taken not to have gone back`,
      );
    }
    if (damage) return this.#damaged(damage);
    if (mark) {
      const state = await this.#standsBefore(time, isLater, mark);
      if (state === 'before') return this.#beforeBackup(`${when} is before the backup`);
      if (mark.lsn < this.#end || (state === 'unknown' && this.#endedBehind(time))) {
        return this.#insideBackup(`${when} is inside the backup`);
      }
      return this.#stopAt(mark.lsn, lsnSetting(mark.lsn, false));
    }
    if (this.#stretch.gap) return this.#stops();
    const proof = await this.#lastMark();
    if (proof && !isEnd(proof) && isLater(proof.time)) {
      const { last, end, damage: unread } = await this.#marks.lastRecord();
      if (unread) return this.#damaged(unread);
      if (end < this.#end) return this.#endsEarly(end);
      if (last !== undefined) {
        const state = await this.#standsBefore(time, isLater, undefined);
        if (state === 'before') return this.#beforeBackup(`${when} is before the backup`);
        if (state === 'unknown' && this.#endedBehind(time)) {
          return this.#insideBackup(`${when} is inside the backup`);
        }
        return this.#stopAt(end, lsnSetting(last, true));
      }
    }
    return this.#afterLast(`${when} is after the last commit`);
  }

  /**
   * Nothing that is replayed tells; then the server's clock at the end of the backup does. What was
   * committed before the backup and after the time is in the files.
   */
  #endedBehind(time: TimestampTz): boolean {
    return this.#ended !== undefined && time < this.#ended;
  }

  /** `before`: what replay meets first shows that the time was over when the backup began. */
  async #standsBefore(
    time: TimestampTz,
    isLater: (time: TimestampTz) => boolean,
    stop: EndMark | undefined,
  ): Promise<'before' | 'behind' | 'unknown'> {
    const to = this.#marks.placeOf(this.#end) ?? this.#marks.behind - 1;
    for (let at = this.#marks.first; at <= to; at++) {
      for (const mark of (await this.#marks.at(at)).marks) {
        if (mark.lsn >= this.#end) return 'unknown';
        if (mark === stop) return 'before';
        if (isLater(mark.time)) return 'before';
        // Of a checkpoint only the second is known.
        if (mark.kind !== 'clock' || mark.time + 1_000_000n <= time) return 'behind';
      }
    }
    return 'unknown';
  }

  async #atMark(target: Extract<RecoveryTarget, { kind: 'xid' | 'name' }>): Promise<TargetResult> {
    const what =
      target.kind === 'xid' ? `transaction ${target.xid}` : `a restore point "${target.name}"`;
    const { mark, damage } = await searchMark(this.#marks, target);
    if (mark) {
      const inclusive = target.kind === 'name' || target.inclusive;
      const stop = inclusive ? mark.endLsn : mark.lsn;
      if (stop < this.#end) return this.#insideBackup(`${what} ends inside the backup`);
      const found = await this.#stopAt(stop, lsnSetting(mark.lsn, inclusive));
      if (target.kind === 'name' && 'located' in found) {
        found.located.last = { lsn: mark.lsn, time: mark.time };
      }
      return found;
    }
    if (damage) return this.#damaged(damage);
    if (this.#stretch.gap) {
      const stops = await this.#stops();
      return {
        unreachable: {
          ...stops.unreachable,
          message: `${what} is not in the WAL before a hole: ${stops.unreachable.message}`,
        },
      };
    }
    const elsewhere = await this.#elsewhere(target);
    if (elsewhere?.timeline !== undefined) {
      const { end } = await this.#marks.at(this.#marks.behind - 1);
      return this.#offBranch(what, elsewhere.timeline, end);
    }
    if (elsewhere) return this.#beforeBackup(`${what} is before the backup`);
    const { timeline } = this.#stretch.plan;
    const from = formatLsn(this.#stretch.from);
    const { unreachable } = await this.#afterLast(
      `${what} is not in the WAL of timeline ${timeline} from ${from} on`,
    );
    return { unreachable: { ...unreachable, reason: 'unknown' } };
  }

  /** The last record with a time, from few segments. */
  async #lastMark(): Promise<Mark | undefined> {
    const { first, behind } = this.#marks;
    for (let at = behind - 1; at >= Math.max(first, behind - FEW); at--) {
      const last = (await this.#marks.at(at)).marks.at(-1);
      if (last) return last;
    }
    return undefined;
  }

  async #stopAt(lsn: Lsn, setting: LocatedTarget['setting']): Promise<TargetResult> {
    const { last, next } = await this.#marks.around(lsn);
    const gap = this.#gapBehind(lsn);
    return {
      located: {
        ...(gap ? { gap } : {}),
        timeline: this.#stretch.plan.timeline,
        lsn,
        ...(last ? { last: point(last) } : {}),
        ...(next ? { next: point(next) } : {}),
        setting,
        notes: this.#notes,
        segmentsRead: this.#marks.segmentsRead,
      },
    };
  }

  #gapBehind(lsn: Lsn): LocatedTarget['gap'] {
    const { gap, plan, behind } = this.#stretch;
    if (!gap || lsn + READ_AHEAD + BigInt(plan.segmentSize) < gap.from) return undefined;
    return { isPartial: plan.segments[behind - 1]?.files[0]?.partial ?? false };
  }

  #unreachable(
    reason: UnreachableTarget['reason'],
    message: string,
    nearest?: UnreachableTarget['nearest'],
  ): { unreachable: UnreachableTarget } {
    const { segmentsRead } = this.#marks;
    return {
      unreachable: {
        reason,
        message,
        notes: this.#notes,
        segmentsRead,
        ...(nearest ? { nearest } : {}),
      },
    };
  }

  #beforeBackup(message: string) {
    return this.#unreachable('before-backup', message, this.#backupEnd());
  }

  #insideBackup(message: string) {
    return this.#unreachable('inside-backup', message, this.#backupEnd());
  }

  #backupEnd(): UnreachableTarget['nearest'] {
    const lsn = this.#end;
    return { lsn, hint: `Use --to immediate: the backup ends at ${formatLsn(lsn)}.` };
  }

  #offBranch(what: string, timeline: number, end: Lsn) {
    const ours = this.#stretch.plan.timeline;
    return this.#unreachable(
      'not-on-branch',
      `the WAL of timeline ${ours} ends at ${formatLsn(end)}; ${what} is on timeline ${timeline}`,
      { lsn: end, hint: `Take --timeline ${timeline}, or --to latest for the end of ${ours}.` },
    );
  }

  async #afterLast(message: string) {
    const last = await this.#marks.lastEnd();
    const { end } = await this.#marks.at(this.#marks.behind - 1);
    if (!last) {
      const hint = `Use --to latest: the WAL ends at ${formatLsn(end)}.`;
      return this.#unreachable('after-last', message, { lsn: end, hint });
    }
    const { lsn, time } = last;
    const hint = `Use --to latest: the last transaction ended at ${formatTimestamp(time)}.`;
    return this.#unreachable('after-last', message, { lsn, time, hint });
  }

  /** What is missing begins before the target. */
  async #stops() {
    const { gap } = this.#stretch;
    const { end, damage } = await this.#marks.lastRecord();
    if (damage) return this.#damaged(damage);
    if (!gap) return this.#endsEarly(end);
    const range = `${formatLsn(gap.from)} to ${formatLsn(gap.to)}`;
    return this.#unreachable('in-gap', `WAL is missing: ${range}`, await this.#lastBefore(end));
  }

  #endsEarly(end: Lsn) {
    const needed = formatLsn(this.#end);
    return this.#unreachable(
      'in-gap',
      `the backup needs WAL up to ${needed}, and it ends at ${formatLsn(end)}`,
    );
  }

  async #damaged({ lsn, from, message }: Damage) {
    return this.#unreachable(
      'damaged',
      `the WAL cannot be read at ${formatLsn(lsn)}: ${message}`,
      await this.#lastBefore(from),
    );
  }

  /** The last end of a transaction before an LSN that recovery gets no further than. */
  async #lastBefore(lsn: Lsn): Promise<UnreachableTarget['nearest']> {
    const { last } = await this.#marks.around(lsn);
    if (!last || last.endLsn < this.#end) return undefined;
    const when = `it has the commit of ${formatTimestamp(last.time)}`;
    return { lsn: last.lsn, time: last.time, hint: `Use --to ${formatLsn(last.lsn)}: ${when}.` };
  }
}

function lsnSetting(lsn: Lsn, inclusive: boolean): LocatedTarget['setting'] {
  return { name: 'recovery_target_lsn', value: formatLsn(lsn), inclusive };
}

function point(mark: Mark): { lsn: Lsn; time: TimestampTz; xid?: number } {
  const { lsn, time } = mark;
  return isEnd(mark) ? { lsn, time, xid: mark.xid } : { lsn, time };
}
