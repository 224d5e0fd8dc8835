import type { HeldFile, ShipTrouble } from '../archive/shipping/progress.js';
import { UsageError, type WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import {
  aFunction,
  aName,
  aNumber,
  anObject,
  aSwitch,
  aTime,
  type Checks,
  checkOptions,
  either,
  listOf,
  oneOf,
  required,
} from '../options.js';
import type { ObjectStore } from '../store/store.js';
import { COMPRESSIONS, type Compression } from '../wal/file-name.js';

/** What objects are compressed with before they are sent. */
export interface ShipCompression {
  method: Compression;
  /** The method's own scale, absent for its default. */
  level?: number;
}

/** What is to be shipped, and where to. Times are milliseconds. */
export interface ShipOptions {
  /** A directory that a receiver writes to, or wrote to; or any other place of an archive. */
  source: string;
  /** Where to; stores that are opened already are not closed. */
  places: readonly (string | ObjectStore)[];
  /** Ends when all that is there is shipped, rather than waiting for more. Default false. */
  once?: boolean;
  /** Segments on their way at the same time, for each place. Default 2. */
  jobs?: number;
  /** Default zstd, or gzip:1 where Node.js has no zstd of its own (before 22.15). */
  compression?: ShipCompression;
  /** age recipients (`age1…`): what is stored is encrypted to each of them. */
  recipients?: readonly string[];
  /** Use also a store that cannot create only what is absent. Default false. */
  unfenced?: boolean;
  /** Take this cluster into an archive that has another one, as after pg_upgrade. Default false. */
  newSystem?: boolean;
  /** Remove local segments that all places have; absent: none. Needs a directory as the source. */
  keepLocal?: KeepLocal;
  /** Directory for progress and locks. Default: the source, or one of this user's if it is no directory. */
  state?: string;
  /** Between two looks for new files; a directory also tells by itself. Default 5000. */
  pollInterval?: number;
  /** Unfinished segments that nobody writes to are shipped after so long. Default 60000. */
  quietTime?: number;
  /** With `once`: how long to try a place that does not answer. Default 60000. */
  giveUpAfter?: number;
  /** Opens a place that is given as a text; absent: as the commands do. */
  openStore?: (place: string) => Promise<ObjectStore>;
  /** Fixed delay between tries; absent: back-off with jitter from 0.5 s to 60 s. */
  retryDelay?: number;
}

/** At least so much stays, each where it is given: the longest time in ms, the most bytes. */
export interface KeepLocal {
  age?: number;
  size?: number;
}

const CHECKS: Checks<ShipOptions> = {
  source: required(aName),
  places: required(
    listOf(either(aName, anObject), 'a list of places, each a text or an open store'),
  ),
  once: aSwitch,
  jobs: aNumber(1, 64),
  compression: anObject,
  recipients: listOf(aName, 'a list of age recipients'),
  unfenced: aSwitch,
  newSystem: aSwitch,
  keepLocal: anObject,
  state: aName,
  pollInterval: aTime,
  quietTime: aTime,
  giveUpAfter: aTime,
  openStore: aFunction,
  retryDelay: aTime,
};

const COMPRESSION: Checks<ShipCompression> = {
  method: required(oneOf(...COMPRESSIONS)),
  level: aNumber(-131072, 22),
};

const KEEP: Checks<KeepLocal> = {
  age: aTime,
  size: aNumber(0, Number.MAX_SAFE_INTEGER),
};

/** @throws UsageError */
export function checkShipOptions(options: ShipOptions): void {
  checkOptions('ship', options, CHECKS);
  if (options.places.length === 0) throw new UsageError('ship: there is no place to ship to');
  if (options.compression) checkOptions('ship, compression', options.compression, COMPRESSION);
  if (options.keepLocal) checkOptions('ship, keepLocal', options.keepLocal, KEEP);
}

/** Something that a person should know, and that does not end anything. */
export interface ShipWarning {
  /** Absent: of the source. */
  place?: string;
  code: string;
  message: string;
  hint?: string;
}

/** How far a place is behind. */
export interface ShipLag {
  place: string;
  /** Up to here the place has all that is here; absent before anything was shipped. */
  position?: { timeline: number; lsn: Lsn };
  /** Whole segments that it lacks. */
  segments: number;
  /** Bytes of WAL in them. */
  bytes: number;
  /** How long the oldest of them has been here; 0 if there is none. */
  seconds: number;
}

/** How a running WalShipper is. */
export interface ShipperStatus {
  /** Milliseconds since the source was looked at; absent: it was not yet. */
  lookedAge?: number;
  /** Whole segments that are there. */
  complete: number;
  places: PlaceStatus[];
}

/** How it is with one place. */
export interface PlaceStatus extends ShipLag {
  /** It was reached, and is the archive of this cluster. */
  reached: boolean;
  /** `retrying`: tried again and again; `stopped`: only a person can help. */
  state: 'ok' | 'retrying' | 'stopped';
  trouble?: ShipTrouble;
  /** Files that are not sent, since they are damaged. */
  held: readonly HeldFile[];
}

/** The events of a WalShipper. */
export interface ShipEvents {
  /** A place was reached and is the archive of this cluster. */
  open: [{ place: string; archiveId: string; systemId: bigint }];
  /** There is no WAL in the source yet: it is waited for, unless `once` or a stop ends it. */
  empty: [{ source: string; waits: boolean }];
  /** A place has it now, or had the same: `present`. `size`: bytes sent; `lsn`: its end. */
  shipped: [
    {
      place: string;
      name: string;
      key: string;
      outcome: 'stored' | 'present';
      size: number;
      lsn?: Lsn;
    },
  ];
  /** At most once a second, and at the end. */
  progress: [ShipLag];
  /** A place does not answer, or refuses us; it is tried again. */
  retry: [{ place: string; error: WalkeepError; retryIn: number }];
  /** A place is given up: only a person can help, or with `once` it did not answer. */
  stopped: [{ place: string; error: WalkeepError }];
  /** A file is damaged, or of another cluster: no place gets it. */
  held: [{ place: string; name: string; error: WalkeepError }];
  /** A local file was removed, all places have it (bare name). */
  removed: [{ name: string; size: number }];
  warning: [ShipWarning];
}

/** All of them, for who listens to everything. */
export const SHIP_EVENTS = [
  'open',
  'empty',
  'shipped',
  'progress',
  'retry',
  'stopped',
  'held',
  'removed',
  'warning',
] as const satisfies readonly (keyof ShipEvents)[];

export type Tell = <K extends keyof ShipEvents>(event: K, ...args: ShipEvents[K]) => void;

/** What became of one place. */
export interface ShippedPlace extends ShipLag {
  /** Files that are held back. */
  held: HeldFile[];
  /** Why it was given up. */
  error?: WalkeepError;
}

/** How shipping ended. */
export interface ShipResult {
  /** `done`: all places have all that is there, unless one of them says otherwise. */
  reason: 'done' | 'signal';
  places: ShippedPlace[];
}
