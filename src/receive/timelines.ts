import { ConnectionError, ProtocolError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import type { StreamEnd } from '../protocol/replication.js';
import type { StreamOutcome } from './stream.js';

/** A place in WAL. */
export interface WalPlace {
  lsn: Lsn;
  timeline: number;
}

/** What the server said when it ended a timeline. */
export type TimelineEnd = Extract<StreamEnd, { kind: 'timeline' }>;

/** What is done with one timeline after the other. */
export interface TimelineSteps {
  /** Streams one timeline. */
  stream(at: WalPlace): Promise<StreamOutcome>;
  /**
   * Where it goes on; undefined: not at all.
   * @param received up to where the timeline that ended was received
   * @throws ProtocolError if it cannot go on there
   */
  follow(at: WalPlace, received: Lsn, end: TimelineEnd): Promise<WalPlace | undefined>;
}

/** Where streaming stopped, and why: `declined` by `follow`. */
export interface Stopped extends WalPlace {
  reason: 'endpos' | 'signal' | 'declined';
}

/**
 * Streams from a place on, timeline after timeline, until a stop.
 * @throws ConnectionError the server shut down; ProtocolError it contradicts itself
 */
export async function followTimelines(
  start: WalPlace,
  endLsn: Lsn | undefined,
  steps: TimelineSteps,
): Promise<Stopped> {
  let at = start;
  for (;;) {
    const { timeline } = at;
    if (endLsn !== undefined && at.lsn > endLsn) return { ...at, reason: 'endpos' };
    const outcome = await steps.stream(at);
    const { lsn } = outcome;
    if (outcome.kind === 'stopped') return { lsn, timeline, reason: outcome.reason };
    const { end } = outcome;
    if (end.kind === 'shutdown') {
      throw new ConnectionError('replication stream was terminated before stop point', {
        lsn,
        hint: 'The server shut down.',
      });
    }
    checkEnd(timeline, lsn, end);
    const next = await steps.follow(at, lsn, end);
    if (!next) return { lsn, timeline, reason: 'declined' };
    at = next;
  }
}

/** A timeline that begins behind what was received would leave a hole. In pg_receivewal's words. */
function checkEnd(timeline: number, received: Lsn, end: TimelineEnd): void {
  if (end.timeline <= timeline) {
    throw new ProtocolError(
      `server reported unexpected next timeline ${end.timeline}, following timeline ${timeline}`,
    );
  }
  if (end.startLsn > received) {
    throw new ProtocolError(
      `server stopped streaming timeline ${timeline} at ${formatLsn(received)}, but reported next timeline ${end.timeline} to begin at ${formatLsn(end.startLsn)}`,
      { lsn: received },
    );
  }
}
