import type { BackupRecord } from '../../base/backup-record.js';
import type { Lsn } from '../../lsn.js';
import { segmentStart } from '../../wal/file-name.js';
import type { TimelineHistory } from '../../wal/timeline.js';
import type { LedgerState } from '../ledger-entry.js';
import type { RunningLease } from './lease.js';
import type { Removal } from './needs.js';
import { leadsThrough, type StoredWalSegment, type Way, Ways } from './ways.js';

/** What is to be kept; what either asks for stays. */
export interface RetentionRules {
  /** Milliseconds before now of which every moment stays restorable. */
  window?: number | undefined;
  /** How many full backups stay, with all that is newer than the oldest of them. */
  redundancy?: number | undefined;
}

/** A backup as the plan sees it. */
export interface JudgedBackup {
  id: string;
  /**
   * `complete`: all its objects are there, and its parents are complete too. `leftover`: it was never
   * finished, and nobody is at it any more. Of what is damaged there may be no record.
   */
  state: 'complete' | 'damaged' | 'running' | 'leftover';
  record?: RetainedRecord | undefined;
  /** When it was there, by the clock of the place: of its record, else of its newest object. */
  stored: Date;
  /** Pinned by `keep`. */
  kept: boolean;
}

export type RetainedRecord = Pick<
  BackupRecord,
  'parent' | 'systemId' | 'start' | 'end' | 'walRanges' | 'wal'
>;

export interface RetentionInput extends RetentionRules {
  /** By the clock of the place. */
  now: Date;
  backups: readonly JudgedBackup[];
  leases: readonly RunningLease[];
  wal: {
    /** Undefined: nothing tells whose it is, so that it may be anybody's. */
    systemId: bigint | undefined;
    segmentSize: number;
    segments: readonly StoredWalSegment[];
    histories: readonly (TimelineHistory & { stored: Date })[];
    /** Timelines whose history is there and cannot be read: they may lead anywhere. */
    unread?: readonly { timeline: number }[] | undefined;
    ledger?: LedgerState | undefined;
  };
}

export interface RetentionPlan {
  /** In the order of their removal: children before parents. */
  removedBackups: { id: string; why: string }[];
  /** Oldest first. */
  removedWal: StoredWalSegment[];
  /** The same as ranges. */
  removal: Removal;
  /** Why each other backup stays. */
  keptBackups: { id: string; why: string[] }[];
  /** Why other WAL stays: what needs the first segment of a range, and all that follow. */
  keptWal: { timeline: number; from: Lsn; to: Lsn; why: string }[];
  /** Why nothing is removed at all. */
  nothing?: string | undefined;
}

/** A branch that is left for another stays for so long at least where no window says how long. */
const DAY = 86_400_000;
const HOUR = 3_600_000;

/**
 * What a place may lose. Nothing here asks any clock or store: what it is given it decides upon.
 *
 * A way leads from the first timeline to the end of one. It is alive if something of that timeline was
 * stored within the window (WAL, a backup, or its history), or if it is the current one. Of a way that is alive stay: the newest
 * backup that was there when the window began, every later one, and all WAL from the first start of
 * these on; the same from the N-th newest full backup on. Times are those of the place at which
 * a record or segment was stored there: what they hold is never younger.
 */
export function planRetention(input: RetentionInput): RetentionPlan {
  const plan = new Planning(input);
  const unread = input.leases.find((lease) => lease.needs === undefined);
  if (unread) return plan.nothing(`the lease of ${unread.kind} ${unread.id} cannot be read`);
  if (!input.backups.some((b) => b.state === 'complete')) {
    return plan.nothing('there is no complete backup');
  }
  return plan.result();
}

interface Complete extends JudgedBackup {
  record: RetainedRecord;
  /** Not before it ended, whatever a clock that was set meanwhile says. */
  ended: number;
}

class Planning {
  readonly #input: RetentionInput;
  readonly #byId: Map<string, JudgedBackup>;
  /** Why each stays. */
  readonly #backups = new Map<string, Set<string>>();
  readonly #wal = new Map<StoredWalSegment, string>();

  constructor(input: RetentionInput) {
    this.#input = input;
    this.#byId = new Map(input.backups.map((b) => [b.id, b]));
  }

  nothing(why: string): RetentionPlan {
    for (const { id } of this.#input.backups) this.#keep(id, why);
    for (const segment of this.#input.wal.segments) this.#wal.set(segment, why);
    return { ...this.#answer(), nothing: why };
  }

  result(): RetentionPlan {
    const { backups, wal } = this.#input;
    const systems = new Set(backups.flatMap((b) => (b.record ? [b.record.systemId] : [])));
    const owner = wal.systemId ?? (systems.size === 1 ? [...systems][0] : undefined);
    for (const systemId of new Set([...systems, ...(owner === undefined ? [] : [owner])])) {
      const own = backups.filter((b) => b.record?.systemId === systemId);
      this.#system(own, systemId === owner);
    }
    this.#others();
    // Whatever a backup stays for: it can be restored, at least to its end.
    const histories = new Ways(wal.segments, wal.histories, [], wal.segmentSize, wal.ledger);
    for (const b of backups) {
      if (b.record?.systemId === owner && this.#backups.has(b.id)) this.#ranges(histories, b);
    }
    if (owner === undefined) for (const one of wal.segments) this.#wal.set(one, 'it may be of any');
    return this.#answer();
  }

  /** One cluster's backups, and its WAL if that is here. */
  #system(own: readonly JudgedBackup[], hasWal: boolean): void {
    const { wal, redundancy = 0, window, now } = this.#input;
    const told = own.flatMap((b) => (b.record ? [b.record.end.timeline] : []));
    const timelines = [...told, ...(wal.unread ?? []).map((one) => one.timeline)];
    const ways = hasWal
      ? new Ways(wal.segments, wal.histories, timelines, wal.segmentSize, wal.ledger)
      : new Ways([], [], timelines, wal.segmentSize, undefined);
    const complete = this.#complete(own, ways, hasWal);
    if (complete.length === 0) {
      const why = 'there is no complete backup of its cluster';
      for (const b of own) this.#keep(b.id, why);
      if (hasWal) for (const one of wal.segments) this.#wal.set(one, why);
      return;
    }
    const heads = this.#heads(complete);
    const ends = this.#firstOfChains([...heads].sort(byEnd));
    const newest = ends.slice(Math.max(0, ends.length - redundancy));
    // Without a window a branch goes with the backups of its time.
    const since =
      window === undefined
        ? Math.min(newest[0]?.ended ?? Number.POSITIVE_INFINITY, now.getTime() - DAY)
        : now.getTime() - window;
    for (const way of this.#alive(ways, complete, hasWal, since)) {
      const on = complete.filter((b) => leadsThrough(way, b.record.end)).sort(along(way));
      if (on.length === 0) this.#keepWal(ways, way, 0n as Lsn, 'no backup leads to it');
      if (window !== undefined) {
        const base = on.findLast((b) => b.ended <= since) ?? on[0];
        this.#from(ways, way, on, base, 'the window');
      }
      if (redundancy > 0) {
        const first = this.#firstOfChains(on.filter((b) => heads.includes(b))).at(-redundancy);
        this.#from(ways, way, on, first ?? on[0], 'redundancy');
      }
    }
    for (const b of newest) {
      const way = ways.of(b.record.end.timeline);
      const on = complete.filter((other) => leadsThrough(way, other.record.end));
      this.#from(ways, way, on.sort(along(way)), b, 'redundancy');
    }
    if (hasWal) this.#leases(ways);
    this.#damaged(own, complete);
  }

  /** Those that can be restored: with WAL up to their ends. */
  #complete(own: readonly JudgedBackup[], ways: Ways, hasWal: boolean): Complete[] {
    const now = this.#input.now.getTime();
    const isUsable = ({ record }: JudgedBackup): boolean =>
      !hasWal ||
      record?.wal === 'included' ||
      (record?.walRanges ?? []).every((r) => ways.has(r.timeline, r.start, r.end));
    const all = own.flatMap((b) =>
      b.state === 'complete' && b.record && isUsable(b) ? [{ ...b, record: b.record }] : [],
    );
    return all.map((b) => {
      const way = ways.of(b.record.end.timeline);
      const before = all
        .filter((o) => o.record.end.lsn < b.record.end.lsn && leadsThrough(way, o.record.end))
        .map((o) => o.stored.getTime())
        .filter((time) => time <= now);
      return { ...b, ended: Math.max(b.stored.getTime(), ...before) };
    });
  }

  /** Full backups; where one cannot be restored though what is based on it can, these. */
  #heads(complete: readonly Complete[]): Complete[] {
    const usable = new Set(complete.map((b) => b.id));
    const hasUsableParent = (b: JudgedBackup | undefined): boolean => {
      const parent = b?.record?.parent;
      return (
        parent !== undefined && (usable.has(parent) || hasUsableParent(this.#byId.get(parent)))
      );
    };
    return complete.filter((b) => !hasUsableParent(b));
  }

  /** Those that hang on one full backup count once: what spoils that spoils them all. */
  #firstOfChains(heads: readonly Complete[]): Complete[] {
    const seen = new Set<string>();
    return heads.filter((b) => {
      let root: JudgedBackup = b;
      for (let one: JudgedBackup | undefined = b; one; ) {
        root = one;
        one = one.record?.parent === undefined ? undefined : this.#byId.get(one.record.parent);
      }
      const isFirst = !seen.has(root.id);
      seen.add(root.id);
      return isFirst;
    });
  }

  #alive(ways: Ways, complete: readonly Complete[], hasWal: boolean, since: number): Way[] {
    const { unread = [] } = this.#input.wal;
    const now = this.#input.now.getTime();
    const histories = hasWal ? this.#input.wal.histories : [];
    const newest = (way: Way): number => {
      const own = ways.segmentsOf(way.timeline).map(({ stored }) => stored.getTime());
      // Its end is no older than what leads to it.
      const before = [...ways.segmentsBefore(way)].map(({ stored }) => stored.getTime());
      for (const b of complete) if (b.record.end.timeline === way.timeline) own.push(b.ended);
      // A server that was promoted just now has only this of it yet.
      for (const h of histories) if (h.timeline === way.timeline) own.push(h.stored.getTime());
      if (hasWal && unread.some((h) => h.timeline === way.timeline)) own.push(now);
      return own.length === 0 ? NEVER : latest([...own, ...before.filter((time) => time <= now)]);
    };
    const seen = ways.all.map((way) => ({ way, last: newest(way) }));
    const last = latest(seen.map((one) => one.last));
    // Then no branch is known to be left for another.
    const isDoubtful = last > now || unread.length > 0 || isDisordered(histories);
    const least = isDoubtful ? NEVER : since;
    const received = this.#input.wal.ledger?.timeline;
    return seen
      .filter((one) => one.last > NEVER)
      .filter((one) => one.last >= Math.min(least, last) || one.way.timeline === received)
      .map((one) => one.way);
  }

  /** One backup on a way, all later ones on it, and the WAL that leads from them to its end. */
  #from(
    ways: Ways,
    way: Way,
    on: readonly Complete[],
    first: Complete | undefined,
    why: string,
  ): void {
    if (!first) return;
    for (const b of on.slice(on.indexOf(first))) this.#keep(b.id, why);
    // One that ended later may have begun earlier: each backup keeps its own WAL besides.
    this.#keepWal(ways, way, first.record.start.lsn, `backup ${first.id} leads to ${why}`);
  }

  #keepWal(ways: Ways, way: Way, from: Lsn, why: string): void {
    for (const one of ways.segmentsOn(way, from)) if (!this.#wal.has(one)) this.#wal.set(one, why);
  }

  #ranges(ways: Ways, { id, record, state, kept }: JudgedBackup): void {
    if (state !== 'complete' && !kept) return;
    const why = `backup ${id} itself`;
    for (const { timeline, start, end } of record?.walRanges ?? []) {
      for (const one of ways.segmentsFor(timeline, start, end)) {
        if (!this.#wal.has(one)) this.#wal.set(one, why);
      }
    }
  }

  #leases(ways: Ways): void {
    for (const { id, kind, needs } of this.#input.leases) {
      for (const { timeline, lsn } of needs?.wal ?? []) {
        for (const way of ways.all) {
          const goesOn = way.parts.some(
            (p) => p.timeline === timeline && (p.to === undefined || p.to >= lsn),
          );
          if (goesOn || way.timeline === timeline) {
            this.#keepWal(ways, way, lsn, `${kind} ${id} is running`);
          }
        }
      }
    }
  }

  /** What is no good stays for as long as something older stays that is: it may be looked into. */
  #damaged(own: readonly JudgedBackup[], complete: readonly Complete[]): void {
    const good = complete.filter((b) => this.#backups.has(b.id) && !b.kept);
    this.#keepNoOlder(
      own.filter((b) => b.state !== 'leftover' && !complete.some((c) => c.id === b.id)),
      good,
    );
  }

  /** Backups of which nothing tells whose they are, and what is needed whoever's it is. */
  #others(): void {
    const { backups, leases } = this.#input;
    this.#keepNoOlder(
      backups.filter((b) => b.state === 'damaged' && !b.record),
      backups.filter((b) => b.state === 'complete' && this.#backups.has(b.id) && !b.kept),
    );
    for (const b of backups) {
      if (b.state === 'running') this.#keep(b.id, 'it is running');
      if (b.kept) this.#keep(b.id, 'kept');
    }
    for (const { id, kind, needs } of leases) {
      for (const needed of [...(needs?.backups ?? []), id]) {
        if (this.#byId.has(needed)) this.#keep(needed, `${kind} ${id} is running`);
      }
    }
    // Those that are added come in their turn.
    for (const id of this.#backups.keys()) {
      const parent = this.#byId.get(id)?.record?.parent;
      if (parent !== undefined && this.#byId.has(parent))
        this.#keep(parent, `${id} is based on it`);
    }
  }

  #keepNoOlder(bad: readonly JudgedBackup[], good: readonly JudgedBackup[]): void {
    const times = good.map((b) => b.stored.getTime());
    for (const b of bad) {
      if (times.some((time) => time < b.stored.getTime()) || times.length === 0) {
        this.#keep(b.id, 'an older one stays too');
      }
    }
  }

  #keep(id: string, why: string): void {
    const reasons = this.#backups.get(id);
    if (reasons) reasons.add(why);
    else this.#backups.set(id, new Set([why]));
  }

  #answer(): RetentionPlan {
    const { backups, wal } = this.#input;
    const removedWal = wal.segments.filter((one) => !this.#wal.has(one)).sort(bySegment);
    const removed = backups.filter((b) => !this.#backups.has(b.id));
    return {
      removedBackups: this.#childrenFirst(removed).map((b) => ({ id: b.id, why: WHY[b.state] })),
      removedWal,
      removal: {
        backups: removed.map((b) => b.id),
        wal: rangesOf(removedWal, wal.segmentSize, () => ''),
      },
      keptBackups: backups.flatMap(({ id }) => {
        const why = this.#backups.get(id);
        return why ? [{ id, why: [...why] }] : [];
      }),
      keptWal: rangesOf(
        wal.segments.filter((one) => this.#wal.has(one)).sort(bySegment),
        wal.segmentSize,
        (one) => this.#wal.get(one) as string,
      ),
    };
  }

  #childrenFirst(removed: readonly JudgedBackup[]): JudgedBackup[] {
    const depth = (b: JudgedBackup, seen: readonly string[] = []): number => {
      const parent = b.record?.parent === undefined ? undefined : this.#byId.get(b.record.parent);
      return !parent || seen.includes(parent.id) ? 0 : 1 + depth(parent, [...seen, b.id]);
    };
    return [...removed].sort(
      (a, b) => depth(b) - depth(a) || a.stored.getTime() - b.stored.getTime(),
    );
  }
}

const WHY: Readonly<Record<JudgedBackup['state'], string>> = {
  complete: 'newer ones lead to all that is to stay',
  damaged: 'it is damaged, and newer ones are whole',
  leftover: 'it was never finished',
  running: 'it is running',
};

const NEVER = Number.NEGATIVE_INFINITY;

/** Not by spread arguments: there may be very many. */
function latest(times: readonly number[]): number {
  return times.reduce((most, time) => Math.max(most, time), NEVER);
}

/** Histories may be stored in any order, but not hours apart: then the clock was set. */
function isDisordered(histories: RetentionInput['wal']['histories']): boolean {
  const ascending = [...histories].sort((a, b) => a.timeline - b.timeline);
  let most = NEVER;
  for (const { stored } of ascending) {
    if (stored.getTime() < most - HOUR) return true;
    most = Math.max(most, stored.getTime());
  }
  return false;
}

function byEnd(a: Complete, b: Complete): number {
  return a.ended - b.ended || compare(a.record.end.lsn, b.record.end.lsn);
}

/** The order in which a way passes them. */
function along(way: Way): (a: Complete, b: Complete) => number {
  if (way.unknown) return byEnd;
  return (a, b) => compare(a.record.end.lsn, b.record.end.lsn) || a.ended - b.ended;
}

const compare = (a: bigint, b: bigint): number => (a === b ? 0 : a < b ? -1 : 1);

function bySegment(a: StoredWalSegment, b: StoredWalSegment): number {
  return compare(a.segment, b.segment) || a.timeline - b.timeline;
}

function rangesOf(
  segments: readonly StoredWalSegment[],
  segmentSize: number,
  whyOf: (one: StoredWalSegment) => string,
): RetentionPlan['keptWal'] {
  const ranges: RetentionPlan['keptWal'] = [];
  const last = new Map<number, RetentionPlan['keptWal'][number]>();
  for (const one of segments) {
    const from = segmentStart(one.segment, segmentSize);
    const to = segmentStart(one.segment + 1n, segmentSize);
    const open = last.get(one.timeline);
    const why = whyOf(one);
    if (open && open.to === from && open.why === why) open.to = to;
    else {
      const range = { timeline: one.timeline, from, to, why };
      last.set(one.timeline, range);
      ranges.push(range);
    }
  }
  return ranges;
}
