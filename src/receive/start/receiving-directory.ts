import { join } from 'node:path';
import { type AgainEntry, Ledger, type LedgerEntry } from '../../archive/ledger.js';
import { comesAgain } from '../../archive/ledger-entry.js';
import { removeLeftovers } from '../../archive/leftovers.js';
import { ARCHIVE_KEY } from '../../archive/store-keys.js';
import type { ReplicationConnection } from '../../connection/connection.js';
import { StorageError, UsageError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import { type FileSystem, nodeFileSystem } from '../../files/file-system.js';
import type { Lsn } from '../../lsn.js';
import { VERSION } from '../../package.js';
import type { StreamEnd } from '../../protocol/replication.js';
import { isLostFile } from '../../server/server-history.js';
import type { ServerState } from '../../server/server-state.js';
import { floorToSegment, segmentFileName, segmentOf } from '../../wal/file-name.js';
import { isInHistory, parentTimeline, type TimelineHistory } from '../../wal/timeline.js';
import type { ChosenStart, RefusedWal } from './decide.js';
import { findStart, type OpenOptions, type StartOptions } from './find-start.js';
import { ancestorHistory, checkFork, ensureHistoryFile, type Fork } from './history-files.js';
import type { StartPoint } from './start-point.js';

/**
 * The receiving directory as one connection finds it: scanned, proved to be the server's, with its
 * ledger open and a start chosen.
 */
export class ReceivingDirectory {
  readonly server: ServerState;
  readonly ledger: Ledger;
  readonly start: StartPoint;
  /** The start is the end of the newest file, and the ledger has complete segments behind it. */
  readonly completeBeyond: boolean;
  /** End of the segment at the start if it lacks only its name, and the slot cannot be asked. */
  readonly unproved: Lsn | undefined;
  readonly fs: FileSystem;
  private readonly directory: string;
  private readonly sync: boolean;
  private readonly refused: RefusedWal | undefined;
  /** What the start adds to the ledger: with the first WAL, so that a refused one leaves no trace. */
  private unrecorded: LedgerEntry[];

  private constructor(
    server: ServerState,
    ledger: Ledger,
    { start, again, completeBeyond, unproved }: ChosenStart,
    o: StartOptions,
    fs: FileSystem,
  ) {
    this.directory = o.directory;
    this.sync = o.sync !== false;
    this.refused = again;
    this.fs = fs;
    this.server = server;
    this.ledger = ledger;
    this.start = start;
    this.completeBeyond = completeBeyond;
    this.unproved = unproved;
    this.unrecorded = startEntries(ledger, server, start, again);
  }

  /** @throws everything that `chooseStart` throws, TimelineConflictError, StorageError */
  static async open(
    o: StartOptions,
    connection: ReplicationConnection,
    server: ServerState,
    options: OpenOptions,
  ): Promise<ReceivingDirectory> {
    const { warn, fs = nodeFileSystem } = options;
    const sync = o.sync !== false;
    const mode = server.fileMode;
    await refuseStore(o.directory, fs);
    await removeLeftovers(o.directory, fs);
    const ledger = await Ledger.open(o.directory, { create: true, mode, sync, fs });
    if (!ledger) throw new StorageError('could not create the ledger', { path: o.directory });
    try {
      const chosen = await findStart({ o, connection, server, ledger, fs }, options);
      for (const w of chosen.start.warnings) warn('WK_START', w);
      return new ReceivingDirectory(server, ledger, chosen, o, fs);
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

  /**
   * Notes, durably and before anything of them is received, the complete segments from `start` on of
   * which no partial is here: what one lacks that is made from now on was never in it.
   */
  async noteAgain(start: Lsn, timeline: number): Promise<void> {
    const { state } = this.ledger;
    const { segmentSize } = this.server;
    const isHere = (lsn: Lsn): boolean => {
      const name = segmentFileName(timeline, segmentOf(lsn, segmentSize), segmentSize);
      return this.fs.sizeSync(join(this.directory, `${name}.partial`)) !== undefined;
    };
    if (state.timeline !== timeline) return;
    const again: AgainEntry[] = [];
    for (let from = start; from < (state.completeLsn ?? 0n); ) {
      const to = (from + BigInt(segmentSize)) as Lsn;
      const last = again.at(-1);
      const missing = !comesAgain(state, from) && !isHere(from);
      if (missing && last?.to === from) last.to = to;
      else if (missing) again.push({ type: 'again', from, to, timeline });
      from = to;
    }
    if (again.length > 0) await this.ledger.append(...again);
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
   * Notes what the server says comes after a timeline.
   * @throws ProtocolError if the history of the next timeline says otherwise
   */
  async follow(
    connection: ReplicationConnection,
    timeline: number,
    end: Extract<StreamEnd, { kind: 'timeline' }>,
  ): Promise<{ lsn: Lsn; timeline: number }> {
    // Nothing protects this answer on its way, and what is noted is believed from now on.
    await this.history(connection, end.timeline, { parent: timeline, lsn: end.startLsn });
    const lsn = floorToSegment(end.startLsn, this.server.segmentSize);
    const to = { timeline: end.timeline, start: lsn, why: 'switch', parent: timeline };
    await this.record({ type: 'timeline', ...to });
    return { lsn, timeline: end.timeline };
  }

  /** The history of a timeline, whose file is stored here from then on. */
  async history(
    connection: ReplicationConnection,
    timeline: number,
    fork?: Fork,
  ): Promise<TimelineHistory> {
    const { server, fs, directory, sync } = this;
    const known = timeline === server.timeline ? server.historyFile : undefined;
    const options = { mode: server.fileMode, sync, fs, known, fork };
    try {
      return await ensureHistoryFile(connection, directory, timeline, options);
    } catch (e) {
      if (!isLostFile(e) || !isInHistory(server.history, timeline)) throw e;
      // That of the server's own timeline tells of its ancestors as well.
      const history = ancestorHistory(server.history, timeline);
      checkFork(history, fork);
      return history;
    }
  }

  close(): Promise<void> {
    return this.ledger.close();
  }
}

function startEntries(
  ledger: Ledger,
  server: ServerState,
  start: StartPoint,
  refused: RefusedWal | undefined,
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
    const parent = parentTimeline(server.history, timeline);
    const of = parent === undefined ? {} : { parent };
    entries.push({ type: 'timeline', timeline, start: lsn, why, ...of });
  }
  return entries;
}

/** Nobody looks for segments beside the objects of a store. @throws UsageError */
async function refuseStore(directory: string, fs: FileSystem): Promise<void> {
  const kind = await fs.kind(join(directory, ARCHIVE_KEY)).catch((e) => {
    throw storageError('look at', join(directory, ARCHIVE_KEY), e);
  });
  if (kind === undefined) return;
  throw new UsageError(`"${directory}" is a store, and not for receiving into`, {
    path: directory,
    hint: 'Receive into a directory of its own, and have "walkeep receive --store" or "walkeep ship" bring the WAL into the store.',
  });
}
