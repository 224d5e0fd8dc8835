import type { ArchiveKeys } from '../../archive/places/open-archive.js';
import type { ServerState } from '../../server/server-state.js';
import { WorkingThread } from '../../threads.js';
import { historyFileName, segmentFileName, segmentStart } from '../../wal/file-name.js';
import { judgeHistory } from '../../wal/history-file.js';
import {
  isInHistory,
  type TimelineHistory,
  type TimelineSwitch,
  timelineAt,
} from '../../wal/timeline.js';
import type {
  BackfillAnswer,
  BackfillFailure,
  BackfillJob,
  BackfillLook,
  BackfillPlace,
  BackfillWork,
} from './work.js';

/** The server's way: what WAL of another archive has to lie on. */
export type Way = Pick<ServerState, 'systemId' | 'segmentSize' | 'history'>;

/** A segment that was taken from another archive. */
export interface BackfilledSegment {
  /** Its bare name. */
  name: string;
  timeline: number;
  segment: bigint;
}

/** The segment of a number on a server's way: that of the timeline that its last byte is on. */
export function segmentOnWay({ history, segmentSize }: Way, segment: bigint): BackfilledSegment {
  const timeline = timelineAt(history, segmentStart(segment + 1n, segmentSize) - 1n);
  return { name: segmentFileName(timeline, segment, segmentSize), timeline, segment };
}

/**
 * Reads and takes in a thread of its own: what is checked there, and every sync, would hold up the
 * acknowledgements of a receiver.
 */
export class BackfillThread {
  readonly #thread = new WorkingThread<BackfillJob, BackfillAnswer>('receive/backfill/worker.js');
  #work: BackfillWork | undefined;

  async run(job: BackfillJob): Promise<BackfillAnswer> {
    if (this.#thread.isPossible) return this.#thread.run(job);
    const { BackfillWork } = await import('./work.js');
    this.#work ??= new BackfillWork();
    return this.#work.run(job);
  }

  async close(): Promise<void> {
    await this.#work?.close();
    await this.#thread.close();
  }
}

/** What was found in another archive, proved to follow the server's way. */
export interface OtherWal {
  /** True if it has the segment, and the history of its timeline. */
  has(segment: BackfilledSegment): boolean;
  /** It is an archive, and not what is there before one is. */
  begun: boolean;
  /** The ancestors of the server's timeline, with the contents of their history files. */
  histories: readonly (readonly [timeline: number, content: string])[];
}

/** Another archive, from which a receiving directory is filled. */
export class OtherArchive {
  readonly place: string;
  readonly #directory: string;
  readonly #keys: ArchiveKeys;
  readonly #thread: BackfillThread;

  constructor(place: string, directory: string, keys: ArchiveKeys, thread: BackfillThread) {
    this.place = place;
    this.#directory = directory;
    this.#keys = keys;
    this.#thread = thread;
  }

  /** What it has, or why that cannot be told, or must not be used. */
  async look(way: Way): Promise<OtherWal | BackfillFailure> {
    const answer = await this.#thread.run({ ...this.#of(way), ask: 'look' });
    if (answer.state === 'failed') return answer;
    const { segments, histories, begun } = answer as BackfillLook;
    const onWay = new Map<number, string>();
    for (const [timeline, content] of histories) {
      if (!isInHistory(way.history, timeline)) continue;
      const judged = judgeHistory(
        historyFileName(timeline),
        timeline,
        Buffer.from(content, 'latin1'),
      );
      // Without it nothing is known of that timeline there, so nothing is taken of it.
      if (judged.state === 'damaged') continue;
      if (!isSameHistory(judged.history, way.history)) {
        const message = `timeline ${timeline} of ${this.place} is not the server's timeline ${timeline}: their histories differ`;
        return { state: 'failed', message, refused: true };
      }
      onWay.set(timeline, content);
    }
    return {
      begun,
      has: ({ name, timeline }) => segments.has(name) && (timeline === 1 || onWay.has(timeline)),
      // That of its own timeline is had from the server itself.
      histories: [...onWay].filter(([timeline]) => timeline !== way.history.timeline),
    };
  }

  /** Takes a segment, or a history file of that content, unless the same is here. */
  async take(
    way: Way,
    name: string,
    content?: string,
  ): Promise<Exclude<BackfillAnswer, BackfillLook>> {
    const job = { ...this.#of(way), ask: 'take' as const, name };
    const answer = await this.#thread.run(content === undefined ? job : { ...job, content });
    return answer as Exclude<BackfillAnswer, BackfillLook>;
  }

  #of({ systemId }: Way): BackfillPlace {
    const place = { place: this.place, directory: this.#directory };
    return { ...place, keys: this.#keys, systemId };
  }
}

/** True if a timeline has the ancestors that the server's history gives it. */
function isSameHistory({ timeline, ancestors }: TimelineHistory, server: TimelineHistory): boolean {
  const own = server.ancestors.filter((a) => a.timeline < timeline);
  const same = (a: TimelineSwitch, i: number) =>
    a.timeline === ancestors[i]?.timeline && a.end === ancestors[i]?.end;
  return own.length === ancestors.length && own.every(same);
}
