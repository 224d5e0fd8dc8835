import type { Lsn } from '../../lsn.js';
import { segmentFileName, segmentOf } from '../../wal/file-name.js';
import { indexKey, joinedKey } from '../backups/keys.js';
import type { Plan } from '../way/plan.js';
import { GROUP, JOINED } from './format.js';

/** A segment on a way that an index can tell of: a complete file, all of which is on the way. */
export interface IndexPlace {
  /** Whose file it is. */
  timeline: number;
  segment: bigint;
  /** Its place in its group. */
  slot: number;
  /** The 24 digits of the first segment of its group. */
  group: string;
}

/** Undefined where only a part of a segment is there, or belongs to the way. */
export function indexPlace({ segments, segmentSize }: Plan, at: number): IndexPlace | undefined {
  const { start, files } = segments[at]!;
  const [best] = files;
  if (!best || best.partial || best.end !== start + BigInt(segmentSize)) return undefined;
  const timeline = Number.parseInt(best.name.slice(0, 8), 16);
  const segment = segmentOf(start, segmentSize);
  const slot = Number(segment % BigInt(GROUP));
  const group = segmentFileName(timeline, segment - BigInt(slot), segmentSize);
  return { timeline, segment, slot, group };
}

/** LSN of the first segment of a group. */
export function groupStart({ segment, slot }: IndexPlace, segmentSize: number): Lsn {
  return ((segment - BigInt(slot)) * BigInt(segmentSize)) as Lsn;
}

export function groupKey(prefix: string, { group }: IndexPlace): string {
  return indexKey(prefix, group);
}

/** The key of the joined object that has a group, and the group's place in it. */
export function joinedPlace(
  prefix: string,
  { timeline, segment }: IndexPlace,
  segmentSize: number,
): { key: string; at: number } {
  const at = Number((segment / BigInt(GROUP)) % BigInt(JOINED));
  const first = segment - (segment % BigInt(GROUP * JOINED));
  return { key: joinedKey(prefix, segmentFileName(timeline, first, segmentSize)), at };
}
