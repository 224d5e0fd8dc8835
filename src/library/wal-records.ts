import { type ArchiveOptions, withArchives } from '../archive/places/open-archive.js';
import { readCatalog } from '../archive/read-catalog.js';
import { decoding, planTimeline, type UnreadPlace } from '../archive/way/plan.js';
import { scanSegments } from '../archive/way/read.js';
import { type Damage, DamageTolerantScan, type Unread } from '../archive/way/scan.js';
import { connect } from '../connection/connect.js';
import { resolveSettings } from '../connection/conninfo/resolve.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import { CorruptWalError, GapError, NotSupportedError, type WalkeepError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import {
  aBigint,
  aFunction,
  aName,
  aNumber,
  anLsn,
  anObject,
  aSignal,
  aText,
  aTimeline,
  type Checks,
  checkOptions,
  either,
  listOf,
  required,
} from '../options.js';
import { type SinkOpening, type SinkTimeline, streamWal } from '../receive/sink.js';
import { WalDecoder } from '../wal/decoder.js';
import { DEFAULT_BLOCK_SIZE, LONG_PAGE_HEADER, SHORT_PAGE_HEADER } from '../wal/page.js';
import { timelineAt } from '../wal/timeline.js';
import { HandOver } from './hand-over.js';
import { LoggedRecord } from './logged-record.js';

/** Which records are wanted. */
export interface RecordSelection {
  /** Those that begin here or behind it. */
  since?: Lsn | undefined;
  /** Those that begin before it. */
  until?: Lsn | undefined;
  /** By xl_rmid and xl_info: the others are checked, and passed over at several times the speed. */
  select?: ((rmgr: number, info: number) => boolean) | undefined;
  signal?: AbortSignal | undefined;
}

/** Records of archives that are read as one. */
export interface ArchivedRecordsOptions extends RecordSelection {
  places: string | readonly string[];
  /** Along the way to this timeline; default: the newest. */
  timeline?: number | undefined;
  /** What opens what is encrypted. */
  keys?: ArchiveOptions | undefined;
}

/** Records as a server writes them. Without `since` those that it writes from now on. */
export interface LiveRecordsOptions extends RecordSelection {
  /** A conninfo string or URI, or settings from `resolveSettings`. */
  connection: ConnectionSettings | string;
  /** Timeline of `since`; default: what the server's history says. */
  timeline?: number | undefined;
  /** Refuse a server of another cluster. */
  systemId?: bigint | undefined;
  /** Records longer than this many bytes come without contents. Default 64 MiB. */
  maxRecord?: number | undefined;
  /** Told once the server streams, before the first record; `lsn` is where reading begins. */
  onOpen?: ((opening: SinkOpening) => void) | undefined;
}

const SELECTION: Checks<RecordSelection> = {
  since: anLsn,
  until: anLsn,
  select: aFunction,
  signal: aSignal,
};
const ARCHIVED: Checks<ArchivedRecordsOptions> = {
  ...SELECTION,
  places: required(either(aName, listOf(aName, 'a list of places'))),
  timeline: aTimeline,
  keys: anObject,
};
const LIVE: Checks<LiveRecordsOptions> = {
  ...SELECTION,
  connection: required(either(aText, anObject)),
  timeline: aTimeline,
  systemId: aBigint,
  maxRecord: aNumber(0, Number.MAX_SAFE_INTEGER),
  onOpen: aFunction,
};

/**
 * The records of the WAL, checked, in their order and without a gap: of one or several archives, up
 * to the end of what they have, or live from a server, until the signal aborts. A server is asked for
 * no slot, and told of nothing that others could rely on. In memory are the records of one segment, or of
 * one message of the server, at most.
 * @throws CorruptWalError where WAL is damaged, GapError where some is missing, NotSupportedError where
 *   it is in an unknown form, and what reading the place or connecting throws; the signal's reason
 * @example
 * for await (const record of walRecords({ places: '/archive' })) {
 *   console.log(formatLsn(record.lsn), record.rmgrName, record.blocks.length);
 * }
 */
export function walRecords(
  options: ArchivedRecordsOptions | LiveRecordsOptions,
): AsyncGenerator<LoggedRecord, void, undefined> {
  if ('connection' in options) {
    checkOptions('walRecords', options, LIVE);
    return live(options);
  }
  checkOptions('walRecords', options, ARCHIVED);
  return archived(options);
}

async function* archived(options: ArchivedRecordsOptions): AsyncGenerator<LoggedRecord, void> {
  const stop = new AbortController();
  const records = new HandOver<LoggedRecord>();
  const reading = readArchived(options, records, stop.signal).then(
    () => records.end(),
    (error) => records.end(error),
  );
  try {
    yield* records.items();
  } finally {
    stop.abort();
    records.end();
    await reading;
  }
}

function readArchived(
  options: ArchivedRecordsOptions,
  records: HandOver<LoggedRecord>,
  stopped: AbortSignal,
): Promise<void> {
  const { places, keys = {}, since = 0n, until, timeline, signal, select = () => true } = options;
  return withArchives(places, keys, async (archive) => {
    const plan = planTimeline(await readCatalog(archive), timeline);
    const size = BigInt(plan.segmentSize);
    // A record that begins before `since` may reach into its segment: the decoder passes it over.
    const segments = plan.segments.filter(
      ({ start }) => start + size > since && (until === undefined || start < until),
    );
    const first = plan.segments.find(({ start }) => start + size > since);
    if (options.since !== undefined && first && first.start > since)
      throw missingFrom(since as Lsn);
    const unread = plan.unread.filter(({ to }) => to > since);
    requireReadable(unread.find(({ from }) => first !== undefined && from < first.start));
    let failure: WalkeepError | undefined;
    const scan = new DamageTolerantScan(
      { ...decoding(plan), select, until },
      {
        damage(damage, why) {
          if (until !== undefined && damage.from >= until) return true;
          if (damage.resumedAt !== undefined && damage.resumedAt <= since) return false;
          failure = toError(damage, why);
          return true;
        },
        record(record, major) {
          if (until !== undefined && record.lsn >= until) return true;
          if (record.lsn < since) return false;
          records.add(new LoggedRecord(record, timelineAt(plan.history, record.lsn), major));
          return false;
        },
      },
    );
    const both = signal ? AbortSignal.any([signal, stopped]) : stopped;
    await scanSegments(plan, segments, scan, both, () => records.settled());
    await records.settled();
    if (failure) throw failure;
    const wanted = (lsn: Lsn): boolean => until === undefined || lsn < until;
    const end = (segments.at(-1)?.start ?? 0n) + size;
    // What is behind `until` is not read, but shows that there is more between.
    const behind = plan.segments.find(({ start }) => until !== undefined && start >= until);
    if (behind && segments.length > 0 && wanted(end as Lsn)) throw missingFrom(end as Lsn);
    requireReadable(unread.find(({ from }) => wanted(from)));
    if (plan.missing && wanted(plan.missing.from)) throw missingFrom(plan.missing.from);
  });
}

function missingFrom(lsn: Lsn): GapError {
  return new GapError(`WAL is missing from ${formatLsn(lsn)} on`, { lsn });
}

/** @throws NotSupportedError */
function requireReadable(unread: UnreadPlace | undefined): void {
  if (!unread) return;
  throw new NotSupportedError(`"${unread.name}" is in a form that cannot be read`, {
    lsn: unread.from,
  });
}

function toError({ lsn, message }: Damage, why: Unread | undefined): WalkeepError {
  if (why === 'missing') return new GapError(message, { lsn });
  return why ?? new CorruptWalError(message, { lsn });
}

async function* live(options: LiveRecordsOptions): AsyncGenerator<LoggedRecord, void> {
  const { timeline, systemId, signal } = options;
  const connection = await settingsOf(options.connection);
  const since = options.since ?? (await endOf(connection, signal));
  const stop = new AbortController();
  const records = new HandOver<LoggedRecord>();
  let isEnough = false;
  const sink = new DecodingSink({ ...options, since }, records, () => {
    isEnough = true;
    stop.abort();
  });
  const streaming = streamWal(
    {
      connection,
      // The decoder does what else would be done twice.
      ...{ verify: 'off', synchronous: false, sinkTimeout: 0 },
      startLsn: (since - (since % PAGE)) as Lsn,
      ...(timeline === undefined ? {} : { timeline }),
      ...(systemId === undefined ? {} : { systemId }),
    },
    sink,
    signal ? AbortSignal.any([signal, stop.signal]) : stop.signal,
  ).then(
    () => records.end(signal?.aborted ? signal.reason : undefined),
    // What it was stopped for is no failure, however the connection ended.
    (error) => records.end(sink.failure ?? (isEnough ? undefined : error)),
  );
  try {
    yield* records.items();
  } finally {
    stop.abort();
    records.end();
    await streaming;
  }
}

/** From the start of a page on, of whatever size, records are found. */
const PAGE = 65_536n;

async function settingsOf(connection: ConnectionSettings | string): Promise<ConnectionSettings> {
  if (typeof connection !== 'string') return connection;
  return resolveSettings({ conninfo: connection, fallbackApplicationName: 'walkeep' });
}

async function endOf(settings: ConnectionSettings, signal?: AbortSignal): Promise<Lsn> {
  await using session = await connect(settings, signal ? { signal } : {});
  return (await session.identifySystem()).flushLsn;
}

/** Where the next record can begin at the earliest: behind the header of a page that begins there. */
function nextStart(end: Lsn, segmentSize: number): bigint {
  if (end % BigInt(DEFAULT_BLOCK_SIZE) !== 0n) return end;
  return end + BigInt(end % BigInt(segmentSize) === 0n ? LONG_PAGE_HEADER : SHORT_PAGE_HEADER);
}

/** Makes records of the WAL that a server sends. */
class DecodingSink {
  /** What the decoder found wrong, as itself and not as a failure of the sink. */
  failure: unknown;
  private readonly o: LiveRecordsOptions;
  private readonly records: HandOver<LoggedRecord>;
  /** Called when all that is wanted was handed over. */
  private readonly enough: () => void;
  private at: SinkOpening | undefined;
  private decoder: WalDecoder | undefined;

  constructor(options: LiveRecordsOptions, records: HandOver<LoggedRecord>, enough: () => void) {
    this.o = options;
    this.records = records;
    this.enough = enough;
  }

  open(opening: SinkOpening): void {
    this.begin(opening);
    this.o.onOpen?.(opening);
  }

  timeline(next: SinkTimeline): void {
    this.begin({ ...(this.at as SinkOpening), ...next });
  }

  async write(chunk: Buffer): Promise<void> {
    const { o, records } = this;
    const at = this.at as SinkOpening;
    const decoder = this.decoder as WalDecoder;
    try {
      decoder.feed(chunk);
      for (let record = decoder.next(); record; record = decoder.next()) {
        if (o.since !== undefined && record.lsn < o.since) continue;
        if (o.until !== undefined && record.lsn >= o.until) continue;
        // Behind a switch of timelines the first page header is still to come.
        const major = decoder.serverMajor ?? Math.floor(at.serverVersion / 10_000);
        records.add(new LoggedRecord(record, timelineAt(at.history, record.lsn), major));
      }
    } catch (error) {
      this.failure = error;
      throw error;
    }
    await records.settled();
    // By the end of a record and not of the bytes: one that began before may go on in the next message.
    if (o.until !== undefined && nextStart(decoder.validEnd, at.segmentSize) >= o.until) {
      this.enough();
    }
  }

  flush(): void {}

  private begin(at: SinkOpening): void {
    this.at = at;
    const { lsn: startLsn, timeline, segmentSize, systemId, history } = at;
    const { select, maxRecord } = this.o;
    this.decoder = new WalDecoder({
      ...{ startLsn, timeline, segmentSize, systemId, history },
      ...(select === undefined ? {} : { select }),
      ...(maxRecord === undefined ? {} : { maxRecord }),
    });
  }
}
