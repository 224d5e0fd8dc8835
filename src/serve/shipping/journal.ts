import { isDeepStrictEqual } from 'node:util';
import type { WalkeepError } from '../../errors.js';
import { formatLsn } from '../../lsn.js';
import type { PlaceStatus, ShipperStatus } from '../../ship/options.js';
import type { WalShipper } from '../../ship/shipper.js';
import type { Reporter } from '../reporter.js';
import { type ErrorReport, type LogEntry, reportOf } from '../status.js';
import type { ShipSnapshot } from './messages.js';

/** Milliseconds after which the same trouble is told again. */
const TELL_AGAIN = 600_000;
/** Milliseconds for which a look at the directory tells what is in it: it is due every five seconds. */
const FRESH = 15_000;
/** Milliseconds for which one at the shipper does: it is due twice a second. */
const BELIEVED = 5000;

/** What a whole segment is called when it was shipped, with or without a suffix. */
const SEGMENT = /^[0-9A-F]{24}$/;

/** Milliseconds for which a store may fail before it is called away: one bad answer is none. */
const AWAY_AFTER = 5000;

/** Whether a store answers, long before all tries at one thing have failed. */
export class Answering {
  #since: number | undefined;
  #error: WalkeepError | undefined;

  failed(error: WalkeepError, now: number): void {
    this.#since ??= now;
    this.#error = error;
  }

  succeeded(): void {
    this.#since = undefined;
    this.#error = undefined;
  }

  /** What it fails with, if it has for a while. */
  away(now: number): WalkeepError | undefined {
    return this.#since !== undefined && now - this.#since >= AWAY_AFTER ? this.#error : undefined;
  }
}

/** Keeps a reporter up to what a shipper says. */
export class ShipJournal {
  readonly #reporter: Reporter<ShipSnapshot>;
  readonly #answering = new Answering();
  readonly #point = new StorePoint();
  #told: { message: string; at: number } | undefined;

  constructor(reporter: Reporter<ShipSnapshot>) {
    this.#reporter = reporter;
  }

  listen(shipper: WalShipper): void {
    const reporter = this.#reporter;
    shipper.on('open', ({ place }) => {
      this.#succeeded();
      this.#say('info', 'ship', `ships to "${place}"`);
    });
    shipper.on('shipped', ({ name, key }) => {
      this.#succeeded();
      // An unfinished one is no segment that was completed.
      if (!SEGMENT.test(name) || !key.includes('/wal/')) return;
      reporter.change({ segments: reporter.snapshot.segments + 1 });
    });
    shipper.on('retry', ({ error }) => {
      this.failed(error);
      this.#tellAway(error);
    });
    shipper.on('held', ({ name, error }) => {
      reporter.change({ failures: reporter.snapshot.failures + 1 });
      const why = `${name} is not shipped: ${error.message}`;
      this.#say('error', 'ship-held', why, textsOf(error));
    });
    shipper.on('warning', ({ code, message, hint }) => {
      const more = { code, ...(hint === undefined ? {} : { hint }) };
      this.#say('warning', 'warning', message, more);
    });
  }

  /** A try failed; another one comes. */
  failed(error: WalkeepError): void {
    const { failures } = this.#reporter.snapshot;
    this.#reporter.change({ failures: failures + 1 });
    this.#answering.failed(error, performance.now());
  }

  /** Tells how it is. */
  look(status: ShipperStatus, now: number): void {
    const [place] = status.places;
    if (place) {
      const error = this.#answering.away(now);
      if (error) this.#tellAway(error);
      this.#update(storeSnapshot(place, error && reportOf(error)));
    }
    this.#point.look(status, now);
  }

  /** Milliseconds since all that was completed was there, as StorePoint. */
  age(now: number): number | undefined {
    return this.#point.age(now);
  }

  /** Of what did not change nothing is told. */
  #update(next: Partial<ShipSnapshot>): void {
    const { snapshot } = this.#reporter;
    if (snapshot.error && !next.error) this.#reporter.clearError();
    const changed = Object.entries(next).some(
      ([name, value]) => !isDeepStrictEqual(snapshot[name as keyof ShipSnapshot], value),
    );
    if (changed) this.#reporter.change(next);
  }

  #succeeded(): void {
    this.#answering.succeeded();
    if (this.#told) this.#say('info', 'ship', 'it answers again');
    this.#told = undefined;
  }

  /** A store that is away would fill the log. */
  #tellAway(error: WalkeepError): void {
    const now = performance.now();
    const { message } = error;
    if (this.#told?.message === message && now - this.#told.at < TELL_AGAIN) return;
    this.#told = { message, at: now };
    this.#say('warning', 'ship-away', message, textsOf(error));
  }

  #say(level: LogEntry['level'], event: string, message: string, more = {}): void {
    this.#reporter.log({ level, event, message, ...more });
  }
}

function textsOf(error: WalkeepError): Partial<ErrorReport> {
  const { code, hint, detail } = reportOf(error);
  return {
    code,
    ...(hint === undefined ? {} : { hint }),
    ...(detail === undefined ? {} : { detail }),
  };
}

/**
 * Up to when all that was completed was at the store. Only a look at the directory tells what is
 * completed, and only the store, once it was reached, what is there.
 */
export class StorePoint {
  #allThereAt: number | undefined;
  /** By the last look at the shipper. */
  #age: number | undefined;
  #at = 0;

  /** Milliseconds since then; 0: it is so now. Undefined before that was ever known. */
  age(now: number): number | undefined {
    const since = now - this.#at;
    // A disk that hangs keeps whoever looks: what was so then is not believed for ever.
    if (this.#age === undefined || (this.#age === 0 && since <= BELIEVED)) return this.#age;
    return Math.round(this.#age + since);
  }

  look(status: ShipperStatus, now: number): void {
    this.#age = this.#ageBy(status, now);
    this.#at = now;
  }

  #ageBy({ complete, lookedAge, places }: ShipperStatus, now: number): number | undefined {
    const [place] = places;
    if (place === undefined || lookedAge === undefined) return undefined;
    const isThere = place.segments === 0 && (place.reached || complete === 0);
    if (isThere) {
      this.#allThereAt = Math.max(now - lookedAge, this.#allThereAt ?? 0);
      if (lookedAge <= FRESH) return 0;
    } else if (place.segments > 0 && place.seconds > 0) {
      return place.seconds * 1000;
    }
    return this.#allThereAt === undefined ? undefined : Math.max(1, now - this.#allThereAt);
  }
}

/**
 * How a store is, as one look at its shipper shows it.
 * @param away what it fails with while it is tried again
 */
export function storeSnapshot(
  place: PlaceStatus,
  away?: ErrorReport,
): Pick<ShipSnapshot, 'state' | 'queueSegments' | 'queueBytes' | 'shippedLsn' | 'error'> {
  const { segments, bytes, position, reached, state, held, trouble = away ?? held[0] } = place;
  const isAway = state === 'retrying' || away !== undefined;
  const next = isAway ? 'away' : held.length > 0 ? 'held' : 'shipping';
  return {
    state: reached || next !== 'shipping' ? next : 'starting',
    ...{ queueSegments: segments, queueBytes: bytes },
    ...(position ? { shippedLsn: formatLsn(position.lsn) } : {}),
    ...(trouble && next !== 'shipping' ? { error: errorOf(trouble) } : {}),
  };
}

function errorOf({ code, message, hint }: ErrorReport): ErrorReport {
  return { code, message, ...(hint === undefined ? {} : { hint }) };
}
