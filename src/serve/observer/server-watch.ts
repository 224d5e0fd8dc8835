import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BACKUPS } from '../../archive/backups/keys.js';
import type { ArchiveStatus, ErrorReport, PlaceStatus, SlotStatus } from '../status.js';
import type { Budget } from './budget.js';
import type { BackupsLook, LookAnswer, LookJob, WalLook } from './jobs.js';
import type { Observed, ObservedStore } from './messages.js';
import { windowsOf } from './windows.js';

/** Milliseconds without an answer after which that is told. */
const LATE = 15_000;
/** For what should take none: then nothing more is asked of that disk. */
const SLOW = 1000;
/** For the first look at all places. */
const FIRST = 20_000;
/** Between two looks at one directory, whatever happens there. */
const PAUSE = 200;
/** Time to look again though nothing changed: of what grows, and for all that is not noticed. */
const AGAIN = 3000;
/** Then it takes less than this part of a core. */
const PART = 500;
const NONE_AGAIN = 15_000;
const STORE_AGAIN = 60_000;
const SLOT_AGAIN = 15_000;
/** Where there is none, which the receiver may just make. */
const NO_SLOT_AGAIN = 3000;
/** Milliseconds of work for a look from which on it is worth asking first whether it is needed. */
const MUCH = 20;
/** What changed so lately may change once more within the same tick of the file system's clock. */
const TICK = 50;
/** Milliseconds for one look at a store with all that it reads. */
const STORE_TIMEOUT = 120_000;
/** Windows that are told. */
const MOST_WINDOWS = 200;

export interface WatchOptions {
  observed: Observed;
  budget: Budget;
  /** Of looks at what has another shape than before. */
  shapes: Budget;
  /** Resolves when the look is over. */
  look(key: string, job: LookJob, isUrgent: boolean): Promise<LookAnswer>;
  slot(observed: Observed): Promise<SlotStatus | undefined>;
  /** There is something new. */
  news(): void;
}

/** One thing that is looked at again and again. */
interface Subject<T> {
  found?: T;
  /** Of the look that is under way. */
  since?: number;
  endedAt: number;
  busy: number;
  took: number;
  /** Something there changed. */
  isChanged: boolean;
  error?: ErrorReport;
}

const subject = <T>(): Subject<T> => ({
  ...{ endedAt: Number.NEGATIVE_INFINITY, busy: 0, took: 0, isChanged: true },
});

/** What the archive of one server holds, looked at when it changes. */
export class ServerWatch {
  readonly observed: Observed;
  readonly #options: WatchOptions;
  readonly #wal = subject<WalLook>();
  readonly #places: { place: string; store?: ObservedStore; subject: Subject<BackupsLook> }[];
  #slot: SlotStatus | undefined;
  #slotAt = Number.NEGATIVE_INFINITY;
  #asksSlot = false;
  /** Of the look for changes that is under way. */
  #pollSince: number | undefined;
  #seen = { wal: '', backups: '' };
  #structure = '';
  /** When all of the WAL was looked at last, and how long that took. */
  #walAt = Number.NEGATIVE_INFINITY;
  #walBusy = 0;
  #ended = false;
  /** What is another thing by the clock alone. */
  #time = '';
  readonly #begunAt = performance.now();

  constructor(options: WatchOptions) {
    const { observed } = options;
    this.observed = observed;
    this.#options = options;
    this.#places = [
      { place: 'directory', subject: subject() },
      ...observed.stores.map((store) => ({
        place: store.name,
        store,
        subject: subject<BackupsLook>(),
      })),
    ];
  }

  end(): void {
    this.#ended = true;
  }

  /** Begins whatever is due. @param now of performance.now() */
  tick(now: number): void {
    void this.#poll(now);
    this.#lookAtWal(now);
    for (const { place, store, subject } of this.#places)
      this.#lookAtPlace(place, store, subject, now);
    void this.#askSlot(now);
    const time = `${this.#lateSince(now) !== undefined} ${now - this.#begunAt > FIRST}`;
    if (time !== this.#time) this.#options.news();
    this.#time = time;
  }

  /**
   * What is read is not asked for its contents: the time of a directory changes with the names in it.
   * Events of the kernel would come with each write of a receiver, too, which is each commit.
   */
  async #poll(now: number): Promise<void> {
    if (this.#pollSince !== undefined) return;
    this.#pollSince = now;
    const { directory } = this.observed.server;
    const wal = await changeOf(directory);
    const backups = await changeOf(join(directory, BACKUPS));
    if (wal.mark !== this.#seen.wal) this.#wal.isChanged = true;
    const first = this.#places[0]?.subject;
    if (first && backups.mark !== this.#seen.backups) first.isChanged = true;
    this.#seen = { wal: wal.isFresh ? '' : wal.mark, backups: backups.isFresh ? '' : backups.mark };
    this.#pollSince = undefined;
  }

  #lookAtWal(now: number): void {
    const { directory } = this.observed.server;
    const wal = this.#wal;
    const wait = wal.found?.incomplete ? PAUSE : Math.max(AGAIN, PART * this.#walBusy);
    const idle = now - this.#walAt;
    const isDue = idle >= wait;
    // What only changed need not have a gap: of many names that is told in a third of the time.
    const isShort = !isDue && this.#walBusy > MUCH;
    if (isShort && !this.#options.shapes.allows(now, true)) return;
    if (this.#mayHang(now)) return;
    const job: LookJob = { kind: 'wal', directory, ...(isShort ? { unless: 'same' } : {}) };
    const due = { now, isDue, isLate: idle >= 10 * wait };
    this.#look(directory, job, wal, due, ({ wal: found, busy, error }) => {
      if (!found && !error) return;
      this.#walAt = performance.now();
      this.#walBusy = busy;
      if (found) this.#takeWal(found);
    });
  }

  #takeWal(found: WalLook): void {
    this.#wal.found = found;
    const { timelines, gaps, latest } = found;
    const ranges = timelines.map((t) => [t.timeline, ...t.ranges.map((r) => r.from)]);
    const structure = JSON.stringify([ranges, gaps, latest]);
    const first = this.#places[0]?.subject;
    // What can be restored to is another thing now.
    if (structure !== this.#structure && first) first.isChanged = true;
    this.#structure = structure;
  }

  #lookAtPlace(
    place: string,
    store: ObservedStore | undefined,
    subject: Subject<BackupsLook>,
    now: number,
  ): void {
    const { directory } = this.observed.server;
    const timeout = store ? STORE_TIMEOUT : LATE;
    const job = {
      ...{ kind: 'backups' as const, place, directory, timeout },
      ...(store ? { store } : {}),
    };
    // That the first one comes is noticed.
    const here = subject.found?.backups.length === 0 ? NONE_AGAIN : AGAIN;
    const least = store ? Math.max(STORE_AGAIN, 10 * subject.took) : here;
    const wait = Math.max(least, PART * subject.busy);
    // The WAL comes first: its gaps are not to wait.
    if (!store && (this.#wal.endedAt === Number.NEGATIVE_INFINITY || this.#mayHang(now))) return;
    const key = store ? `store ${this.observed.server.name} ${place}` : `backups ${directory}`;
    const idle = now - subject.endedAt;
    const due = { now, isDue: idle >= wait, isLate: idle >= 10 * wait };
    this.#look(key, job, subject, due, ({ backups }) => {
      if (backups) subject.found = backups;
    });
  }

  #look<T>(
    key: string,
    job: LookJob,
    subject: Subject<T>,
    { now, isDue, isLate }: { now: number; isDue: boolean; isLate: boolean },
    take: (answer: LookAnswer) => void,
  ): void {
    if (subject.since !== undefined) return;
    const { budget, shapes, look, news } = this.#options;
    const isFirst = subject.endedAt === Number.NEGATIVE_INFINITY;
    if (!isFirst) {
      if (now - subject.endedAt < PAUSE || !(subject.isChanged || isDue)) return;
      if (!budget.allows(now, subject.isChanged || isLate)) return;
    }
    // A gap is not to wait for what is looked at by the clock, nor for backups.
    const isUrgent = job.kind === 'wal' && subject.isChanged;
    subject.since = now;
    subject.isChanged = false;
    void look(key, job, isUrgent).then((answer) => {
      const then = performance.now();
      delete subject.since;
      subject.endedAt = then;
      subject.took = then - now;
      subject.busy = answer.busy;
      // A gap is not to wait because of the looks that found none.
      const isShape = job.kind === 'wal' && job.unless !== undefined && answer.wal !== undefined;
      if (!isFirst) (isShape ? shapes : budget).spend(then, answer.busy);
      if (this.#ended) return;
      if (answer.error) subject.error = answer.error;
      else delete subject.error;
      take(answer);
      news();
    });
  }

  async #askSlot(now: number): Promise<void> {
    const isMissing = this.#slot?.exists === false && !this.#slot.error;
    const wait = isMissing ? NO_SLOT_AGAIN : SLOT_AGAIN;
    if (this.#asksSlot || now - this.#slotAt < wait) return;
    this.#asksSlot = true;
    this.#slot = await this.#options.slot(this.observed);
    this.#slotAt = performance.now();
    this.#asksSlot = false;
    if (this.#slot && !this.#ended) this.#options.news();
  }

  /** The disk has not even said when its directory changed. */
  #mayHang(now: number): boolean {
    return this.#pollSince !== undefined && now - this.#pollSince > SLOW;
  }

  /** The oldest question that the disk has not answered for too long. */
  #lateSince(now: number): number | undefined {
    const since = Math.min(this.#pollSince ?? now, this.#wal.since ?? now);
    return now - since > LATE ? since : undefined;
  }

  /** At first nothing is told: who has not looked everywhere yet has found too little. */
  status(now: number): ArchiveStatus | undefined {
    const all = [this.#wal, ...this.#places.map(({ subject }) => subject)];
    const isFirst = all.some(({ endedAt }) => endedAt === Number.NEGATIVE_INFINITY);
    if (isFirst && now - this.#begunAt < FIRST) return undefined;
    const { incomplete, more, ...wal } = this.#wal.found ?? NOTHING;
    const isLate = this.#lateSince(now) !== undefined;
    const error = isLate ? lateError(wal.readAt) : this.#wal.error;
    const found = this.#places.flatMap(({ subject }) => subject.found ?? []);
    const reaches = found.flatMap((look) => look.reaches);
    const latest = wal.latest ?? found.find((look) => look.latest !== undefined)?.latest;
    const { windows, besideWindows } = windowsOf(reaches, latest);
    const left = {
      ...more,
      ...counted('backups', sum(found.map((look) => look.more))),
      ...counted('windows', sum([windows, besideWindows].map((all) => all.length - MOST_WINDOWS))),
    };
    return {
      ...wal,
      ...(latest === undefined ? {} : { latest }),
      ...(error ? { error } : {}),
      backups: found.flatMap((look) => look.backups),
      places: this.#places.map(({ place, subject }) => placeOf(place, subject, now)),
      ...{
        windows: windows.slice(-MOST_WINDOWS),
        besideWindows: besideWindows.slice(-MOST_WINDOWS),
      },
      ...(this.#slot ? { slot: this.#slot } : {}),
      ...(Object.keys(left).length > 0 ? { more: left } : {}),
    };
  }
}

const NOTHING: Omit<WalLook, 'readAt'> & { readAt?: string } = {
  ...{ segments: 0, bytes: 0, timelines: [], gaps: [], incomplete: false },
};

function lateError(readAt: string | undefined): ErrorReport {
  const when = readAt === undefined ? 'was not read yet' : `was not read since ${readAt}`;
  return {
    code: 'WK_TIMEOUT',
    message: `the archive ${when}: its disk gives no answer`,
    hint: 'See whether the file system that it is on hangs.',
  };
}

function placeOf(place: string, subject: Subject<BackupsLook>, now: number): PlaceStatus {
  const { found, error, since } = subject;
  const readAt = found?.readAt;
  const isLate = since !== undefined && now - since > STORE_TIMEOUT;
  const told = isLate
    ? {
        code: 'WK_TIMEOUT',
        message: `"${place}" gives no answer${readAt === undefined ? '' : ` since ${readAt}`}`,
      }
    : error;
  return {
    place,
    ...(readAt === undefined ? {} : { readAt }),
    ...(told ? { error: told } : {}),
  };
}

/** What is another one when a name came or went. */
async function changeOf(directory: string): Promise<{ mark: string; isFresh: boolean }> {
  try {
    const { dev, ino, mtimeMs } = await stat(directory);
    return { mark: `${dev} ${ino} ${mtimeMs}`, isFresh: Math.abs(Date.now() - mtimeMs) < TICK };
  } catch (e) {
    return { mark: `${(e as NodeJS.ErrnoException).code}`, isFresh: false };
  }
}

const sum = (numbers: readonly number[]): number =>
  numbers.reduce((total, n) => total + Math.max(0, n), 0);

const counted = <K extends string>(name: K, n: number): { [P in K]?: number } =>
  n > 0 ? ({ [name]: n } as { [P in K]?: number }) : {};
