import { historyFileName } from '../../wal/file-name.js';
import type { Archive } from '../archive.js';

/** A segment's file as its name tells it. */
export interface NamedSegment {
  /** The first 8 of its 24 digits. */
  timeline: string;
  /** The other 16. */
  segment: string;
  /** It is not complete. */
  open: boolean;
}

/**
 * Tells whether a file is an end of the archive, where a receiver goes on: that of a segment that is
 * not complete and has no complete one behind it. Who removes WAL leaves these.
 * @param all that there are
 * @param asked of which that is to be told
 * @throws StorageError if the ledger cannot be read where it matters
 */
export async function endsOf(
  archive: Archive,
  all: readonly NamedSegment[],
  asked: readonly NamedSegment[],
): Promise<(file: NamedSegment) => boolean> {
  /** Of every timeline, its last complete segment. */
  const complete = new Map<string, string>();
  for (const { timeline, segment, open } of all) {
    if (!open && segment > (complete.get(timeline) ?? '')) complete.set(timeline, segment);
  }
  // Behind a partial file lies what is complete later on its timeline or on one that left it. That a
  // receiver goes on with has been left by none, whatever a clone has pushed.
  const goesOn = (file: NamedSegment, on: (timeline: string) => boolean): boolean =>
    [...complete].some(([t, segment]) => segment >= file.segment && on(t));
  const goesOnItself = (file: NamedSegment) => goesOn(file, (t) => t === file.timeline);
  const wasLeft = (file: NamedSegment) => goesOn(file, (t) => t > file.timeline);
  // Only there it matters: who cannot read the ledger of another removes all the same.
  const open = asked.filter((file) => file.open && !goesOnItself(file) && wasLeft(file));
  const received = open.length > 0 ? await receivedTimeline(archive) : undefined;
  return (file) =>
    file.open && !goesOnItself(file) && !(wasLeft(file) && file.timeline !== received);
}

/**
 * The timeline that the archive's receiver is on, as in names; undefined without a ledger.
 * @throws StorageError if that cannot be told
 */
async function receivedTimeline(archive: Archive): Promise<string | undefined> {
  const ledger = await archive.ledger();
  return ledger?.timeline === undefined ? undefined : historyFileName(ledger.timeline).slice(0, 8);
}
