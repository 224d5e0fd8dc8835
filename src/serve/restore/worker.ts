import type { RecoveryTarget } from '../../archive/targets/target.js';
import { formatLsn } from '../../lsn.js';
import type { NearPoint } from '../../restore/reach/near.js';
import { type Reached, reachTarget } from '../../restore/reach/reach.js';
import { parseTarget, targetWords } from '../../restore/target-text.js';
import { formatTimestamp, type TimestampTz } from '../../wal/records/timestamp.js';
import { storeEnvironment } from '../config/stores.js';
import { yieldToOthers } from '../low-priority.js';
import { reportOf } from '../status.js';
import type { Commit, NearTarget, PlanAnswer, PlanRequest, RestorePlanned } from './messages.js';

/** The process of one plan. It reads archives, and ends with its supervisor. */
function main(): void {
  process.once('disconnect', () => process.exit());
  yieldToOthers();
  process.once('message', async (request: PlanRequest) => {
    const answer = await plan(request).catch(
      (e): PlanAnswer => ({ state: 'failed', error: reportOf(e) }),
    );
    process.send?.(answer, undefined, undefined, () => process.exit());
  });
}

async function plan(request: PlanRequest): Promise<PlanAnswer> {
  const { places, timeline, backup } = request;
  const { target } = parseTarget(request.to, request.before);
  const identityFiles = [...new Set(places.flatMap(({ identityFile }) => identityFile ?? []))];
  const environments = new Map(places.map((one) => [one.place, storeEnvironment(one)]));
  const found = await reachTarget({
    ...{ places: places.map(({ place }) => place), target, timeline, backup },
    keys: { identityFiles },
    envOf: (place) => environments.get(place),
  });
  const plannedAt = new Date().toISOString();
  if ('reached' in found) {
    const plan = planned(found.reached, target.kind === 'latest');
    return { state: 'planned', plannedAt, plan };
  }
  const { refused, near, warnings } = found;
  return {
    ...{ state: 'refused', plannedAt, error: reportOf(refused), warnings: [...warnings] },
    ...(near.before ? { before: nearTarget(near.before) } : {}),
    ...(near.after ? { after: nearTarget(near.after) } : {}),
    timelines: near.timelines,
  };
}

function planned(reached: Reached, isLatest: boolean): RestorePlanned {
  const { backup, place, chain, exact, located, wal, timelines, lost, warnings } = reached;
  const { last, next } = located;
  return {
    backup: {
      ...{ id: backup.id, type: backup.parent === undefined ? 'full' : 'incremental', place },
      ...{ startedAt: backup.start.time, endedAt: backup.end.time },
      ...{ endLsn: formatLsn(backup.end.lsn), timeline: backup.end.timeline },
      ...{ bytes: backup.size, encrypted: backup.encrypted },
      version: `${Math.floor(backup.serverVersion / 10_000)}.${backup.serverVersion % 10_000}`,
      chain: chain.map(({ id }) => id),
      tablespaces: backup.tablespaces
        .filter(({ inPlace }) => !inPlace)
        .map(({ location }) => Buffer.from(location, 'latin1').toString('utf8')),
    },
    wal: {
      ...{ from: formatLsn(wal.from), to: formatLsn(wal.to), segments: wal.segments },
      ...{ first: wal.first, last: wal.last, bytes: Number(wal.to - wal.from) },
    },
    timelines: timelines.map(({ timeline, until }) => ({
      timeline,
      ...(until === undefined ? {} : { until: formatLsn(until) }),
    })),
    target: wordsOf(exact, backup.id),
    ...{ timeline: located.timeline, lsn: formatLsn(located.lsn), isLatest },
    ...(last ? { last: commitOf(last) } : {}),
    ...(next ? { next: commitOf(next) } : {}),
    lost: {
      ...(lost.commits === undefined ? {} : { commits: lost.commits }),
      ...(lost.last ? { last: commitOf(lost.last) } : {}),
      ...{ isTorn: lost.isTorn, segments: lost.segments },
      beside: lost.beside.map(({ timeline, from, last }) => ({
        ...{ timeline, from: formatLsn(from) },
        ...(last ? { last: commitOf(last) } : {}),
      })),
    },
    warnings: [...warnings],
  };
}

/** Of the backup's end there are as many as there are backups. */
function wordsOf(target: RecoveryTarget, backup: string): string[] {
  const words = targetWords(target);
  return target.kind === 'immediate' ? [...words, '--backup', backup] : words;
}

function nearTarget({ target, backup, timeline, lsn, time }: NearPoint): NearTarget {
  const [, to = ''] = targetWords(target);
  return {
    ...{ to, timeline, lsn: formatLsn(lsn) },
    ...(backup === undefined ? {} : { backup }),
    ...(time === undefined ? {} : { time: timeText(time) }),
  };
}

function commitOf({ lsn, time, xid }: { lsn: bigint; time: TimestampTz; xid?: number }): Commit {
  const text = { lsn: formatLsn(lsn as never), time: timeText(time) };
  return xid === undefined ? text : { ...text, xid };
}

function timeText(time: TimestampTz): string {
  return formatTimestamp(time).replace(' ', 'T').replace(/\+00$/, 'Z');
}

main();
