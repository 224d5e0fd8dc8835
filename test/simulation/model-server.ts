import { ServerError, WalRemovedError } from '../../src/errors.js';
import { formatLsn, type Lsn } from '../../src/lsn.js';
import type { ServerState } from '../../src/server/server-state.js';
import { segmentFileName } from '../../src/wal/file-name.js';
import { parseTimelineHistory, rootHistory } from '../../src/wal/timeline.js';
import { SEGMENT, SYSTEM_ID, TimelineWal } from './model-wal.js';
import type { Random } from './random.js';
import type { Setting } from './setting.js';

const FIRST = 5 * SEGMENT;

/** A PostgreSQL server as a receiver sees it: timelines, a slot, WAL that it removes. */
export class ModelServer {
  /** From timeline 1 to the current one. */
  readonly lineage: TimelineWal[] = [new TimelineWal(1, FIRST)];
  /** WAL below is gone. */
  oldestKept = FIRST;
  /** The slot's restart_lsn: the flush position that was last reported. */
  restartLsn: number | undefined;
  /** Without a slot it keeps all WAL, as with a large wal_keep_size. */
  private readonly hasSlot: boolean;
  private readonly random: Random;

  constructor(random: Random, { slot }: Pick<Setting, 'slot'>) {
    this.random = random;
    this.hasSlot = slot !== 'none';
    this.grow(random.size(2 * SEGMENT));
  }

  get current(): TimelineWal {
    return this.lineage.at(-1) as TimelineWal;
  }

  timeline(id: number): TimelineWal | undefined {
    return this.lineage.find((t) => t.id === id);
  }

  /** Where a timeline was left; undefined for the current one. */
  endOf(id: number): number | undefined {
    return this.lineage[this.lineage.findIndex((t) => t.id === id) + 1]?.fork;
  }

  /** A status reply was taken: the slot moves. */
  flushedTo(lsn: number): void {
    if (this.hasSlot) this.restartLsn = lsn;
  }

  grow(bytes: number): void {
    this.current.grow(bytes, this.random);
  }

  /** Removes what the slot does not hold, in whole segments. */
  checkpoint(): void {
    if (this.restartLsn === undefined) return;
    const held = this.restartLsn;
    this.oldestKept = Math.max(this.oldestKept, held - (held % SEGMENT));
  }

  /** A standby takes over; `lost`: roughly so many of the last bytes had not reached it. */
  promote(lost: number): void {
    const parent = this.current;
    const wanted = Math.max(parent.end - lost, this.oldestKept);
    if (!parent.ends.some((e) => e.at <= wanted)) return;
    const id = parent.id + 1 + this.random.below(2);
    const child = new TimelineWal(id, wanted, parent);
    this.lineage.push(child);
    const begin = child.fork - (child.fork % SEGMENT);
    this.oldestKept = Math.min(this.oldestKept, begin);
    this.flushedTo(Math.min(this.restartLsn ?? begin, child.fork));
    this.grow(this.random.size(SEGMENT / 4));
  }

  historyText(id: number): string {
    return this.lineage
      .filter((t) => t.id < id)
      .map((t) => `${t.id}\t${formatLsn(BigInt(this.endOf(t.id) as number))}\tno reason\n`)
      .join('\n');
  }

  state(): ServerState {
    const timeline = this.current.id;
    const text = this.historyText(timeline);
    return {
      systemId: SYSTEM_ID,
      timeline,
      flushLsn: BigInt(this.current.end) as Lsn,
      segmentSize: SEGMENT,
      fileMode: 0o600,
      history: timeline > 1 ? parseTimelineHistory(timeline, text) : rootHistory(timeline),
      historyFile: timeline > 1 ? Buffer.from(text) : undefined,
    };
  }

  /** What START_REPLICATION refuses, in the words of walsender.c. */
  checkStart(id: number, start: number): TimelineWal {
    const wal = this.timeline(id);
    const where = formatLsn(BigInt(start));
    const end = this.endOf(id) ?? wal?.end ?? 0;
    if (!wal || start > end) {
      throw new ServerError(`requested starting point ${where} on timeline ${id} is not here`);
    }
    if (start < this.oldestKept) {
      const file = segmentFileName(id, BigInt(Math.floor(start / SEGMENT)), SEGMENT);
      const message = `requested WAL segment ${file} has already been removed`;
      throw new WalRemovedError(message, { sqlstate: '58P01', file });
    }
    return wal;
  }
}
