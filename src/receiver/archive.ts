import { join } from 'node:path';
import type { ReplicationConnection } from '../connection/connection.js';
import { ProtocolError, StorageError } from '../errors.js';
import { VERSION } from '../package.js';
import type { StreamEnd } from '../protocol/replication.js';
import { type FileSystem, nodeFileSystem } from '../storage/file-system.js';
import { Ledger, type LedgerEntry } from '../storage/ledger.js';
import { identify, type SegmentFile, scanDirectory } from '../storage/wal-directory.js';
import { floorToSegment, type SegmentName, segmentOf, segmentStart } from '../wal/file-name.js';
import { formatLsn, type Lsn } from '../wal/lsn.js';
import { type TimelineHistory, timelineEnd } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import { readStored } from './anchor.js';
import { checkHistories, ensureHistoryFile, type Fork } from './history-files.js';
import { isStoredGood } from './known-wal.js';
import { finishLeft, leftSegments, removeCopies } from './left-segments.js';
import type { WalReceiverOptions } from './options.js';
import type { Refusal } from './refusals.js';
import { readSlot, type ServerState } from './server-state.js';
import { chooseStart, type StartInputs, type StartPoint } from './start-point.js';
import type { WriteReport } from './stream.js';

type Warn = (code: string, message: string) => void;

interface OpenOptions {
  /** The server said that it lacks the WAL wanted, and going over that is accepted. */
  walRemoved: boolean;
  /** The server said that the slot is invalid. */
  slotInvalid: boolean;
  /** WAL that failed the check: start in its segment, unless it is stored good. */
  refused: Refusal | undefined;
  writeReport: WriteReport;
  warn: Warn;
  /** Where the directory is; for tests. */
  fs?: FileSystem;
}

/**
 * The receiving directory as one connection finds it: scanned, proved to be the server's, with its
 * ledger open and a start chosen.
 */
export class Archive {
  readonly server: ServerState;
  readonly ledger: Ledger;
  readonly start: StartPoint;
  /** Files with the segment number of the start. */
  readonly atStart: readonly SegmentFile[];
  readonly writeReport: WriteReport;
  readonly fs: FileSystem;
  private readonly directory: string;
  private readonly sync: boolean;
  private readonly refused: Refusal | undefined;
  /** What the start adds to the ledger: with the first WAL, so that a refused one leaves no trace. */
  private unrecorded: LedgerEntry[];

  private constructor(
    server: ServerState,
    ledger: Ledger,
    start: StartPoint,
    atStart: readonly SegmentFile[],
    again: Refusal | undefined,
    o: WalReceiverOptions,
    options: OpenOptions,
  ) {
    this.directory = o.directory;
    this.sync = o.sync !== false;
    this.refused = again;
    this.writeReport = options.writeReport;
    this.fs = options.fs ?? nodeFileSystem;
    this.server = server;
    this.ledger = ledger;
    this.start = start;
    this.atStart = atStart;
    this.unrecorded = startEntries(ledger, server, start, again);
  }

  /** @throws everything that `chooseStart` throws, TimelineConflictError, StorageError */
  static async open(
    o: WalReceiverOptions,
    connection: ReplicationConnection,
    server: ServerState,
    options: OpenOptions,
  ): Promise<Archive> {
    const { warn, fs = nodeFileSystem } = options;
    const sync = o.sync !== false;
    const mode = server.fileMode;
    const ledger = await Ledger.open(o.directory, { create: true, mode, sync, fs });
    if (!ledger) throw new StorageError('could not create the ledger', { path: o.directory });
    try {
      const { start, atStart, again } = await chooseFor(o, connection, server, ledger, options);
      for (const w of start.warnings) warn('WK_START', w);
      return new Archive(server, ledger, start, atStart, again, o, options);
    } catch (e) {
      await ledger.close();
      throw e;
    }
  }

  /** Notes facts in the ledger, durably, behind those about the start. */
  async record(...facts: LedgerEntry[]): Promise<void> {
    const first = this.unrecorded.splice(0);
    if (first.length + facts.length === 0) return;
    try {
      await this.ledger.append(...first, ...facts);
    } catch (e) {
      // A full disk passes: what was not recorded still has to come before anything else.
      this.unrecorded.unshift(...first);
      throw e;
    }
  }

  /** True while WAL that failed the check is asked for again, of whatever timeline. */
  get asksAgain(): boolean {
    return this.refused !== undefined;
  }

  /** True if that is WAL of this timeline. */
  isRefused(timeline: number): boolean {
    return this.refused?.timeline === timeline;
  }

  /** LSN up to which bytes on this timeline were acknowledged, 0 if none were. */
  acknowledged(timeline: number): bigint {
    const { state } = this.ledger;
    const flushed = state.timeline === timeline ? (state.flushedLsn ?? 0n) : 0n;
    const { refused } = this;
    // Of an incomplete record that turned out bad the tail may have been acknowledged.
    if (refused?.timeline !== timeline || flushed < refused.verifiedEnd) return flushed;
    return refused.verifiedEnd;
  }

  /**
   * Checks what the server says comes after a timeline, and notes it.
   * @throws ProtocolError if it cannot follow, or the history of the next timeline says otherwise
   */
  async follow(
    connection: ReplicationConnection,
    timeline: number,
    position: Lsn,
    end: Extract<StreamEnd, { kind: 'timeline' }>,
  ): Promise<{ lsn: Lsn; timeline: number }> {
    if (end.timeline <= timeline) {
      throw new ProtocolError(
        `server reported unexpected next timeline ${end.timeline}, following timeline ${timeline}`,
      );
    }
    if (end.startLsn > position) {
      throw new ProtocolError(
        `server stopped streaming timeline ${timeline} at ${formatLsn(position)}, but reported next timeline ${end.timeline} to begin at ${formatLsn(end.startLsn)}`,
        { lsn: position },
      );
    }
    // Nothing protects this answer on its way, and what is noted is believed from now on.
    await this.history(connection, end.timeline, { parent: timeline, lsn: end.startLsn });
    const lsn = floorToSegment(end.startLsn, this.server.segmentSize);
    await this.record({ type: 'timeline', timeline: end.timeline, start: lsn, why: 'switch' });
    return { lsn, timeline: end.timeline };
  }

  /** The history of a timeline, whose file is stored here from then on. */
  history(
    connection: ReplicationConnection,
    timeline: number,
    fork?: Fork,
  ): Promise<TimelineHistory> {
    const { server, fs, directory, sync } = this;
    const known = timeline === server.timeline ? server.historyFile : undefined;
    const options = { mode: server.fileMode, sync, fs, known, fork };
    return ensureHistoryFile(connection, directory, timeline, options);
  }

  close(): Promise<void> {
    return this.ledger.close();
  }
}

async function chooseFor(
  o: WalReceiverOptions,
  connection: ReplicationConnection,
  server: ServerState,
  ledger: Ledger,
  options: OpenOptions,
): Promise<{ start: StartPoint; atStart: SegmentFile[]; again: Refusal | undefined }> {
  const { walRemoved, warn, fs = nodeFileSystem } = options;
  const { segmentSize } = server;
  const { directory } = o;
  const scan = await scanForStart(directory, server, ledger, fs);
  for (const w of scan.warnings) warn('WK_SCAN', w);
  const identity = await identify(directory, scan, fs);
  const stored =
    ledger.state.systemId === undefined ? identity?.segmentSize : ledger.state.segmentSize;
  const systemId = ledger.state.systemId ?? identity?.systemId;
  if (stored !== undefined && stored !== segmentSize && systemId === server.systemId) {
    throw new StorageError(
      `the directory holds segments of ${stored} bytes, the server makes them of ${segmentSize}`,
      { path: directory, expected: `${stored}`, actual: `${segmentSize}` },
    );
  }
  const left = leftSegments(scan, ledger);
  const newest = left[0] ?? scan.newest;
  const timelines = new Set([...scan.histories.map((h) => h.timeline)]);
  const ledgerEnd =
    ledger.state.end !== undefined && ledger.state.timeline !== undefined
      ? { lsn: ledger.state.end, timeline: ledger.state.timeline }
      : undefined;
  const inputs: StartInputs = {
    segmentSize,
    server,
    acceptGap: o.acceptGap ?? false,
    refuseGaps: o.refuseGaps ?? true,
    walRemoved,
    ...(identity ? { localSystemId: identity.systemId } : {}),
    ...(ledger.state.systemId === undefined
      ? {}
      : {
          ledger: {
            systemId: ledger.state.systemId,
            ...(ledgerEnd ? { end: ledgerEnd } : {}),
          },
        }),
  };
  if (newest) {
    inputs.local = {
      lsn: segmentStart(newest.partial ? newest.segment : newest.segment + 1n, segmentSize),
      timeline: newest.timeline,
      empty: newest.partial && newest.compression === 'none' && newest.size === 0,
      file: newest.name,
    };
    const unknown = !newest.partial && (ledgerEnd?.lsn ?? 0n) < inputs.local.lsn;
    const early = unknown ? await endsEarly(newest, directory, server, fs) : undefined;
    if (early !== undefined) {
      const ends = `"${newest.name}" has the size of a complete segment, but its WAL ends at ${formatLsn(early)}`;
      if (ledgerEnd) {
        inputs.local.lsn = segmentStart(newest.segment, segmentSize);
        warn('WK_SCAN', `${ends}: it is received again`);
      } else {
        // To pg_receivewal it is complete.
        const next = formatLsn(segmentStart(newest.segment + 1n, segmentSize));
        const rest = `what follows up to ${next} is not received`;
        warn('WK_SCAN', `${ends}: ${rest}; move the file away to have it received again`);
      }
    }
    if (ledgerEnd) {
      inputs.localReachesLedger = reaches(
        scan.segments,
        newest,
        segmentOf(ledgerEnd.lsn, segmentSize),
      );
    }
  }
  if (o.slot !== undefined && (!newest || o.ensureSlot || walRemoved)) {
    const { slotInvalid: invalid } = options;
    const slot = await readSlot(connection, o.slot, { ensure: o.ensureSlot ?? false, invalid });
    inputs.slot = slot;
    // Once: this function may call itself.
    options.slotInvalid = false;
    if (slot.replaced) {
      warn('WK_SLOT', `replication slot "${o.slot}" kept no WAL; it was dropped and created again`);
    }
  }
  const filesAt = (lsn: Lsn) =>
    scan.segments.filter((s) => s.segment === segmentOf(lsn, segmentSize));
  // Identity first: histories of another cluster would be called a conflict.
  let start = chooseStart(inputs);
  let again = options.refused;
  if (again) {
    const at = { ...server, startLsn: start.lsn };
    // Also an ancestor's: its child's may hold the damage that the ancestor's does not.
    const partials = filesAt(start.lsn).filter((f) => f.partial);
    if (await isStoredGood(again.verifiedEnd, directory, at, partials, fs)) again = undefined;
    else start = chooseStart({ ...inputs, again: { ...again, lsn: again.verifiedEnd } });
  }
  await checkHistories(directory, server, [...timelines], fs);
  await removeCopies(directory, scan, fs);
  const known = (file: SegmentFile) => acknowledgedOn(file, o, connection, server, ledger);
  if (!again && scan.newest && mayBeWhole(scan.newest, server)) {
    // Beyond its end nothing was acknowledged, or there were a next file: a slot that stands further
    // on was made anew or moved by another, and tells nothing of what is here.
    const end = segmentStart(scan.newest.segment + 1n, segmentSize);
    if ((await known(scan.newest)) === end) left.push(scan.newest);
  }
  const [oldest] = left;
  if (oldest) {
    const first = await finishLeft(directory, server, left, scan, ledger, await known(oldest), fs);
    if (first !== oldest) return chooseFor(o, connection, server, ledger, options);
  }
  return { start, atStart: filesAt(start.lsn), again };
}

/**
 * Where the WAL of a complete file that the ledger does not know ends, if that is before the file
 * does: it was copied from a running server, for example.
 */
async function endsEarly(
  { name, compression, timeline, segment }: SegmentFile,
  directory: string,
  { segmentSize, systemId }: ServerState,
  fs: FileSystem,
): Promise<Lsn | undefined> {
  const startLsn = segmentStart(segment, segmentSize);
  const verifier = new WalVerifier({ startLsn, segmentSize, timeline, systemId });
  const feed = (chunk: Uint8Array): void => void verifier.feed(chunk);
  await readStored({ path: join(directory, name), compression }, segmentSize, feed, fs);
  const whole = !verifier.fault || verifier.validEnd >= segmentStart(segment + 1n, segmentSize);
  return whole ? undefined : verifier.validEnd;
}

/**
 * True if the newest file may hold a whole segment that only lacks its name. After an acknowledgement
 * of exactly its end the server may remove that segment: it cannot be asked for again.
 */
function mayBeWhole(file: SegmentFile, { segmentSize, flushLsn, history }: ServerState): boolean {
  if (!file.partial || file.compression !== 'none' || file.size !== segmentSize) return false;
  const end = segmentStart(file.segment + 1n, segmentSize);
  const fork = timelineEnd(history, file.timeline);
  return flushLsn >= end && (fork === undefined || fork >= end);
}

/** Up to where WAL on the file's timeline was flushed here, as the ledger or the slot remembers. */
async function acknowledgedOn(
  file: SegmentFile,
  o: WalReceiverOptions,
  connection: ReplicationConnection,
  server: ServerState,
  ledger: Ledger,
): Promise<bigint> {
  const { timeline, flushedLsn = 0n } = ledger.state;
  const recorded = timeline === file.timeline ? flushedLsn : 0n;
  if (o.slot === undefined) return recorded;
  const { restartLsn = 0n } = await readSlot(connection, o.slot, { ensure: false });
  const fork = timelineEnd(server.history, file.timeline);
  if (fork !== undefined && restartLsn > fork) return recorded > fork ? recorded : fork;
  return restartLsn > recorded ? restartLsn : recorded;
}

/**
 * Scans for the newest segment on the server's lineage. After a failover the tail that only the old
 * primary had may reach further than what its successor has sent yet: from there nothing goes on.
 */
async function scanForStart(
  directory: string,
  server: ServerState,
  ledger: Ledger,
  fs: FileSystem,
) {
  const { segmentSize, history } = server;
  const usable = ({ timeline, segment }: SegmentName): boolean => {
    const fork = timelineEnd(history, timeline);
    return fork === undefined || segmentStart(segment, segmentSize) < fork;
  };
  const scan = await scanDirectory(directory, segmentSize, { usable, fs });
  if (scan.newest || !scan.segments.length) return scan;
  // Only such a tail is here: it leads to the fork, unless more is known.
  const known = ledger.state.timeline;
  const forked = known === undefined || timelineEnd(history, known) !== undefined;
  return forked ? scanDirectory(directory, segmentSize, { fs }) : scan;
}

/** True if a complete file of every segment from `from` up to the newest is there. */
function reaches(segments: readonly SegmentFile[], newest: SegmentFile, from: bigint): boolean {
  const complete = new Set(segments.filter((s) => !s.partial).map((s) => s.segment));
  for (let n = from; n < newest.segment; n += 1n) if (!complete.has(n)) return false;
  return true;
}

function startEntries(
  ledger: Ledger,
  server: ServerState,
  start: StartPoint,
  refused: Refusal | undefined,
): LedgerEntry[] {
  const { state } = ledger;
  const { systemId, segmentSize } = server;
  const { lsn, timeline, gap } = start;
  const entries: LedgerEntry[] = [];
  if (state.systemId === undefined || state.version !== VERSION) {
    entries.push({ type: 'open', systemId, segmentSize, version: VERSION });
  }
  if (gap) entries.push({ type: 'gap', ...gap, timeline });
  // What is known of a later timeline stays known while WAL of its ancestor comes once more.
  const again = refused && state.timeline !== undefined && timeline < state.timeline;
  if (!again && (state.timeline !== timeline || gap || state.end === undefined)) {
    const why = gap ? 'accepted gap' : start.reason === 'local' ? 'switch' : start.reason;
    entries.push({ type: 'timeline', timeline, start: lsn, why });
  }
  return entries;
}
