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

/** What a whole segment is called when it was shipped, with or without a suffix. */
const SEGMENT = /^[0-9A-F]{24}$/;

/** Keeps a reporter up to what a shipper says. */
export function reportShipper(shipper: WalShipper, reporter: Reporter<ShipSnapshot>): void {
  let told: { message: string; at: number } | undefined;
  const say = (level: LogEntry['level'], event: string, message: string, more = {}): void =>
    reporter.log({ level, event, message, ...more });

  shipper.on('open', ({ place }) => say('info', 'ship', `ships to "${place}"`));
  shipper.on('shipped', ({ name, key }) => {
    if (told) say('info', 'ship', 'it answers again');
    told = undefined;
    // An unfinished one is no segment that was completed.
    if (!SEGMENT.test(name) || !key.includes('/wal/')) return;
    reporter.change({ segments: reporter.snapshot.segments + 1 });
  });
  shipper.on('retry', ({ error }) => {
    reporter.change({ failures: reporter.snapshot.failures + 1 });
    if (!isNews(error, told)) return;
    told = { message: error.message, at: performance.now() };
    say('warning', 'ship-away', error.message, textsOf(error));
  });
  shipper.on('held', ({ name, error }) => {
    reporter.change({ failures: reporter.snapshot.failures + 1 });
    const why = `${name} is not shipped: ${error.message}`;
    say('error', 'ship-held', why, textsOf(error));
  });
  shipper.on('warning', ({ code, message, hint }) => {
    say('warning', 'warning', message, { code, ...(hint === undefined ? {} : { hint }) });
  });
}

/** A store that is away would fill the log. */
function isNews({ message }: WalkeepError, told: { message: string; at: number } | undefined) {
  return told?.message !== message || performance.now() - told.at > TELL_AGAIN;
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

  /** Milliseconds since then; 0: it is so now. Undefined before that was ever known. */
  age({ complete, lookedAge, places }: ShipperStatus, now: number): number | undefined {
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

/** How a store is, as one look at its shipper shows it. */
export function storeSnapshot(
  place: PlaceStatus,
): Pick<ShipSnapshot, 'state' | 'queueSegments' | 'queueBytes' | 'shippedLsn' | 'error'> {
  const { segments, bytes, position, reached, state, held, trouble = held[0] } = place;
  const next = state === 'retrying' ? 'away' : held.length > 0 ? 'held' : 'shipping';
  return {
    state: reached || next !== 'shipping' ? next : 'starting',
    ...{ queueSegments: segments, queueBytes: bytes },
    ...(position ? { shippedLsn: formatLsn(position.lsn) } : {}),
    ...(trouble && next !== 'shipping' ? { error: reportOfTrouble(trouble) } : {}),
  };
}

function reportOfTrouble({ code, message, hint }: ErrorReport): ErrorReport {
  return { code, message, ...(hint === undefined ? {} : { hint }) };
}
