import { gunzipSync } from 'node:zlib';
import type { Identities } from '../../codec/age/identities.js';
import { decodeBytes } from '../../codec/stages.js';
import { CorruptObjectError, type WalkeepError } from '../../errors.js';
import { readWhole } from '../../store/read-whole.js';
import type { BackupArea } from '../backups/area.js';
import { INDEX } from '../backups/keys.js';
import type { RecoveryTarget } from '../targets/target.js';
import type { SegmentFacts } from '../targets/way-marks.js';
import type { Plan } from '../way/plan.js';
import { GROUP, parseStoredIndex, type StoredIndexGroup, timeOf } from './format.js';
import { groupKey, groupStart, type IndexPlace, indexPlace } from './groups.js';
import { hasXid } from './xid-ranges.js';

const GZIP = Buffer.from([0x1f, 0x8b]);
/** Bytes that an object has at most: 32 segments of 1 GB full of commits have less. */
const MOST = 1 << 30;

/** Objects that are asked for at a time. */
const AT_ONCE = 32;

export interface ReadFactsOptions {
  identities?: (() => Promise<Identities | undefined>) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * What the index says of the segments of a way that matters for a target. It is an aid and no more:
 * what it lacks, or is damaged or locked in it, is left out, and said.
 * @param from and `to`: places in `plan.segments`, the last one not included
 * @throws the signal's reason
 */
export async function readFacts(
  area: BackupArea,
  plan: Plan,
  { from, to }: { from: number; to: number },
  target: Extract<RecoveryTarget, { kind: 'time' | 'xid' | 'name' }>,
  { identities = async () => undefined, signal }: ReadFactsOptions = {},
): Promise<{ facts: (at: number) => SegmentFacts | undefined; notes: string[] }> {
  const wanted = new Map<string, { place: IndexPlace; slots: [slot: number, at: number][] }>();
  for (let at = from; at < to; at++) {
    const place = indexPlace(plan, at);
    if (!place) continue;
    const key = groupKey(area.prefix, place);
    const known = wanted.get(key);
    if (known) known.slots.push([place.slot, at]);
    else wanted.set(key, { place, slots: [[place.slot, at]] });
  }
  const found = new Map<number, SegmentFacts>();
  const problems: WalkeepError[] = [];
  const problem = (e: unknown): void => {
    signal?.throwIfAborted();
    if (!isTrouble(e)) throw e;
    problems.push(e);
  };
  const there = await listed(area, wanted.keys(), signal).catch((e) => {
    problem(e);
    return [];
  });
  let next = 0;
  const work = async (): Promise<void> => {
    for (let key = there[next++]; key !== undefined; key = there[next++]) {
      const { place, slots } = wanted.get(key)!;
      try {
        const group = await readGroup(area, key, await identities(), signal);
        if (!group) continue;
        requireOwn(group, place, plan, key);
        for (const [slot, at] of slots) {
          const segment = group.segments[slot];
          if (!segment) continue;
          const [, , min, max] = segment.times ?? [];
          const { xids, points } = segment;
          const holds =
            (target.kind === 'xid' && hasXid(xids, target.xid)) ||
            (target.kind === 'name' && points.some(([, , name]) => name === target.name));
          const times =
            min === undefined || max === undefined
              ? {}
              : { times: { min: timeOf(min), max: timeOf(max) } };
          found.set(at, { ...times, holds });
        }
      } catch (e) {
        problem(e);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  const [first] = problems;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  return {
    facts: (at) => found.get(at),
    notes: first
      ? [`the WAL index does not help, WAL is read instead: ${first.message}${more}`]
      : [],
  };
}

/** Those of the keys that are there, by one listing of each timeline. */
async function listed(
  { store, prefix }: BackupArea,
  keys: Iterable<string>,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const wanted = new Set(keys);
  const folders = new Set([...wanted].map((key) => key.slice(0, prefix.length + INDEX.length + 9)));
  const there: string[] = [];
  for (const folder of folders) {
    for await (const { key } of store.list(folder, { signal })) {
      if (wanted.has(key)) there.push(key);
    }
  }
  return there;
}

/** Undefined if there is none (any more). @throws CorruptObjectError, EncryptedError */
export async function readGroup(
  { store }: BackupArea,
  key: string,
  identities: Identities | undefined,
  signal?: AbortSignal,
): Promise<StoredIndexGroup | undefined> {
  const stored = await readWhole(store, key, (bytes) => bytes, { signal });
  if (!stored) return undefined;
  return parseStoredIndex(await plainOf(stored, key, identities), key);
}

/** What `updateIndex` made without recipients is read at once: there may be thousands. */
async function plainOf(
  stored: Buffer,
  key: string,
  identities: Identities | undefined,
): Promise<Buffer> {
  if (!GZIP.equals(stored.subarray(0, GZIP.length))) {
    return Buffer.from((await decodeBytes(stored, { name: key, identities })).content);
  }
  try {
    return gunzipSync(stored, { maxOutputLength: MOST });
  } catch (cause) {
    throw new CorruptObjectError(`"${key}" cannot be decompressed`, { key, cause });
  }
}

/** @throws CorruptObjectError for one that belongs elsewhere */
function requireOwn(group: StoredIndexGroup, place: IndexPlace, plan: Plan, key: string): void {
  const { systemId, timeline, segmentSize, start, segments } = group;
  const own =
    (plan.systemId === undefined || systemId === plan.systemId) &&
    timeline === place.timeline &&
    segmentSize === plan.segmentSize &&
    start === groupStart(place, segmentSize) &&
    segments.length === GROUP;
  if (own) return;
  throw new CorruptObjectError(`"${key}" is the index of other WAL`, {
    key,
    hint: 'Remove it; "walkeep index" makes another one.',
  });
}

function isTrouble(e: unknown): e is WalkeepError {
  return typeof (e as { code?: unknown }).code === 'string' && e instanceof Error;
}
