import type { DirectoryEntry } from '../files/file-system.js';
import {
  byCompression,
  parseSegmentFileName,
  parseStoredName,
  type SegmentName,
  unreadableFormOf,
} from '../wal/file-name.js';
import { BACKUPS, INDEX, INTENT, KEEP, LEASE } from './backups/keys.js';

/** A segment file of an archive. */
export interface SegmentFile extends SegmentName {
  /** Bare file name. */
  name: string;
  /** Size on disk in bytes; known only once `checkSegment` looked at it. */
  size?: number;
  /** Why the file cannot be taken for its segment; absent if it can, or was not looked at. */
  problem?: 'incorrect size' | 'damaged';
}

/** A timeline history file of an archive. */
export interface HistoryFile {
  name: string;
  timeline: number;
}

/** Something in an archive's directory that is no part of it. */
export interface StrayEntry {
  name: string;
  /** `temporary`: what a write that did not finish left. `irregular`: a name of WAL, but no file. */
  kind: 'file' | 'temporary' | 'directory' | 'irregular';
}

/** What an archive holds, by names alone. */
export interface Listing {
  /** Of segment files in whatever form, ascending. */
  segments: string[];
  /** Lowest timeline first. */
  histories: HistoryFile[];
  /** Names of backup history files. */
  backups: string[];
  /** Of segments and histories in forms that cannot be read, and the name without what is behind. */
  unreadable: { name: string; base: string }[];
  /** In the order of their names; those in unreadable forms are among them. */
  strays: StrayEntry[];
}

/** Directories that a server keeps in pg_wal. */
const SERVER_DIRECTORIES: readonly string[] = ['archive_status', 'summaries'];

/** And those that base backups and the index lie in. */
const OWN_DIRECTORIES = [BACKUPS, KEEP, LEASE, INTENT, INDEX].map((key) => key.slice(0, -1));

/**
 * Sorts out what the entries of an archive's directory are. Dotfiles are ours, or none of it. A name
 * that is a link stands for the file that it leads to: old segments may lie on another disk.
 */
export function sortOut(entries: readonly DirectoryEntry[]): Listing {
  const found: Listing = { segments: [], histories: [], backups: [], unreadable: [], strays: [] };
  const stray = (name: string, kind: StrayEntry['kind']) => found.strays.push({ name, kind });
  for (const { name, kind } of entries) {
    if (name.startsWith('.')) continue;
    const stored = parseStoredName(name);
    if (stored?.kind === 'backup') {
      if (kind === 'file' || kind === 'link') found.backups.push(name);
      continue;
    }
    // A link that leads nowhere is there all the same: whoever reads it says so.
    if (stored && kind !== 'file' && kind !== 'link') {
      stray(name, 'irregular');
    } else if (stored?.kind === 'segment') {
      found.segments.push(name);
    } else if (stored) {
      found.histories.push({ name, timeline: stored.timeline });
    } else if (kind === 'directory') {
      const known = SERVER_DIRECTORIES.includes(name) || OWN_DIRECTORIES.includes(name);
      if (!known) stray(name, 'directory');
    } else {
      stray(name, name.endsWith('.tmp') ? 'temporary' : 'file');
      const base = unreadableFormOf(name);
      if (base !== undefined) found.unreadable.push({ name, base });
    }
  }
  found.segments.sort();
  found.backups.sort();
  found.histories.sort((a, b) => a.timeline - b.timeline);
  found.strays.sort((a, b) => (a.name < b.name ? -1 : 1));
  return found;
}

/**
 * The segment files among ascending names, newest first. Left out are those that no segment of this
 * size can have.
 */
export function segmentFiles(names: readonly string[], segmentSize: number): SegmentFile[] {
  const files: SegmentFile[] = [];
  // From the last on: what is in order already costs next to nothing to sort.
  for (let i = names.length - 1; i >= 0; i--) {
    const name = names[i] as string;
    const parsed = parseSegmentFileName(name, segmentSize);
    if (parsed && parsed.timeline > 0) files.push({ name, ...parsed });
  }
  return files.sort(newestFirst);
}

/**
 * The one order of segment files: newest first, by the rule of pg_receivewal.c (FindStreamingStart),
 * which puts complete files before partial ones; of those that it ranks equal the best to read.
 */
export function newestFirst(a: SegmentName, b: SegmentName): number {
  if (a.segment !== b.segment) return a.segment > b.segment ? -1 : 1;
  if (a.timeline !== b.timeline) return b.timeline - a.timeline;
  if (a.partial !== b.partial) return a.partial ? 1 : -1;
  return byCompression(a.compression, b.compression);
}
