import type { Lsn } from '../../lsn.js';
import { majorOfMagic } from '../../wal/page.js';
import type { RecordKinds } from '../../wal/record.js';
import type { TimelineHistory } from '../../wal/timeline.js';
import { WalVerifier } from '../../wal/verifier.js';
import type { Archive } from '../archive.js';
import type { ArchiveOptions } from '../places/open-archive.js';
import { PackedRecords } from './packed.js';

/** One file that has a whole segment. */
export interface WholeSegment {
  start: Lsn;
  name: string;
}

/** Segments that lie one behind the other, to be read apart from the rest. Can be sent to a thread. */
export interface RunJob {
  place: string;
  keys: ArchiveOptions;
  segmentSize: number;
  systemId: bigint;
  timeline: number;
  history: TimelineHistory;
  kinds: RecordKinds;
  segments: readonly WholeSegment[];
  /** The one behind them, into which their last record may reach. */
  follow: WholeSegment;
}

/** What a run has, if all in it is as it should be. */
export interface RunResult {
  /**
   * All was read and is good, and so is what the last record and the first one behind the run have of
   * the segment that follows. Where it is not, what is wrong is for another to say.
   */
  clean: boolean;
  /** The records that begin in the run, see `PackedRecords`. */
  packed: Uint8Array;
  /** Transactions of which no more was found than that they ended: see `NOTED`. */
  ended: Int32Array;
  major: number | undefined;
}

export const NOT_CLEAN: RunResult = {
  ...{ clean: false, packed: new Uint8Array(0), ended: new Int32Array(0), major: undefined },
};

/** Reads a run. What cannot be read makes it one that is not clean. */
export async function readRun(
  archive: Archive,
  job: RunJob,
  options: { readAhead: boolean },
): Promise<RunResult> {
  const { segmentSize, systemId, timeline, history, segments, follow } = job;
  const packed = new PackedRecords(job.kinds, follow.start);
  const startLsn = segments[0]!.start;
  const verifier = new WalVerifier({ startLsn, segmentSize, systemId, timeline, history }, packed);
  /** Feeds a segment until `enough`; false if less of it is good. */
  const feed = (name: string, enough: () => boolean): Promise<boolean> =>
    archive.segment(name, async (stored) => {
      if (stored.partial) return false;
      let done = false;
      const take = (chunk: Uint8Array): boolean => {
        const fault = verifier.feed(chunk);
        // In the same breath: others may walk over other WAL until the next piece is here.
        packed.noteEnded();
        if (fault || packed.isIncomplete) return false;
        done = enough();
        return !done;
      };
      const from = verifier.position;
      await stored.read(segmentSize, take, options);
      if (verifier.fault || packed.isIncomplete) return false;
      return done || verifier.position === from + BigInt(segmentSize);
    });
  try {
    for (const { name } of segments) {
      if (!(await feed(name, () => false))) return NOT_CLEAN;
    }
    // The first record that begins behind the border proves that the two sides belong together.
    let reached: Lsn | undefined;
    let joined = false;
    const enough = (): boolean => {
      const end = verifier.validEnd;
      joined = reached !== undefined && end > reached;
      if (reached === undefined && end > follow.start) reached = end;
      return joined;
    };
    if (!(await feed(follow.name, enough)) || !joined) return NOT_CLEAN;
  } catch {
    return NOT_CLEAN;
  }
  const { ended } = packed;
  return { clean: true, packed: packed.take(), ended, major: majorOfMagic(verifier.magic ?? 0) };
}
