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
import {
  GROUP,
  parseStoredIndex,
  partsOfJoined,
  type StoredIndexedSegment,
  type StoredIndexGroup,
  timeOf,
} from './format.js';
import { groupKey, groupStart, type IndexPlace, indexPlace, joinedPlace } from './groups.js';
import { hasXid } from './xid-ranges.js';

const GZIP = Buffer.from([0x1f, 0x8b]);
/** Bytes that an object has at most: 32 segments of 1 GB full of commits have less. */
const MOST = 1 << 30;

/** Objects that are asked for at a time. */
const AT_ONCE = 32;
/** Joined ones are larger. */
const JOINED_AT_ONCE = 4;

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
  target: Target,
  { identities = async () => undefined, signal }: ReadFactsOptions = {},
): Promise<{ facts: (at: number) => SegmentFacts | undefined; notes: string[] }> {
  const wanted = wantedGroups(area, plan, from, to);
  const found = new Map<number, SegmentFacts>();
  const problems: WalkeepError[] = [];
  const problem = (e: unknown): void => {
    signal?.throwIfAborted();
    if (!isTrouble(e)) throw e;
    problems.push(e);
  };
  const there = await listed(area, wanted, signal).catch((e) => {
    problem(e);
    return new Set<string>();
  });
  const take = (bytes: Buffer, { place, slots }: Wanted, key: string): void => {
    const group = parseStoredIndex(bytes, key);
    requireOwn(group, place, plan, key);
    for (const [slot, at] of slots) {
      const segment = group.segments[slot];
      if (segment) found.set(at, factsOf(segment, target));
    }
  };
  const { joined, single } = jobsOf(wanted, there);
  await atOnce(JOINED_AT_ONCE, joined, async ([key, groups]) => {
    try {
      const bytes = await readPlain(area, key, await identities(), signal);
      const parts = bytes && partsOfJoined(bytes, key);
      for (const one of groups) {
        if (!parts) single.push(one);
        else take(parts[one.joined.at] as Buffer, one, key);
      }
    } catch (e) {
      signal?.throwIfAborted();
      if (!isTrouble(e)) throw e;
      // What it was joined of says the same, or what is wrong with it.
      const present = groups.filter((one) => there.has(one.key));
      single.push(...present);
      if (present.length < groups.length) problem(e);
    }
  });
  await atOnce(AT_ONCE, single, async (one) => {
    try {
      const bytes = await readPlain(area, one.key, await identities(), signal);
      if (bytes) take(bytes, one, one.key);
    } catch (e) {
      problem(e);
    }
  });
  const [first] = problems;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  return {
    facts: (at) => found.get(at),
    notes: first
      ? [`the WAL index does not help, WAL is read instead: ${first.message}${more}`]
      : [],
  };
}

type Target = Extract<RecoveryTarget, { kind: 'time' | 'xid' | 'name' }>;

/** A group that has segments of the way. */
interface Wanted {
  key: string;
  joined: { key: string; at: number };
  place: IndexPlace;
  slots: [slot: number, at: number][];
}

function wantedGroups({ prefix }: BackupArea, plan: Plan, from: number, to: number): Wanted[] {
  const wanted: Wanted[] = [];
  for (let at = from; at < to; at++) {
    const place = indexPlace(plan, at);
    if (!place) continue;
    const last = wanted.at(-1);
    if (last?.place.group === place.group) {
      last.slots.push([place.slot, at]);
      continue;
    }
    const joined = joinedPlace(prefix, place, plan.segmentSize);
    wanted.push({ key: groupKey(prefix, place), joined, place, slots: [[place.slot, at]] });
  }
  return wanted;
}

function factsOf({ times, xids, points }: StoredIndexedSegment, target: Target): SegmentFacts {
  const [, , min, max] = times ?? [];
  const holds =
    (target.kind === 'xid' && hasXid(xids, target.xid)) ||
    (target.kind === 'name' && points.some(([, , name]) => name === target.name));
  if (min === undefined || max === undefined) return { holds };
  return { times: { min: timeOf(min), max: timeOf(max) }, holds };
}

/** Of two and more groups of a joined object that is what is read: there are thousands of groups. */
function jobsOf(
  wanted: readonly Wanted[],
  there: ReadonlySet<string>,
): { joined: [key: string, groups: Wanted[]][]; single: Wanted[] } {
  const byJoined = new Map<string, Wanted[]>();
  for (const one of wanted) {
    const groups = byJoined.get(one.joined.key);
    if (groups) groups.push(one);
    else byJoined.set(one.joined.key, [one]);
  }
  const joined = [...byJoined].filter(([key, groups]) => {
    const isNeeded = groups.length > 1 || !there.has(groups[0]!.key);
    return there.has(key) && isNeeded;
  });
  const covered = new Set(joined.flatMap(([, groups]) => groups));
  const single = wanted.filter((one) => there.has(one.key) && !covered.has(one));
  return { joined, single };
}

/** Does what is in a list, also what is added meanwhile, so many at a time. */
async function atOnce<T>(most: number, list: T[], act: (one: T) => Promise<void>): Promise<void> {
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < list.length) await act(list[next++] as T);
  };
  await Promise.all(Array.from({ length: most }, work));
}

/** Those that are there, by one listing of each timeline. */
async function listed(
  { store, prefix }: BackupArea,
  wanted: readonly Wanted[],
  signal: AbortSignal | undefined,
): Promise<Set<string>> {
  const length = prefix.length + INDEX.length + 9;
  const folders = new Set(wanted.map(({ key }) => key.slice(0, length)));
  const there = new Set<string>();
  for (const folder of folders) {
    for await (const { key } of store.list(folder, { signal })) there.add(key);
  }
  return there;
}

/** Undefined if there is none (any more). @throws CorruptObjectError, EncryptedError */
export async function readGroup(
  area: BackupArea,
  key: string,
  identities: Identities | undefined,
  signal?: AbortSignal,
): Promise<StoredIndexGroup | undefined> {
  const parse = async (stored: Buffer) =>
    parseStoredIndex(await plainOf(stored, key, identities), key);
  return readWhole(area.store, key, parse, { signal });
}

/** Decrypted and decompressed. @throws as `readGroup` */
export async function readPlain(
  { store }: BackupArea,
  key: string,
  identities: Identities | undefined,
  signal?: AbortSignal,
): Promise<Buffer | undefined> {
  return readWhole(store, key, (stored) => plainOf(stored, key, identities), { signal });
}

/** What `updateIndex` made without recipients is read at once: there may be thousands. */
export async function plainOf(
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
