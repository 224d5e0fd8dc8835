import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { storageError } from '../../files/durable.js';
import { nodeFileSystem } from '../../files/file-system.js';
import type { Lsn } from '../../lsn.js';
import { sortOut } from '../listing.js';
import { readAllProgress } from './all-progress.js';
import { contiguousPosition, isShipped, localSegments } from './local-segments.js';
import type { HeldFile, ShipProgress, ShipTrouble } from './progress.js';

/** How far a directory was shipped to one place, and how far that is behind. */
export interface ShipStatus {
  place: string;
  /** Of the archive there. */
  archiveId: string;
  /** Up to here the place has all that the directory has; absent before anything was shipped. */
  position?: { timeline: number; lsn: Lsn };
  /** What the place lacks of whole segments. */
  lag: {
    segments: number;
    /** Of WAL. */
    bytes: number;
    /** Since the oldest of them was complete; 0 if there is none. */
    seconds: number;
  };
  /** A process ships there now, as far as can be seen. */
  running: boolean;
  /** How it last went; of the process that is running, or of the last one. */
  state: ShipProgress['state'];
  trouble?: ShipTrouble;
  /** Files that are not sent since they are damaged. */
  held: HeldFile[];
  /** When the process last noted anything. */
  updated: Date;
  /** Where that is kept. */
  directory: string;
}

/**
 * How far a directory was shipped, one entry for each place that it was ever shipped to. Also tells
 * while no process ships.
 * @param state the directory of `--state`, if there is one
 * @throws StorageError
 */
export async function readShipProgress(
  directory: string,
  state = directory,
): Promise<ShipStatus[]> {
  const kept = await readAllProgress(state);
  if (kept.length === 0) return [];
  const entries = await nodeFileSystem.readdir(directory).catch((e) => {
    throw storageError('open directory', directory, e);
  });
  const listing = sortOut(entries);
  const found: ShipStatus[] = [];
  for (const progress of kept) {
    const { place, archiveId, running, trouble, held, updated, segmentSize } = progress;
    const complete = segmentSize > 0 ? localSegments(listing, segmentSize).complete : [];
    const lacking = complete.filter((segment) => !isShipped(progress.timelines, segment));
    const position = contiguousPosition(progress, lacking);
    found.push({
      place,
      archiveId,
      ...(position ? { position } : {}),
      lag: {
        segments: lacking.length,
        bytes: lacking.length * segmentSize,
        seconds: lacking[0] ? await ageOf(join(directory, lacking[0].names[0]!)) : 0,
      },
      running,
      state: progress.state,
      ...(trouble ? { trouble } : {}),
      held,
      updated: new Date(updated),
      directory: progress.directory,
    });
  }
  return found;
}

/** Seconds; 0 of one that is gone by now. */
async function ageOf(path: string): Promise<number> {
  const found = await stat(path).catch(() => undefined);
  return found ? Math.max(0, (Date.now() - found.mtimeMs) / 1000) : 0;
}
