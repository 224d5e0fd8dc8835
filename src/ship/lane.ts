import { isGone } from '../archive/access.js';
import type { CheckedWal } from '../archive/shipping/checked-segment.js';
import {
  contiguousPosition,
  isShipped,
  type LocalSegment,
} from '../archive/shipping/local-segments.js';
import {
  type ObjectCodec,
  type Send,
  StoreArchiveWriter,
  type StoreResult,
} from '../archive/store-archive-writer.js';
import { abortableDelay } from '../delay.js';
import { WalkeepError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import type { ObjectStore } from '../store/store.js';
import { HeldFiles } from './held-files.js';
import type { PlaceStatus, ShipLag, ShippedPlace, Tell } from './options.js';
import { isLocal, mayPass, retryDelay } from './retry.js';
import {
  type OpenSegment,
  SegmentRoom,
  type ShipSource,
  type Snapshot,
  without,
} from './source.js';
import type { ShipState } from './state.js';

/** How a lane works. Times are milliseconds. */
export interface LaneOptions {
  /** Segments under way at the same time; `send` says how many of them are sent. */
  jobs: number;
  send: Send;
  /** True if a place that does not answer is to be given up after a while. */
  mayGiveUp(): boolean;
  giveUpAfter: number;
  quietTime: number;
  retryDelay: number | undefined;
  unfenced: boolean;
  newSystem: boolean;
  /** The store is somebody else's, who closes it. */
  borrowed: boolean;
  codec: ObjectCodec;
}

/** One thing to be shipped; `key` names it among all others of a lane. */
type Item = { key: string } & (
  | { kind: 'history'; timeline: number }
  | { kind: 'backup' }
  | { kind: 'segment'; segment: LocalSegment }
  | { kind: 'partial'; segment: OpenSegment }
);

const PROGRESS_EVERY = 1000;

/** Ships to one place, whatever the others do. */
export class Lane {
  readonly place: string;
  readonly #source: ShipSource;
  readonly #state: ShipState;
  readonly #openStore: () => Promise<ObjectStore>;
  readonly #o: LaneOptions;
  readonly #tell: Tell;
  #writer: StoreArchiveWriter | undefined;
  #snapshot: Snapshot | undefined;
  /** Whole segments that the place lacks, ascending; those shipped since may be among them. */
  #queue: LocalSegment[] = [];
  /** No snapshot comes any more. */
  #last = false;
  readonly #claimed = new Set<string>();
  readonly #held: HeldFiles;
  /** What of an unfinished segment was looked at, by its files' marks. */
  readonly #looked = new Map<string, string>();
  readonly #missing = new Set<string>();
  #waiting: (() => void)[] = [];
  #failures = 0;
  #successAt = performance.now();
  #toldAt = Number.NEGATIVE_INFINITY;
  #error: WalkeepError | undefined;

  constructor(
    source: ShipSource,
    state: ShipState,
    openStore: () => Promise<ObjectStore>,
    options: LaneOptions,
    tell: Tell,
  ) {
    this.place = state.progress.place;
    this.#source = source;
    this.#state = state;
    this.#held = new HeldFiles(state);
    this.#openStore = openStore;
    this.#o = options;
    this.#tell = tell;
  }

  /** A new look at the source. @param last after it, the lane ends when it has shipped all */
  offer(snapshot: Snapshot, last: boolean): void {
    if (this.#snapshot) this.#noteMissing(this.#snapshot, snapshot);
    this.#snapshot = snapshot;
    this.#held.look(snapshot);
    this.#last ||= last;
    this.#fillQueue();
    this.#wake();
  }

  #fillQueue(): void {
    const { timelines } = this.#state.progress;
    this.#queue = (this.#snapshot?.complete ?? []).filter((s) => !isShipped(timelines, s));
  }

  /** Ships until the end; what ends it early is in the result. Throws only for defects. */
  async run(signal: AbortSignal): Promise<ShippedPlace> {
    const stop = new AbortController();
    const both = AbortSignal.any([signal, stop.signal]);
    both.addEventListener('abort', () => this.#wake(), { once: true });
    let store: ObjectStore | undefined;
    try {
      store = await this.#open(both);
      const work = Array.from({ length: this.#o.jobs }, () =>
        this.#work(both).catch((e) => {
          stop.abort(e);
          throw e;
        }),
      );
      const ended = await Promise.allSettled(work);
      const failed = ended.find((r) => r.status === 'rejected' && r.reason === stop.signal.reason);
      if (failed?.status === 'rejected') throw failed.reason;
    } catch (e) {
      if (!signal.aborted || e !== signal.reason) this.#stopped(e);
    } finally {
      if (!this.#o.borrowed) await store?.close();
      // The last look is two in one.
      if (this.#last && this.#snapshot) this.#noteMissing(this.#snapshot);
      await this.#tellProgress(true);
      await this.#state.close();
    }
    return {
      ...(await this.lag()),
      held: [...this.#held.all],
      ...(this.#error ? { error: this.#error } : {}),
    };
  }

  /** True if the place answered for it; nothing is believed before the store was reached. */
  has(segment: LocalSegment): boolean {
    return this.#writer !== undefined && isShipped(this.#state.progress.timelines, segment);
  }

  /**
   * Asks the place itself whether it still has what it once answered for. If not, nothing is believed
   * that it ever answered for. @throws StoreUncertainError, StoreAccessError
   */
  async stillHas(segment: LocalSegment): Promise<boolean> {
    if (!this.has(segment)) return false;
    if (await this.#writer!.hasSegment(segment.base)) return true;
    this.#state.forget();
    this.#looked.clear();
    this.#fillQueue();
    this.#wake();
    this.#warn(
      'WK_SHIP_LOST',
      `${segment.base} was shipped and is not there any more: all is compared and shipped anew`,
      'See who removes objects there: a lifecycle rule of the bucket, for example.',
    );
    return false;
  }

  async status(): Promise<PlaceStatus> {
    const { state, trouble, held } = this.#state.progress;
    const now = { reached: this.#writer !== undefined, state, held, ...(trouble && { trouble }) };
    return { ...(await this.lag()), ...now };
  }

  async lag(): Promise<ShipLag> {
    const { timelines } = this.#state.progress;
    const lacking = this.#queue.filter((segment) => !isShipped(timelines, segment));
    const position = contiguousPosition({ timelines }, lacking);
    const since = lacking[0] ? await this.#source.modified(lacking[0]) : 0;
    return {
      place: this.place,
      ...(position ? { position } : {}),
      segments: lacking.length,
      bytes: lacking.length * (this.#snapshot?.identity?.segmentSize ?? 0),
      seconds: since > 0 ? Math.max(0, (Date.now() - since) / 1000) : 0,
    };
  }

  async #open(signal: AbortSignal): Promise<ObjectStore | undefined> {
    while (!this.#snapshot?.identity) {
      if (this.#last && this.#snapshot) return undefined;
      await this.#sleep(signal);
    }
    const { systemId, segmentSize } = this.#snapshot.identity;
    this.#state.begins(systemId, segmentSize);
    const { codec, send, newSystem, unfenced } = this.#o;
    const { writer } = this.#state.progress;
    let store: ObjectStore | undefined;
    await this.#persist(signal, async () => {
      store ??= await this.#openStore();
      const known = { systemId, segmentSize, codec, writer, index: true, send };
      const options = { ...known, newSystem, unfenced, signal };
      this.#writer = await StoreArchiveWriter.open(store, options);
    }).catch(async (e) => {
      if (!this.#o.borrowed) await store?.close();
      throw e;
    });
    const { archiveId } = this.#writer!;
    const forgotten = this.#state.belongsTo(archiveId, systemId, segmentSize);
    this.#fillQueue();
    if (forgotten) {
      this.#warn(
        'WK_SHIP_OTHER',
        'it is not the archive that was shipped to before: all is compared and shipped anew',
      );
    }
    this.#tell('open', { place: this.place, archiveId, systemId });
    return store;
  }

  async #work(signal: AbortSignal): Promise<void> {
    const room = new SegmentRoom();
    while (this.#writer) {
      signal.throwIfAborted();
      const item = this.#next();
      if (!item) {
        if (this.#last && this.#claimed.size === 0) return this.#wake();
        await this.#sleep(signal);
        continue;
      }
      this.#claimed.add(item.key);
      try {
        await this.#ship(item, room, signal);
      } finally {
        this.#claimed.delete(item.key);
        if (this.#last || item.kind === 'history') this.#wake();
      }
      await this.#tellProgress(false);
    }
  }

  /** What is next: histories, since nobody can use a timeline without, then WAL, the oldest first. */
  #next(): Item | undefined {
    if (!this.#snapshot?.identity) return undefined;
    const { partial, histories, backups, receiver } = this.#snapshot;
    const { timelines, histories: known, backups: stored } = this.#state.progress;
    const untold = histories.filter(
      ({ timeline, name }) => timeline > 1 && !known.includes(timeline) && !this.#held.has(name),
    );
    const history = histories.find(
      ({ name, timeline }) => timeline > 1 && !known.includes(timeline) && this.#isFree(name),
    );
    if (history) return { kind: 'history', key: history.name, timeline: history.timeline };
    const backup = backups.find((name) => !stored.includes(name) && this.#isFree(name));
    if (backup !== undefined) return { kind: 'backup', key: backup };
    while (this.#queue[0] && isShipped(timelines, this.#queue[0])) this.#queue.shift();
    for (const segment of this.#queue) {
      if (untold.some(({ timeline }) => timeline === segment.timeline)) continue;
      if (this.#isFree(segment.base) && !isShipped(timelines, segment)) {
        return { kind: 'segment', key: segment.base, segment };
      }
    }
    for (const segment of partial) {
      const { base, fingerprint, left, modified } = segment;
      const quiet = this.#last || Date.now() - modified > this.#o.quietTime;
      if (!left && (receiver || !quiet)) continue;
      if (this.#looked.get(base) !== fingerprint && this.#isFree(base)) {
        return { kind: 'partial', key: base, segment };
      }
    }
    return undefined;
  }

  #isFree(key: string): boolean {
    return !this.#claimed.has(key) && this.#held.isDue(key);
  }

  async #ship(item: Item, room: SegmentRoom, signal: AbortSignal): Promise<void> {
    let send: () => Promise<void>;
    try {
      const prepare = () => this.#prepare(item, room, signal);
      send = await (this.#source.archive.isDirectory ? prepare() : this.#persist(signal, prepare));
    } catch (e) {
      if (isGone(e)) this.#forget(item);
      else if (isLocal(e)) this.#hold(item.key, e);
      else throw e;
      return;
    }
    await this.#persist(signal, send);
    this.#held.release(item.key);
  }

  /** Reads and checks what is to be sent. */
  async #prepare(item: Item, room: SegmentRoom, signal: AbortSignal): Promise<() => Promise<void>> {
    const writer = this.#writer!;
    switch (item.kind) {
      case 'history':
        return this.#prepareHistory(item.key, item.timeline, signal);
      case 'backup':
        return this.#prepareBackup(item.key, signal);
      case 'segment': {
        const { whole, wal } = await this.#source.load(item.segment, room);
        const { timeline, base, start, end } = item.segment;
        return async () => {
          const result = whole
            ? await writer.putSegment(wal, signal)
            : await writer.putPartial(wal, signal);
          this.#state.shippedSegment(timeline, base, start, end);
          this.#tellShipped(base, result, wal.end);
        };
      }
      case 'partial': {
        const wal = await this.#source.loadOpen(item.segment, room);
        return () => this.#sendPartial(item.segment, wal, signal);
      }
    }
  }

  async #prepareHistory(name: string, timeline: number, signal: AbortSignal) {
    const stored = await this.#source.history(timeline);
    if (stored.state === 'damaged') throw stored.problem;
    return async () => {
      if (stored.state === 'absent') return;
      const result = await this.#writer!.putHistory(timeline, stored.content, signal);
      this.#state.shippedHistory(timeline);
      this.#tellShipped(name, result);
    };
  }

  async #prepareBackup(name: string, signal: AbortSignal) {
    const content = await this.#source.backup(name);
    return async () => {
      if (content === undefined) return this.#forget({ kind: 'backup', key: name });
      const result = await this.#writer!.putBackupHistory(name, content, signal);
      this.#state.shippedBackup(name, this.#snapshot!.backups);
      this.#tellShipped(name, result);
    };
  }

  async #sendPartial(
    { base, timeline, fingerprint }: OpenSegment,
    wal: CheckedWal | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const shipped = this.#state.of(timeline).partials.get(base);
    if (wal && (shipped === undefined || shipped < wal.end)) {
      const result = await this.#writer!.putPartial(wal, signal);
      this.#state.shippedPartial(timeline, base, wal.end);
      this.#tellShipped(base, result, wal.end);
    }
    this.#looked.set(base, fingerprint);
  }

  /** Tries until it is done: a store that is away is a state. @throws what cannot pass */
  async #persist<T>(signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    const { mayGiveUp, giveUpAfter, retryDelay: fixed } = this.#o;
    for (;;) {
      try {
        const result = await action();
        this.#failures = 0;
        this.#successAt = performance.now();
        this.#state.setState('ok');
        return result;
      } catch (error) {
        signal.throwIfAborted();
        if (!mayPass(error)) throw error;
        const tooLong = performance.now() - this.#successAt > giveUpAfter;
        if (mayGiveUp() && (tooLong || !error.retryable)) throw error;
        this.#failures += 1;
        const retryIn = fixed ?? retryDelay(this.#failures);
        this.#state.setState('retrying', error);
        this.#tell('retry', { place: this.place, error, retryIn });
        await abortableDelay(retryIn, signal);
        signal.throwIfAborted();
      }
    }
  }

  #hold(name: string, error: WalkeepError): void {
    if (this.#held.hold(name, error)) this.#tell('held', { place: this.place, name, error });
  }

  /** It is not there any more: the next look shows what is. */
  #forget({ key }: Item): void {
    this.#snapshot = without(this.#snapshot!, key);
    this.#fillQueue();
  }

  /**
   * WAL between what was shipped that is not here: nothing else would tell that the place lacks it.
   * A file can be missed while it is renamed, so only what two looks lack counts.
   */
  #noteMissing(...looks: readonly Snapshot[]): void {
    for (const [timeline, { shipped }] of this.#state.progress.timelines) {
      for (const [i, [, from]] of shipped.slice(0, -1).entries()) {
        const isHere = (s: LocalSegment) => s.timeline === timeline && s.start === from;
        if (looks.some((look) => look.complete.some(isHere) || look.partial.some(isHere))) continue;
        const where = `${formatLsn(from)} to ${formatLsn(shipped[i + 1]![0])} (timeline ${timeline})`;
        if (this.#missing.has(where)) continue;
        this.#missing.add(where);
        this.#warn(
          'WK_SHIP_MISSING',
          `WAL from ${where} is not here, and was not shipped`,
          'It was removed too early, or never received: "walkeep verify" tells. Bring it back with "walkeep push".',
        );
      }
    }
  }

  #stopped(e: unknown): void {
    if (!(e instanceof WalkeepError)) throw e;
    this.#error = e;
    this.#state.setState('stopped', e);
    this.#tell('stopped', { place: this.place, error: e });
  }

  #tellShipped(name: string, { outcome, key, size }: StoreResult, lsn?: Lsn): void {
    const end = lsn === undefined ? {} : { lsn };
    this.#tell('shipped', { place: this.place, name, key, outcome, size, ...end });
  }

  async #tellProgress(now: boolean): Promise<void> {
    if (!now && performance.now() - this.#toldAt < PROGRESS_EVERY) return;
    this.#toldAt = performance.now();
    this.#tell('progress', await this.lag());
  }

  #warn(code: string, message: string, hint?: string): void {
    const more = hint === undefined ? {} : { hint };
    this.#tell('warning', {
      place: this.place,
      code,
      message: `"${this.place}": ${message}`,
      ...more,
    });
  }

  async #sleep(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    signal.throwIfAborted();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }
}
