import { join } from 'node:path';
import type { ReplicationConnection } from '../connection/connection.js';
import { ProtocolError, StorageError } from '../errors.js';
import type { StreamEnd } from '../protocol/replication.js';
import { Ledger } from '../storage/ledger.js';
import { identify, type SegmentFile, scanDirectory } from '../storage/wal-directory.js';
import { VERSION } from '../version.js';
import { floorToSegment, segmentOf, segmentStart } from '../wal/file-name.js';
import { formatLsn, type Lsn } from '../wal/lsn.js';
import { checkHistories } from './history-files.js';
import type { WalReceiverOptions } from './options.js';
import { readSlot, type ServerState } from './server-state.js';
import { chooseStart, type StartInputs, type StartPoint } from './start-point.js';

type Warn = (code: string, message: string) => void;

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

  private constructor(
    server: ServerState,
    ledger: Ledger,
    start: StartPoint,
    atStart: readonly SegmentFile[],
  ) {
    this.server = server;
    this.ledger = ledger;
    this.start = start;
    this.atStart = atStart;
  }

  /** @throws everything that `chooseStart` throws, TimelineConflictError, StorageError */
  static async open(
    o: WalReceiverOptions,
    connection: ReplicationConnection,
    server: ServerState,
    warn: Warn,
  ): Promise<Archive> {
    const sync = o.sync !== false;
    const ledger = await Ledger.open(o.directory, { create: true, mode: server.fileMode, sync });
    if (!ledger) throw new StorageError('could not create the ledger', { path: o.directory });
    try {
      const { start, atStart } = await chooseFor(o, connection, server, ledger, warn);
      await recordStart(ledger, server, start);
      for (const w of start.warnings) warn('WK_START', w);
      return new Archive(server, ledger, start, atStart);
    } catch (e) {
      await ledger.close();
      throw e;
    }
  }

  /** LSN up to which bytes on this timeline were acknowledged, 0 if none were. */
  acknowledged(timeline: number): bigint {
    const { state } = this.ledger;
    return state.timeline === timeline ? (state.flushedLsn ?? 0n) : 0n;
  }

  /**
   * Checks what the server says comes after a timeline, and notes it.
   * @throws ProtocolError if it cannot follow
   */
  async follow(
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
    const lsn = floorToSegment(end.startLsn, this.server.segmentSize);
    await this.ledger.append({
      type: 'timeline',
      timeline: end.timeline,
      start: lsn,
      why: 'switch',
    });
    return { lsn, timeline: end.timeline };
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
  warn: Warn,
) {
  const { segmentSize } = server;
  const { directory } = o;
  const scan = await scanDirectory(directory, segmentSize);
  for (const w of scan.warnings) warn('WK_SCAN', w);
  const identity = await identify(directory, scan);
  const stored =
    ledger.state.systemId === undefined ? identity?.segmentSize : ledger.state.segmentSize;
  if (stored !== undefined && stored !== segmentSize && identity?.systemId === server.systemId) {
    throw new StorageError(
      `the directory holds segments of ${stored} bytes, the server makes them of ${segmentSize}`,
      { path: directory, expected: `${stored}`, actual: `${segmentSize}` },
    );
  }
  const { newest } = scan;
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
    if (ledgerEnd) {
      inputs.localReachesLedger = reaches(
        scan.segments,
        newest,
        segmentOf(ledgerEnd.lsn, segmentSize),
      );
    }
  }
  if (o.slot !== undefined && (!newest || o.ensureSlot)) {
    inputs.slot = await readSlot(connection, o.slot, o.ensureSlot ?? false);
  }
  // Identity first: histories of another cluster would be called a conflict.
  const start = chooseStart(inputs);
  await checkHistories(directory, server, [...timelines]);
  const segment = segmentOf(start.lsn, segmentSize);
  return { start, atStart: scan.segments.filter((s) => s.segment === segment) };
}

/** True if a complete file of every segment from `from` up to the newest is there. */
function reaches(segments: readonly SegmentFile[], newest: SegmentFile, from: bigint): boolean {
  const complete = new Set(segments.filter((s) => !s.partial).map((s) => s.segment));
  for (let n = from; n < newest.segment; n += 1n) if (!complete.has(n)) return false;
  return true;
}

async function recordStart(ledger: Ledger, server: ServerState, start: StartPoint): Promise<void> {
  const { state } = ledger;
  const { systemId, segmentSize } = server;
  if (state.systemId === undefined || state.version !== VERSION) {
    await ledger.append({ type: 'open', systemId, segmentSize, version: VERSION });
  }
  if (start.gap) {
    const { from, to, why } = start.gap;
    await ledger.append({ type: 'gap', from, to, timeline: start.timeline, why });
  }
  const moved = state.timeline !== start.timeline || start.gap || state.end === undefined;
  if (moved) {
    const why = start.gap ? 'accepted gap' : start.reason === 'local' ? 'switch' : start.reason;
    await ledger.append({ type: 'timeline', timeline: start.timeline, start: start.lsn, why });
  }
}

/** The path of a file in the directory. */
export function inDirectory(o: WalReceiverOptions, name: string): string {
  return join(o.directory, name);
}
