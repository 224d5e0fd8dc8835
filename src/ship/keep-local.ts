import { readAllProgress } from '../archive/shipping/all-progress.js';
import { isShipped, type LocalSegment } from '../archive/shipping/local-segments.js';
import { fsyncDir } from '../files/durable.js';
import type { KeepLocal } from './options.js';
import type { ShipSource, Snapshot } from './source.js';

/** Segments before the newest one that stay, whatever is asked: a receiver starts from there. */
const LEAD_IN = 2n;

interface Local extends LocalSegment {
  files: { name: string; size: number }[];
  size: number;
  modified: number;
}

/** What keeping less needs to know. */
export interface Keeping {
  source: ShipSource;
  /** The directory that the source is. */
  directory: string;
  /** Where the progress of all that ship from it is kept. */
  state: string;
  keep: KeepLocal;
  /** True if each place that is shipped to answered for a segment. */
  has(segment: LocalSegment): boolean;
  /** The same, asked there and now: a place may have lost what it had. */
  stillHas(segment: LocalSegment): Promise<boolean>;
  removed(file: { name: string; size: number }): void;
}

/**
 * Removes segments that are older or more than is to be kept, and that every place has. Oldest first,
 * up to the first that must stay: whenever it ends, what is left has no hole. Stays what a receiver
 * starts from, what a place lacks that another process ships to, and all that is unfinished.
 * @returns true if more could go that is not noted as shipped yet
 * @throws StorageError
 */
export async function removeShipped(snapshot: Snapshot, keeping: Keeping): Promise<boolean> {
  const { source, directory, state, keep, stillHas, removed } = keeping;
  if (!snapshot.identity || snapshot.complete.length === 0) return false;
  const candidates = await removable(snapshot, keeping);
  if (candidates.length === 0) return false;
  const others = await readAllProgress(state);
  let total = keep.size === undefined ? 0 : await sizeOf(source, snapshot.complete);
  let any = false;
  let more = false;
  for (const segment of candidates) {
    const local = await look(source, segment);
    const tooMuch = keep.size !== undefined && total > keep.size;
    const tooOld = keep.age !== undefined && Date.now() - local.modified > keep.age;
    if (!(tooMuch || tooOld)) break;
    // Once more, of what is known now: this is the last copy here.
    more = !(await stillHas(segment)) || !others.every((p) => isShipped(p.timelines, segment));
    if (more) break;
    for (const file of local.files) {
      await source.archive.remove([file.name]);
      any = true;
      removed(file);
    }
    total -= local.size;
  }
  if (any) await fsyncDir(directory);
  return more;
}

/** From the oldest on, those that no receiver needs and all places have. */
async function removable(snapshot: Snapshot, { source, has }: Keeping): Promise<LocalSegment[]> {
  const { complete, partial } = snapshot;
  const newest = complete.at(-1)!.segment;
  let bound = newest - LEAD_IN;
  // An unfinished segment that a receiver may go on with needs what is before it.
  for (const { segment, left } of partial) {
    if (!left && segment - LEAD_IN < bound) bound = segment - LEAD_IN;
  }
  const ledger = await source.archive.ledger();
  const size = BigInt(snapshot.identity!.segmentSize);
  if (ledger?.end !== undefined && ledger.end / size - LEAD_IN < bound) {
    bound = ledger.end / size - LEAD_IN;
  }
  const stays = complete.findIndex((segment) => segment.segment >= bound || !has(segment));
  return complete.slice(0, stays < 0 ? complete.length : stays);
}

async function look(source: ShipSource, segment: LocalSegment): Promise<Local> {
  const files = await Promise.all(
    segment.names.map(async (name) => ({
      name,
      size: await source.archive.segment(name, (file) => file.size()),
    })),
  );
  const size = files.reduce((sum, file) => sum + file.size, 0);
  return { ...segment, files, size, modified: await source.modified(segment) };
}

async function sizeOf(source: ShipSource, segments: readonly LocalSegment[]): Promise<number> {
  let total = 0;
  for (const segment of segments) {
    const looked = await look(source, segment).catch(() => undefined);
    total += looked?.size ?? 0;
  }
  return total;
}
