import { INDEX_COMPRESSION } from '../../base/base-index.js';
import { AGE_MAGIC } from '../../codec/age/age.js';
import type { Identities } from '../../codec/age/identities.js';
import type { Recipients } from '../../codec/age/recipients.js';
import { encodeBytes } from '../../codec/stages.js';
import { EncryptedError } from '../../errors.js';
import { contentOf } from '../../store/content.js';
import { readWhole } from '../../store/read-whole.js';
import { segmentFileName } from '../../wal/file-name.js';
import type { BackupArea } from '../backups/area.js';
import { INDEX } from '../backups/keys.js';
import type { Catalog } from '../catalog.js';
import { readMarks } from '../way/marks.js';
import { type Plan, planTimeline } from '../way/plan.js';
import { GROUP, type IndexedSegment, indexBytes, indexedSegment } from './format.js';
import { groupKey, groupStart, type IndexPlace, indexPlace, joinedPlace } from './groups.js';
import { isToBeJoined, joinGroups } from './join.js';

export interface UpdateIndexOptions {
  /** Whom what is stored is encrypted to. */
  recipients?: Recipients | undefined;
  /** What opens objects that are encrypted. */
  identities?: (() => Promise<Identities | undefined>) | undefined;
  /** Objects that are made at most, joined ones too. */
  limit?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Told of each object that was made. */
  onObject?: ((key: string) => void) | undefined;
}

export interface UpdatedIndex {
  /** Objects that were made, joined ones too. */
  created: number;
  /** That were there already. */
  present: number;
  /** That could be made, and were not, because of the limit. */
  left: number;
  /** First segments of groups with WAL that is not good, and why. */
  unsound: { segment: string; why: string }[];
}

/** The segments of one object, in their order. */
interface Group {
  key: string;
  plan: Plan;
  places: { at: number; place: IndexPlace }[];
}

/**
 * Makes the objects of the WAL index that an archive lacks, each of 32 segments that are all there,
 * complete and good. Nothing is replaced; who else makes the same at the same time does no harm.
 * @throws EncryptedError if WAL is encrypted and the index would not be; what a store or an archive
 *   throws, the signal's reason
 */
export async function updateIndex(
  catalog: Catalog,
  area: BackupArea,
  options: UpdateIndexOptions = {},
): Promise<UpdatedIndex> {
  const { recipients, limit = Number.POSITIVE_INFINITY, signal, onObject } = options;
  const result: UpdatedIndex = { created: 0, present: 0, left: 0, unsound: [] };
  /** Bytes by key. */
  const there = new Map<string, number>();
  for await (const { key, size } of area.store.list(`${area.prefix}${INDEX}`, { signal })) {
    there.set(key, size);
  }
  const count = (key: string, created: boolean): void => {
    result[created ? 'created' : 'present']++;
    if (created) onObject?.(key);
  };
  const groups = groupsOf(catalog, area);
  for (const group of groups) {
    signal?.throwIfAborted();
    if (there.has(group.key)) {
      result.present++;
      continue;
    }
    if (result.created >= limit) {
      result.left++;
      continue;
    }
    if (!recipients) await refusePlain(area, group, signal);
    const read = await readGroupMarks(group, signal);
    if ('why' in read) {
      result.unsound.push(read);
      continue;
    }
    const { plan, places } = group;
    const { place } = places[0]!;
    const bytes = indexBytes({
      systemId: plan.systemId ?? 0n,
      timeline: place.timeline,
      segmentSize: plan.segmentSize,
      start: groupStart(place, plan.segmentSize),
      segments: read.segments,
    });
    const stored = await encodeBytes(bytes, { codec: INDEX_COMPRESSION, recipients });
    const { created } = await area.store.create(group.key, contentOf(stored), { signal });
    there.set(group.key, stored.length);
    count(group.key, created);
  }
  for (const [key, keys] of joinedOf(groups, area)) {
    signal?.throwIfAborted();
    if (there.has(key)) {
      result.present++;
      continue;
    }
    if (!isToBeJoined(keys.map((one) => there.get(one)))) continue;
    if (result.created >= limit) {
      result.left++;
      continue;
    }
    const created = await joinGroups(area, key, keys, options);
    if (created !== undefined) count(key, created);
  }
  return result;
}

/** The groups of each joined object, in the order of their segments. */
function joinedOf(groups: readonly Group[], { prefix }: BackupArea): Map<string, string[]> {
  const joined = new Map<string, string[]>();
  for (const { key, plan, places } of [...groups].sort((a, b) => (a.key < b.key ? -1 : 1))) {
    const into = joinedPlace(prefix, places[0]!.place, plan.segmentSize);
    joined.set(into.key, [...(joined.get(into.key) ?? []), key]);
  }
  return joined;
}

/**
 * Groups of which the last segment is there and complete, and all before it, from the first of the
 * group, or from the first that the timeline has. The newest first: older WAL is asked for less.
 */
function groupsOf(catalog: Catalog, area: BackupArea): Group[] {
  const groups: Group[] = [];
  for (const { timeline, segments } of catalog.timelines) {
    const first = segments[0]?.segment;
    if (first === undefined) continue;
    const plan = planTimeline(catalog, timeline);
    let places: Group['places'] = [];
    for (let at = 0; at < plan.segments.length; at++) {
      const place = indexPlace(plan, at);
      const before = places.at(-1)?.place;
      if (!place || place.timeline !== timeline) {
        places = [];
        continue;
      }
      const begins = place.slot === 0 || place.segment === first;
      if (begins) places = [{ at, place }];
      else if (before?.segment === place.segment - 1n) places.push({ at, place });
      else places = [];
      if (place.slot === GROUP - 1 && places.length > 0) {
        groups.unshift({ key: groupKey(area.prefix, place), plan, places });
        places = [];
      }
    }
  }
  return groups;
}

async function readGroupMarks(
  { plan, places }: Group,
  signal: AbortSignal | undefined,
): Promise<{ segments: (IndexedSegment | undefined)[] } | { segment: string; why: string }> {
  const segments = new Array<IndexedSegment | undefined>(GROUP).fill(undefined);
  for (const { at, place } of places) {
    const { marks, damage, torn } = await readMarks(plan, at, signal);
    const segment = segmentFileName(place.timeline, place.segment, plan.segmentSize);
    if (damage) return { segment, why: damage.message };
    if (torn) return { segment, why: 'its last record ends in a segment that is not here yet' };
    segments[place.slot] = indexedSegment(marks);
  }
  return { segments };
}

/** @throws EncryptedError if the WAL of a group is encrypted */
async function refusePlain(
  { store, prefix }: BackupArea,
  { plan, places }: Group,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (prefix === '') return;
  const { place } = places[0]!;
  const name = segmentFileName(place.timeline, place.segment, plan.segmentSize);
  const range = { start: 0, end: AGE_MAGIC.length };
  const key = `${prefix}wal/${name.slice(0, 8)}/${name}`;
  const isSealed = (begin: Buffer): boolean => AGE_MAGIC.equals(begin);
  if (!(await readWhole(store, key, isSealed, { range, signal }))) return;
  throw new EncryptedError(`the WAL in "${store.place}" is encrypted, and its index would not be`, {
    path: store.place,
    hint: 'Give its recipients: the index tells when transactions ended.',
  });
}
