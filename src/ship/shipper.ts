import { createHash } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { isStore } from '../archive/places/open-archive.js';
import { objectCodec } from '../archive/shipping/object-codec.js';
import { placeIdentity } from '../archive/shipping/progress.js';
import type { ObjectCodec } from '../archive/store-archive-writer.js';
import { abortableDelay } from '../delay.js';
import { InternalError, StorageError, UsageError, WalkeepError } from '../errors.js';
import { storageError } from '../files/durable.js';
import { makeDirectories } from '../files/tree-file-system.js';
import { parsePlace } from '../store/place.js';
import type { ObjectStore } from '../store/store.js';
import { Changes } from './changes.js';
import { removeShipped } from './keep-local.js';
import { Lane } from './lane.js';
import {
  checkShipOptions,
  type ShipEvents,
  type ShipOptions,
  type ShippedPlace,
  type ShipperStatus,
  type ShipResult,
} from './options.js';
import { mayPass, retryDelay } from './retry.js';
import { ShipSource, type Snapshot } from './source.js';
import { ShipState } from './state.js';
import { Turns } from './turns.js';

const POLL = 5000;
/** Of a store, where each look is a listing. */
const POLL_STORE = 60_000;
const QUIET = 60_000;
const GIVE_UP = 60_000;
/** How long to rest after a look: so many times as long as it took, and milliseconds at most. */
const REST = 9;
const SLOWEST = 2000;
/** Milliseconds between two looks for what grew too old to be kept. */
const REMOVE_EVERY = 30_000;

/**
 * Ships an archive's WAL to places: whole segments as they are complete, histories, and unfinished
 * segments once nobody writes to them. Each place gets on by itself; the directory is the queue, and
 * what is noted in it lets a later run go on.
 *
 * @example
 * const shipper = new WalShipper({ source: '/archive', places: ['s3://bucket/shop'] });
 * shipper.on('shipped', ({ name, place }) => console.log(name, place));
 * await shipper.run(AbortSignal.timeout(60_000));
 */
export class WalShipper extends EventEmitter<ShipEvents> {
  readonly #o: ShipOptions;
  readonly #directory: string | undefined;
  readonly #state: string;
  #changes: Changes | undefined;
  #finishing: boolean;
  #removedAt = Number.NEGATIVE_INFINITY;
  /** Something was shipped since. */
  #shippedSince = true;
  #toldSource: string | undefined;
  #lanes: readonly Lane[] = [];
  #looked: { at: number; complete: number } | undefined;
  #toldEmpty: boolean | undefined;

  constructor(options: ShipOptions) {
    super();
    checkShipOptions(options);
    this.#o = options;
    const source = parsePlace(options.source);
    const flat = source.kind === 'directory' && !isStore(source.path);
    this.#directory = flat ? source.path : undefined;
    this.#state = options.state ?? this.#directory ?? ownState(options.source);
    if (!flat && options.keepLocal) {
      throw new UsageError('ship: only segments in a flat directory can be removed');
    }
    this.#finishing = options.once ?? false;
  }

  /** Ends when all that is there by now is shipped, as with `once`. */
  finish(): void {
    this.#finishing = true;
    this.#changes?.wake();
  }

  /** How it is now, by the last look at the source. */
  async status(): Promise<ShipperStatus> {
    const { at, complete = 0 } = this.#looked ?? {};
    const places = await Promise.all(this.#lanes.map((lane) => lane.status()));
    const age = at === undefined ? {} : { lookedAge: performance.now() - at };
    return { ...age, complete, places };
  }

  /**
   * Runs until the signal, or until all is shipped with `once`. One shipper runs once. A place that
   * had to be given up is in the result; the others go on.
   * @throws DirectoryLockedError if another process ships there from here
   * @throws StorageError if the source cannot be looked at
   */
  async run(signal: AbortSignal = new AbortController().signal): Promise<ShipResult> {
    using changes = new Changes(
      this.#directory,
      this.#o.pollInterval ?? (this.#directory ? POLL : POLL_STORE),
    );
    this.#changes = changes;
    const source = await ShipSource.open(this.#directory ?? this.#o.source);
    try {
      return await this.#ship(source, changes, signal);
    } finally {
      await source.close();
    }
  }

  async #ship(source: ShipSource, changes: Changes, signal: AbortSignal): Promise<ShipResult> {
    const ended = new AbortController();
    const lanes = await this.#open(source, signal);
    if (!lanes) return { reason: 'signal', places: [] };
    this.#lanes = lanes;
    const both = AbortSignal.any([signal, ended.signal]);
    const shipping = lanes.map((lane) => lane.run(both));
    const all = Promise.all(shipping).finally(() => ended.abort());
    // Whoever fails first is waited for below.
    all.catch(() => {});
    try {
      await this.#look(source, lanes, changes, both);
    } catch (e) {
      ended.abort();
      await Promise.allSettled(shipping);
      throw e;
    }
    const places: ShippedPlace[] = await all;
    return { reason: signal.aborted ? 'signal' : 'done', places };
  }

  async #open(source: ShipSource, signal: AbortSignal): Promise<Lane[] | undefined> {
    const { places, compression, recipients } = this.#o;
    const codec = await objectCodec(compression, recipients);
    const targets = places.map((place) => describe(place, this.#o));
    const twice = targets.find((t, i) => targets.findIndex((o) => o.identity === t.identity) < i);
    if (twice) throw new UsageError(`ship: "${twice.text}" is named twice`);
    const own = this.#directory ?? placeIdentity(this.#o.source);
    if (targets.some(({ identity }) => identity === own)) {
      throw new UsageError('ship: a place cannot be shipped to itself');
    }
    // A directory that is shipped must be there; what is only for progress is made.
    if (this.#state !== this.#directory) {
      await makeDirectories(this.#state, 0o700).catch((e) => {
        throw storageError('create directory', this.#state, e);
      });
    }
    const states: ShipState[] = [];
    try {
      for (const target of targets) {
        const failed = (e: unknown): void => this.#progressLost(target.text, e);
        states.push(await ShipState.open(this.#state, target, failed, signal));
      }
    } catch (e) {
      for (const opened of states) await opened.close();
      if (signal.aborted && e === signal.reason) return undefined;
      throw e;
    }
    return targets.map((target, i) => this.#lane(source, states[i]!, codec, target));
  }

  #lane(source: ShipSource, state: ShipState, codec: ObjectCodec, target: Target): Lane {
    const { open, borrowed } = target;
    const o = this.#o;
    const jobs = o.jobs ?? 2;
    const turns = new Turns(jobs);
    // What is not compressed takes longest to send: one more is made ready meanwhile. Where it is, one
    // more would take memory and gain little.
    const ahead = o.compression?.method === 'none' && !o.recipients?.length ? 1 : 0;
    const options = {
      jobs: jobs + ahead,
      send: <T>(create: () => Promise<T>, given?: AbortSignal) => turns.take(create, given),
      mayGiveUp: () => this.#finishing,
      giveUpAfter: o.giveUpAfter ?? GIVE_UP,
      quietTime: o.quietTime ?? QUIET,
      retryDelay: o.retryDelay,
      unfenced: o.unfenced ?? false,
      newSystem: o.newSystem ?? false,
      borrowed,
      codec,
    };
    return new Lane(source, state, open, options, (event, ...args) => {
      if (event === 'shipped') this.#shippedSince = true;
      this.#say(event, ...args);
    });
  }

  /** Looks at the source again and again, until the last look was handed on. */
  async #look(
    source: ShipSource,
    lanes: readonly Lane[],
    changes: Changes,
    signal: AbortSignal,
  ): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      const last = this.#finishing;
      const began = performance.now();
      let snapshot: Snapshot;
      try {
        snapshot = await source.scan();
        // A file that is renamed while it is listed can be seen under neither name.
        if (last) snapshot = together(snapshot, await source.scan());
        failures = 0;
      } catch (error) {
        if (!(error instanceof StorageError || mayPass(error)) || last) throw error;
        failures += 1;
        this.#sourceLost(error);
        await abortableDelay(this.#o.retryDelay ?? retryDelay(failures), signal);
        continue;
      }
      this.#toldSource = undefined;
      if (!snapshot.identity) this.#tellEmpty(!last);
      for (const lane of lanes) lane.offer(snapshot, last);
      this.#looked = { at: began, complete: snapshot.complete.length };
      if (last) return;
      await this.#removeShipped(source, lanes, snapshot);
      // Where there are many files a look takes long, and names may come one after the other.
      await abortableDelay(Math.min(SLOWEST, (performance.now() - began) * REST), signal);
      await changes.next(signal);
    }
  }

  async #removeShipped(
    source: ShipSource,
    lanes: readonly Lane[],
    snapshot: Snapshot,
  ): Promise<void> {
    const { keepLocal: keep } = this.#o;
    const { pollInterval = POLL } = this.#o;
    const every = this.#shippedSince ? pollInterval : Math.max(pollInterval, REMOVE_EVERY);
    const due = performance.now() - this.#removedAt >= every;
    if (!keep || this.#directory === undefined || !due) return;
    this.#removedAt = performance.now();
    this.#shippedSince = false;
    const more = await removeShipped(snapshot, {
      source,
      directory: this.#directory,
      state: this.#state,
      keep,
      has: (segment) => lanes.every((lane) => lane.has(segment)),
      stillHas: async (segment) => {
        for (const lane of lanes) if (!(await lane.stillHas(segment))) return false;
        return true;
      },
      removed: (file) => this.#say('removed', file),
    }).catch((e) => {
      if (!(e instanceof WalkeepError)) throw e;
      this.#say('warning', {
        code: 'WK_SHIP_KEEP',
        message: `no segments were removed: ${e.message}`,
        ...(e.hint === undefined ? {} : { hint: e.hint }),
      });
      return false;
    });
    this.#shippedSince ||= more;
  }

  /** Once, or it would look as if it hung; again only if it ends so. */
  #tellEmpty(waits: boolean): void {
    if (this.#toldEmpty === waits) return;
    this.#toldEmpty = waits;
    this.#say('empty', { source: this.#o.source, waits });
  }

  #sourceLost(error: WalkeepError): void {
    if (this.#toldSource === error.message) return;
    this.#toldSource = error.message;
    this.#say('warning', { code: error.code, message: error.message });
  }

  #progressLost(place: string, e: unknown): void {
    if (!(e instanceof WalkeepError)) throw e;
    this.#say('warning', {
      place,
      code: 'WK_SHIP_PROGRESS',
      message: e.message,
      hint: 'Shipping goes on; after a restart what is not noted is compared with what the place has.',
    });
  }

  /** Emits; what a listener throws is its own defect, not a store's. */
  #say<K extends keyof ShipEvents>(event: K, ...args: ShipEvents[K]): void {
    const emit = this.emit as (event: K, ...args: ShipEvents[K]) => boolean;
    try {
      emit.call(this, event, ...args);
    } catch (cause) {
      if (cause instanceof WalkeepError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new InternalError(`a listener of "${event}" failed: ${reason}`, { cause });
    }
  }
}

/** Ships until the signal, or with `once` until all that is there is shipped; see WalShipper. */
export function ship(options: ShipOptions & { signal?: AbortSignal }): Promise<ShipResult> {
  const { signal, ...rest } = options;
  return new WalShipper(rest).run(signal);
}

/** Where the progress of what has no directory of its own is kept: with the user's other states. */
function ownState(source: string): string {
  const { XDG_STATE_HOME: base } = process.env;
  const id = createHash('sha256').update(placeIdentity(source)).digest('hex').slice(0, 16);
  return join(base || join(homedir(), '.local', 'state'), 'walkeep', 'ship', id);
}

interface Target {
  /** For messages. */
  text: string;
  identity: string;
  borrowed: boolean;
  open(): Promise<ObjectStore>;
}

function describe(place: string | ObjectStore, { unfenced, openStore }: ShipOptions): Target {
  if (typeof place !== 'string') {
    return { text: place.place, identity: place.place, borrowed: true, open: async () => place };
  }
  const open = async (): Promise<ObjectStore> => {
    if (openStore) return openStore(place);
    const store = await import('../store/open.js');
    return store.openStore(place, { unfenced: unfenced ?? false });
  };
  return { text: parsePlace(place).text, identity: placeIdentity(place), borrowed: false, open };
}

/** All that either of two looks saw. */
function together(a: Snapshot, b: Snapshot): Snapshot {
  const seen = new Set(b.complete.map(({ base }) => base));
  const missed = a.complete.filter(({ base }) => !seen.has(base));
  if (missed.length === 0) return b;
  const complete = [...b.complete, ...missed].sort((x, y) =>
    x.segment === y.segment ? x.timeline - y.timeline : x.segment < y.segment ? -1 : 1,
  );
  return { ...b, complete };
}
