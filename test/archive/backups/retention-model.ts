import type { RunningLease } from '../../../src/archive/backups/lease.js';
import type {
  JudgedBackup,
  RetentionInput,
  RetentionPlan,
  RetentionRules,
} from '../../../src/archive/backups/retention.js';
import type { Lsn } from '../../../src/lsn.js';

/** Units of WAL in a segment. Each unit is one commit. */
const SIZE = 4;

interface Branch {
  timeline: number;
  parent?: Branch;
  /** First unit that is its own. */
  fork: number;
  /** When its history was stored. */
  begun: number;
  /** When each of its own units was committed, by the clock of the place. */
  times: number[];
}

interface ModelBackup {
  id: string;
  parent?: ModelBackup;
  /** Its parent is there, and is not what it was taken against: it began elsewhere. */
  strayed?: boolean;
  cluster: Cluster;
  branch: Branch;
  start: number;
  end: number;
  /** When its record was there. */
  stored: number;
  state: JudgedBackup['state'];
  kept: boolean;
  lease?: boolean;
}

class Cluster {
  readonly branches: Branch[] = [{ timeline: 1, fork: 0, begun: 0, times: [] }];
  current = this.branches[0] as Branch;
  /** `timeline/segment`, with the time it was last stored. */
  readonly files = new Map<string, number>();
  readonly systemId: bigint;

  constructor(systemId: bigint) {
    this.systemId = systemId;
  }

  end(branch: Branch): number {
    return branch.fork + branch.times.length;
  }

  /** Of whom a unit on the way to a branch is. */
  owner(branch: Branch, unit: number): Branch {
    let one = branch;
    while (unit < one.fork && one.parent) one = one.parent;
    return one;
  }

  /** True if a position on one branch is on the way to another. */
  passes(branch: Branch, on: Branch, lsn: number): boolean {
    for (let one: Branch | undefined = branch, to = this.end(branch); one; one = one.parent) {
      if (one === on) return lsn <= to;
      to = Math.min(to, one.fork);
    }
    return false;
  }

  /** The files that replay from one unit up to another on a way can do with. */
  sources(branch: Branch, unit: number): string[] {
    const segment = Math.floor(unit / SIZE);
    const owner = this.owner(branch, unit);
    const found = [`${owner.timeline}/${segment}`];
    // A branch begins with a copy of the segment that it forks in.
    for (let one: Branch | undefined = branch; one && one !== owner; one = one.parent) {
      if (Math.floor(one.fork / SIZE) === segment) found.push(`${one.timeline}/${segment}`);
    }
    return found;
  }

  /** The file with a unit, then those of what left its branch in the same segment. */
  copies(owner: Branch, unit: number): string[] {
    const segment = Math.floor(unit / SIZE);
    const found = [`${owner.timeline}/${segment}`];
    for (const branch of this.branches) {
      for (let one: Branch | undefined = branch; one; one = one.parent) {
        const left = one.parent === owner && Math.floor(one.fork / SIZE) === segment;
        if (left) found.push(`${branch.timeline}/${segment}`);
      }
    }
    return found;
  }

  replays(branch: Branch, from: number, to: number, files: ReadonlySet<string>): boolean {
    for (let unit = from; unit < to; unit++) {
      if (!this.sources(branch, unit).some((file) => files.has(file))) return false;
    }
    return true;
  }
}

/** One random life of a place, and what an expire of it must and must not do. */
export class RetentionWorld {
  readonly #random: () => number;
  readonly rules: RetentionRules;
  readonly #clusters: Cluster[] = [new Cluster(1n)];
  #backups: ModelBackup[] = [];
  #now = 1_000_000;
  #ids = 0;
  readonly #leases: { id: string; backup: ModelBackup }[] = [];
  /** A clock that is set while there is life: then only what must stay is looked at. */
  #ahead = 0;
  readonly #setsClock: boolean;
  #clone = false;

  constructor(random: () => number, setsClock: boolean) {
    this.#random = random;
    this.#setsClock = setsClock;
    const window = this.#below(3) > 0 ? 50 + this.#below(600) : undefined;
    const redundancy = window === undefined || this.#below(2) > 0 ? 1 + this.#below(3) : undefined;
    this.rules = { window: window && window * HOUR, redundancy };
  }

  get #cluster(): Cluster {
    return this.#clusters.at(-1) as Cluster;
  }

  #below(n: number): number {
    return Math.floor(this.#random() * n);
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#below(list.length)] as T;
  }

  get #place(): number {
    return this.#now + this.#ahead;
  }

  /** Something happens. */
  step(): void {
    const act = this.#below(100);
    if (act < 35) this.#write(this.#cluster.current, 1 + this.#below(7));
    else if (act < 55) this.#now += (1 + this.#below(this.#below(10) === 0 ? 500 : 20)) * HOUR;
    else if (act < 75) this.#backup();
    else if (act < 81) this.#promote();
    else if (act < 83) this.#zombie();
    else if (act < 84) this.#reset();
    else if (act < 89) this.#pin();
    else if (act < 92) this.#spoil();
    else if (act < 95) this.#lease();
    else if (act < 96) this.#loseWal();
    else if (this.#setsClock) this.#ahead += (this.#below(200) - 100) * HOUR;
  }

  #write(branch: Branch, units: number): void {
    const cluster = this.#cluster;
    for (let n = 0; n < units; n++) {
      this.#now += this.#below(HOUR);
      branch.times.push(this.#place);
      const last = Math.floor((cluster.end(branch) - 1) / SIZE);
      cluster.files.set(`${branch.timeline}/${last}`, this.#place);
    }
  }

  #backup(): void {
    const cluster = this.#cluster;
    const branch = cluster.current;
    const from = Math.max(0, cluster.end(branch) - this.#below(this.#below(4) === 0 ? 9 : 2));
    const writes = this.#below(3) > 0 ? 1 + this.#below(3) : 0;
    this.#write(branch, writes || from < cluster.end(branch) ? writes : 1);
    this.#now += this.#below(3 * HOUR);
    const parents = this.#backups.filter(
      (b) => this.#isWhole(b) && b.cluster === cluster && cluster.passes(branch, b.branch, b.end),
    );
    const incremental = parents.length > 0 && this.#below(2) > 0;
    const state = this.#below(12) === 0 ? this.#pick(['running', 'leftover'] as const) : 'complete';
    const kept = this.#below(15) === 0;
    const backup: ModelBackup = {
      id: `b${++this.#ids}`,
      ...{ cluster, branch, start: from, end: cluster.end(branch), stored: this.#place },
      ...{ state, kept, ...(incremental ? { parent: this.#pick(parents.slice(-4)) } : {}) },
    };
    if (incremental && this.#below(12) === 0) backup.strayed = true;
    this.#backups.push(backup);
  }

  #isWhole(b: ModelBackup): boolean {
    if (b.state !== 'complete' || b.strayed) return false;
    return !b.parent || this.#isWhole(b.parent);
  }

  #promote(): void {
    const cluster = this.#cluster;
    const parent = this.#below(4) > 0 ? cluster.current : this.#pick(cluster.branches);
    const end = cluster.end(parent);
    const back = this.#below(3) === 0 ? this.#below(20) : 0;
    const fork = Math.max(parent.fork, end - back);
    const timeline = Math.max(...cluster.branches.map((b) => b.timeline)) + 1;
    const branch = { timeline, parent, fork, begun: this.#place, times: [] };
    cluster.branches.push(branch);
    cluster.current = branch;
    if (this.#below(4) > 0) this.#write(branch, 1 + this.#below(5));
  }

  /** An old primary, or a clone, goes on. */
  #zombie(): void {
    const branch = this.#pick(this.#cluster.branches);
    if (branch !== this.#cluster.current) this.#clone = true;
    this.#write(branch, 1 + this.#below(6));
  }

  #reset(): void {
    if (this.#clusters.length < 3)
      this.#clusters.push(new Cluster(BigInt(this.#clusters.length + 1)));
    this.#clone = false;
  }

  #pin(): void {
    if (this.#backups.length === 0) return;
    const backup = this.#pick(this.#backups);
    backup.kept = !backup.kept;
  }

  #spoil(): void {
    const running = this.#backups.filter((b) => b.state === 'running');
    if (running.length > 0) {
      const one = this.#pick(running);
      one.state = this.#pick(['complete', 'leftover'] as const);
      one.stored = this.#place;
      // It took until now.
      if (one.branch === this.#cluster.current) one.end = one.cluster.end(one.branch);
      else one.state = 'leftover';
    } else if (this.#backups.length > 3) {
      const one = this.#pick(this.#backups);
      if (one.state === 'complete') one.state = 'damaged';
    }
  }

  #lease(): void {
    if (this.#leases.length > 0 && this.#below(2) === 0) this.#leases.pop();
    else if (this.#backups.length > 0) {
      const backup = this.#pick(this.#backups);
      if (this.#isWhole(backup)) this.#leases.push({ id: `r${++this.#ids}`, backup });
    }
  }

  #loseWal(): void {
    const { files } = this.#cluster;
    if (this.#below(3) === 0 && files.size > 5) files.delete(this.#pick([...files.keys()]));
  }

  /** Leases of restores, and of the backups that are running. */
  get #held(): { id: string; backup: ModelBackup }[] {
    const running = this.#backups.filter((b) => b.state === 'running');
    return [...this.#leases, ...running.map((backup) => ({ id: backup.id, backup }))];
  }

  input(): RetentionInput {
    const cluster = this.#cluster;
    const real = (b: ModelBackup) => this.#isWhole(b) || b.state !== 'complete';
    const leases = this.#held.map(
      ({ id, backup }): RunningLease => ({
        ...{ id, kind: 'restore', seen: new Date(this.#place) },
        needs: {
          backups: chain(backup).map((b) => b.id),
          wal:
            backup.cluster === cluster
              ? [{ timeline: backup.branch.timeline, lsn: BigInt(backup.start) as Lsn }]
              : [],
        },
      }),
    );
    return {
      ...this.rules,
      now: new Date(this.#place),
      leases,
      backups: this.#backups.map((b): JudgedBackup => {
        const hasRecord = b.state === 'complete' || (b.state === 'damaged' && !b.lease);
        return {
          ...{ id: b.id, state: real(b) ? b.state : 'damaged', kept: b.kept },
          stored: new Date(b.stored),
          ...(hasRecord ? { record: this.#recordOf(b) } : {}),
        };
      }),
      wal: {
        systemId: cluster.systemId,
        segmentSize: SIZE,
        segments: [...cluster.files].map(([file, stored]) => {
          const [timeline, segment] = file.split('/');
          return {
            timeline: Number(timeline),
            segment: BigInt(segment!),
            stored: new Date(stored),
          };
        }),
        histories: cluster.branches.slice(1).map((branch) => ({
          timeline: branch.timeline,
          ancestors: ancestorsOf(branch),
          stored: new Date(branch.begun),
        })),
      },
    };
  }

  /** Times of a server whose clock is nowhere near. */
  #recordOf(b: ModelBackup): NonNullable<JudgedBackup['record']> {
    const time = () => new Date(this.#below(2 ** 31) * 2000).toISOString();
    const start = b.cluster.owner(b.branch, b.start);
    const ranges = [];
    for (let one = b.branch, to = b.end; ; one = one.parent as Branch) {
      const from = Math.max(one.fork, b.start);
      const ends = { start: BigInt(from) as Lsn, end: BigInt(to) as Lsn };
      if (to > from || one === b.branch) ranges.push({ timeline: one.timeline, ...ends });
      if (one === start) break;
      to = one.fork;
    }
    return {
      ...(b.parent ? { parent: b.parent.id } : {}),
      systemId: b.cluster.systemId,
      start: { lsn: BigInt(b.start) as Lsn, timeline: start.timeline, time: time() },
      end: { lsn: BigInt(b.end) as Lsn, timeline: b.branch.timeline, time: time() },
      walRanges: ranges,
      wal: 'archive',
    };
  }

  /** What is wrong with a plan; then it is carried out. */
  judge(plan: RetentionPlan): string[] {
    const wrong: string[] = [];
    const cluster = this.#cluster;
    const before = new Set(cluster.files.keys());
    const gone = plan.removedWal.map((s) => `${s.timeline}/${s.segment}`);
    const after = new Set([...before].filter((file) => !gone.includes(file)));
    const removed = new Set(plan.removedBackups.map((b) => b.id));
    const rest = this.#backups.filter((b) => !removed.has(b.id));
    this.#mustStay(before, after, rest, wrong);
    if (!this.#setsClock) this.#mustGo(after, rest, wrong);
    for (const { id } of plan.removedBackups) {
      const later = plan.removedBackups.slice(plan.removedBackups.findIndex((b) => b.id === id));
      const child = this.#backups.find((b) => b.id === id);
      const parent = child && hasRecord(child) ? child.parent : undefined;
      if (parent && removed.has(parent.id) && !later.some((b) => b.id === parent.id)) {
        wrong.push(`${parent.id} goes before ${id}`);
      }
    }
    for (const file of gone) cluster.files.delete(file);
    this.#backups = rest;
    return wrong;
  }

  /** A backup can be restored to a position with these files. */
  #restores(b: ModelBackup, branch: Branch, to: number, files: ReadonlySet<string>): boolean {
    const { cluster } = b;
    if (!this.#isWhole(b) || b.end > to || !cluster.passes(branch, b.branch, b.end)) return false;
    return cluster !== this.#cluster || cluster.replays(branch, b.start, to, files);
  }

  /** It can be restored to its end, be it on the way to what comes behind. */
  #ends(b: ModelBackup, files: ReadonlySet<string>): boolean {
    if (b.cluster !== this.#cluster) return true;
    for (let unit = b.start; unit < b.end; unit++) {
      const copies = b.cluster.copies(b.cluster.owner(b.branch, unit), unit);
      if (!copies.some((file) => files.has(file))) return false;
    }
    return true;
  }

  #mustStay(
    before: ReadonlySet<string>,
    after: ReadonlySet<string>,
    rest: readonly ModelBackup[],
    wrong: string[],
  ): void {
    const cluster = this.#cluster;
    const reach = (
      all: readonly ModelBackup[],
      branch: Branch,
      to: number,
      f: ReadonlySet<string>,
    ) => all.some((b) => b.cluster === cluster && this.#restores(b, branch, to, f));
    const since = this.#place - (this.rules.window ?? 0);
    for (const branch of cluster.branches) {
      for (const [n, time] of branch.times.entries()) {
        const to = branch.fork + n + 1;
        if (this.#setsClock || time < since || !reach(this.#backups, branch, to, before)) continue;
        if (!reach(rest, branch, to, after)) wrong.push(`commit ${branch.timeline}/${to} is lost`);
      }
    }
    const { current } = cluster;
    const end = cluster.end(current);
    if (
      !this.#clone &&
      reach(this.#backups, current, end, before) &&
      !reach(rest, current, end, after)
    ) {
      wrong.push('the present is lost');
    }
    const roots = (all: readonly ModelBackup[], files: ReadonlySet<string>) =>
      new Set(
        all
          .filter((b) => b.cluster === cluster && this.#restores(b, current, end, files))
          .map((b) => chain(b).at(-1)),
      ).size;
    const enough = Math.min(this.rules.redundancy ?? 0, roots(this.#backups, before));
    if (!this.#clone && roots(rest, after) < enough) wrong.push('redundancy is lost');
    for (const b of rest) {
      if (this.#isWhole(b) && this.#ends(b, before) && !this.#ends(b, after))
        wrong.push(`${b.id} is of no use`);
    }
    for (const b of this.#backups) {
      if ((b.kept || b.state === 'running') && !rest.includes(b)) wrong.push(`${b.id} is gone`);
      if (
        rest.includes(b) &&
        b.state !== 'leftover' &&
        b.parent &&
        !rest.includes(b.parent) &&
        this.#backups.includes(b.parent)
      )
        wrong.push(`the parent of ${b.id} is gone`);
    }
    for (const { id, backup } of this.#held) {
      if (!this.#backups.includes(backup)) continue;
      if (!rest.includes(backup)) wrong.push(`what ${id} restores is gone`);
      const { branch } = backup;
      if (backup.cluster !== cluster || !this.#isWhole(backup)) continue;
      for (const tip of cluster.branches) {
        if (!cluster.passes(tip, branch, backup.end)) continue;
        const to = cluster.end(tip);
        const could = this.#restores(backup, tip, to, before);
        if (could && !this.#restores(backup, tip, to, after)) wrong.push(`WAL of ${id} is gone`);
      }
    }
  }

  /** Exactly this stays, said without saying how it is found. */
  #mustGo(after: ReadonlySet<string>, rest: readonly ModelBackup[], wrong: string[]): void {
    const files = new Set(this.#cluster.files.keys());
    const expected = new Set<ModelBackup>();
    const wal = new Set<string>();
    if (!this.#backups.some((b) => this.#isWhole(b))) {
      for (const b of this.#backups) expected.add(b);
      for (const file of files) wal.add(file);
    } else {
      for (const cluster of this.#clusters) this.#expect(cluster, files, expected, wal);
      for (const b of this.#backups) if (b.kept || b.state === 'running') expected.add(b);
      for (const { backup } of this.#held) if (this.#backups.includes(backup)) expected.add(backup);
      for (const b of expected) {
        // Nothing tells what one that was never finished was based on.
        const based = b.state === 'leftover' ? [] : chain(b);
        for (const other of based) if (this.#backups.includes(other)) expected.add(other);
      }
      for (const b of expected) {
        const isReal = hasRecord(b) && (this.#isWhole(b) || b.kept);
        if (isReal && b.cluster === this.#cluster) this.#rangeOf(b, files, wal);
      }
    }
    const names = (all: Iterable<ModelBackup>) => [...all].map((b) => b.id).sort();
    const [is, should] = [names(rest), names(expected)];
    if (`${is}` !== `${should}`) wrong.push(`backups ${is} instead of ${should}`);
    const stays = [...files].filter((file) => wal.has(file)).sort();
    const left = [...after].sort();
    if (`${left}` !== `${stays}`) wrong.push(`WAL ${left} instead of ${stays}`);
  }

  #expect(
    cluster: Cluster,
    files: ReadonlySet<string>,
    expected: Set<ModelBackup>,
    wal: Set<string>,
  ): void {
    const hasWal = cluster === this.#cluster;
    const own = this.#backups.filter((b) => b.cluster === cluster && hasRecord(b));
    const good = own.filter((b) => this.#isWhole(b) && this.#ends(b, files));
    const use = (branch: Branch, from: number) => {
      if (!hasWal) return;
      for (let unit = from; unit < cluster.end(branch); unit++) {
        wal.add(`${cluster.owner(branch, unit).timeline}/${Math.floor(unit / SIZE)}`);
      }
    };
    if (good.length === 0) {
      for (const b of own) expected.add(b);
      if (hasWal) for (const file of files) wal.add(file);
      return;
    }
    const place = this.#place;
    const order = (b: ModelBackup) => this.#backups.indexOf(b);
    const { window, redundancy = 0 } = this.rules;
    const heads = good.filter(
      (b) =>
        !chain(b)
          .slice(1)
          .some((o) => good.includes(o)),
    );
    const byTime = [...heads].sort(
      (a, b) => a.stored - b.stored || a.end - b.end || order(a) - order(b),
    );
    // What hangs on one full backup is one: it goes with that.
    const root = (b: ModelBackup) => chain(b).at(-1);
    const byChain = byTime.filter((b, i) => byTime.findIndex((o) => root(o) === root(b)) === i);
    const newest = redundancy > 0 ? byChain.slice(-redundancy) : [];
    const since =
      window === undefined
        ? Math.min(newest[0]?.stored ?? place, place - 24 * HOUR)
        : place - window;
    const last = (branch: Branch) => {
      const times = good.filter((b) => b.branch === branch).map((b) => b.stored);
      if (hasWal) {
        if (branch.parent) times.push(branch.begun);
        for (const [file, stored] of cluster.files) {
          if (file.startsWith(`${branch.timeline}/`)) times.push(stored);
        }
      }
      return Math.max(...times);
    };
    const lasts = cluster.branches.map(last);
    const alive = cluster.branches.filter(
      (_, i) =>
        lasts[i]! > Number.NEGATIVE_INFINITY &&
        (lasts[i]! >= since || lasts[i] === Math.max(...lasts)),
    );
    const passes = (branch: Branch, b: ModelBackup) =>
      hasWal || branch.timeline === 1
        ? cluster.passes(branch, b.branch, b.end)
        : b.branch.timeline <= branch.timeline;
    const after = (a: ModelBackup, b: ModelBackup): boolean => {
      if ((hasWal || a.branch === b.branch) && a.end !== b.end) return a.end > b.end;
      return a.stored > b.stored || (a.stored === b.stored && order(a) > order(b));
    };
    const stays = (branch: Branch, why: (b: ModelBackup, on: ModelBackup[]) => boolean) => {
      const on = good.filter((b) => passes(branch, b));
      const needed = on.filter((b) => why(b, on));
      for (const b of needed) expected.add(b);
      if (on.length === 0) use(branch, 0);
      else if (needed.length > 0) use(branch, Math.min(...needed.map((b) => b.start)));
    };
    for (const branch of alive) {
      stays(branch, (b, on) => {
        const later = on.filter((o) => after(o, b));
        const forWindow = window !== undefined && !later.some((o) => o.stored <= since);
        const tops = on.filter((o) => heads.includes(o));
        const isFirst = (o: ModelBackup) =>
          !tops.some((other) => root(other) === root(o) && after(o, other));
        const newer = later.filter((o) => tops.includes(o) && isFirst(o));
        return forWindow || newer.length < redundancy;
      });
    }
    for (const one of newest) stays(one.branch, (b) => b === one || after(b, one));
    if (hasWal) {
      for (const { backup } of this.#held) {
        if (backup.cluster !== cluster) continue;
        for (const tip of cluster.branches) {
          const isOn = tip === backup.branch || cluster.passes(tip, backup.branch, backup.start);
          if (isOn) use(tip, backup.start);
        }
      }
    }
    const whole = [...expected].filter((b) => good.includes(b) && !b.kept);
    for (const b of own) {
      if (good.includes(b)) continue;
      if (whole.length === 0 || whole.some((o) => o.stored < b.stored)) expected.add(b);
    }
  }

  #rangeOf(b: ModelBackup, files: ReadonlySet<string>, wal: Set<string>): void {
    for (let unit = b.start; unit < b.end; unit++) {
      const [own, ...copies] = b.cluster.copies(b.cluster.owner(b.branch, unit), unit);
      if (own !== undefined && files.has(own)) wal.add(own);
      else for (const copy of copies) wal.add(copy);
    }
  }
}

const HOUR = 3_600_000;

function hasRecord(b: ModelBackup): boolean {
  return b.state === 'complete' || b.state === 'damaged';
}

/** A backup with all that it is based on. */
function chain(b: ModelBackup): ModelBackup[] {
  return b.parent ? [b, ...chain(b.parent)] : [b];
}

function ancestorsOf(branch: Branch): { timeline: number; end: Lsn; reason: string }[] {
  if (!branch.parent) return [];
  const own = { timeline: branch.parent.timeline, end: BigInt(branch.fork) as Lsn, reason: '' };
  return [...ancestorsOf(branch.parent), own];
}
