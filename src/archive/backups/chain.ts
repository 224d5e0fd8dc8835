import type { BackupRecord } from '../../base/backup-record.js';
import { formatLsn } from '../../lsn.js';

/** What links a backup to the one that it is based on. */
export type ChainLink = Pick<
  BackupRecord,
  'id' | 'parent' | 'incrementalFrom' | 'systemId' | 'start'
>;

/** A backup with all that it is based on: itself first, the full one last. Or why there is none. */
export type Chain<T extends ChainLink> = { chain: T[] } | { broken: string };

/**
 * Follows what a backup is based on, down to a full one.
 * @param find undefined for one that is not there, or is not whole
 */
export function chainOf<T extends ChainLink>(
  backup: T,
  find: (id: string) => T | undefined,
): Chain<T> {
  const chain = [backup];
  for (let last = backup; last.parent !== undefined; ) {
    const parent = find(last.parent);
    const why = linkProblem(last, parent);
    if (!parent || why !== undefined) return { broken: why as string };
    if (chain.some(({ id }) => id === parent.id)) {
      return { broken: `"${parent.id}" is based on itself` };
    }
    chain.push(parent);
    last = parent;
  }
  return { chain };
}

/**
 * Why a backup cannot be put onto another one; undefined if it can. It has what changed since a point
 * of the WAL: with the files of any other point the result would be of two times.
 */
export function linkProblem(child: ChainLink, parent: ChainLink | undefined): string | undefined {
  const based = `"${child.parent}", which "${child.id}" is based on,`;
  if (!parent) return `${based} is not there or damaged`;
  if (parent.systemId !== child.systemId) return `${based} is of another cluster`;
  const from = child.incrementalFrom;
  const { lsn, timeline } = parent.start;
  if (!from || (from.lsn === lsn && from.timeline === timeline)) return undefined;
  return `${based} began at ${formatLsn(lsn)} on timeline ${timeline}, and not at ${formatLsn(from.lsn)} on timeline ${from.timeline}`;
}
