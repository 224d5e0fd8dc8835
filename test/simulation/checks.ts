import { LEDGER_FILE } from '../../src/archive/ledger.js';
import {
  applyEntry,
  decodeLine,
  emptyState,
  type LedgerState,
} from '../../src/archive/ledger-entry.js';
import { formatLsn } from '../../src/lsn.js';
import { parseSegmentFileName, type SegmentName } from '../../src/wal/file-name.js';
import type { ModelServer } from './model-server.js';
import { SEGMENT, type TimelineWal, type WalRecord } from './model-wal.js';
import type { MovedFiles } from './moved-files.js';
import type { Inode, SimulatedDisk } from './simulated-disk.js';
import { storedContent } from './stored-content.js';

/** A promise that was broken. */
export class Violation extends Error {}

interface File extends SegmentName {
  name: string;
  inode: Inode;
  /** Moved away by another program. */
  moved: boolean;
}

/** Compared before and unchanged since: by file, the bytes that are those of a timeline. */
const known = new WeakMap<Inode, { version: number; wal: TimelineWal; length: number }>();

/** A byte that was damaged on its way, and the record that it is in. */
export interface Damage {
  at: number;
  record: WalRecord;
}

/**
 * A record's checksum is at hand only when its end came: until WAL up to there is acknowledged, on a
 * timeline that has the record, a damaged byte of it may be stored.
 */
function isOpen({ at, record }: Damage, server: ModelServer, promised: Promised): boolean {
  for (const [id, { from, flushed }] of promised) {
    if (flushed < record.end || from > record.begin) continue;
    if (server.timeline(id)?.recordAt(at)?.wal === record.wal) return false;
  }
  return true;
}

/** Positions that may hold other bytes than the server's. */
type Excused = ReadonlySet<number>;

/** Where damage may still be stored. */
export function openDamages(
  damages: Set<Damage>,
  server: ModelServer,
  promised: Promised,
): Set<number> {
  return placesOf(damages, (d) => isOpen(d, server, promised));
}

function placesOf(damages: Set<Damage>, which: (d: Damage) => boolean): Set<number> {
  return new Set([...damages].filter(which).map((d) => d.at));
}

/** True if the file begins with these `length` bytes of the timeline's segment. */
function holds(f: File, wal: TimelineWal, length: number, excused: Excused): boolean {
  const { inode, segment } = f;
  const content = storedContent(inode, f);
  if (content.length < length) return false;
  const before = known.get(inode);
  const fresh = before?.version === inode.version && before.wal === wal;
  if (fresh && before.length >= length) return true;
  const from = fresh ? before.length : 0;
  const expected = wal.segment(Number(segment));
  if (content.compare(expected, from, length, from, length) !== 0) {
    if (excused.size === 0) return false;
    const begin = Number(segment) * SEGMENT;
    for (let i = from; i < length; i++) {
      if (content[i] !== expected[i] && !excused.has(begin + i)) return false;
    }
    return true;
  }
  known.set(inode, { version: inode.version, wal, length });
  return true;
}

/** What was promised to the server, by timeline: the WAL from its first start to the last flush. */
export type Promised = Map<number, { from: number; flushed: number }>;

const lsn = (n: number) => formatLsn(BigInt(n));

/** Checks what is on the disk against what was promised. @throws Violation */
export function checkDisk(
  disk: SimulatedDisk,
  server: ModelServer,
  moved: MovedFiles,
  promised: Promised,
  damages: Set<Damage> = new Set(),
): void {
  const excused = openDamages(damages, server, promised);
  const files = segmentFiles(disk, moved);
  checkFinalNames(files, server, excused);
  checkPreallocated(disk);
  checkLedger(files, disk, server);
  for (const [id, { from, flushed }] of promised) {
    // A record that ended only on a later timeline is right there, and of no use here.
    const wal = server.timeline(id) as TimelineWal;
    const unfinished = placesOf(
      damages,
      ({ at, record }) => record.end > flushed && wal.recordAt(at)?.wal === record.wal,
    );
    const places = new Set([...excused, ...unfinished]);
    checkRecoverable(files, server, wal, from, flushed, places);
  }
}

function segmentFiles(disk: SimulatedDisk, moved: MovedFiles): File[] {
  const files: File[] = [];
  for (const place of [disk, moved]) {
    for (const [name, inode] of place.names) {
      const parsed = parseSegmentFileName(name, SEGMENT);
      if (parsed) files.push({ name, inode, moved: place === moved, ...parsed });
    }
  }
  return files;
}

/** Promise 2: complete and right under its final name. */
function checkFinalNames(files: File[], server: ModelServer, excused: Excused): void {
  for (const f of files) {
    if (f.partial) continue;
    const wal = server.timeline(f.timeline);
    const { length } = storedContent(f.inode, f);
    if (length !== SEGMENT) {
      throw new Violation(`${f.name} holds ${length} bytes under its final name`);
    }
    const n = Number(f.segment);
    if (!wal || wal.end < (n + 1) * SEGMENT || !holds(f, wal, SEGMENT, excused)) {
      throw new Violation(`${f.name} has other bytes than the server`);
    }
  }
}

/** The zero fill is synced before the file is used: it never comes back shorter. */
function checkPreallocated(disk: SimulatedDisk): void {
  for (const [name, inode] of disk.names) {
    if (inode.preallocated && parseSegmentFileName(name, SEGMENT) && inode.size !== SEGMENT) {
      throw new Violation(`${name} was preallocated and has ${inode.size} bytes`);
    }
  }
}

/** Promise 3: the ledger knows of every final name, for other tools may move the file away. */
function checkLedger(files: File[], disk: SimulatedDisk, server: ModelServer): void {
  const state = ledgerState(disk);
  // No ledger yet: the next start adopts what is here, finished or not.
  if (state.systemId === undefined && !files.some((f) => f.moved)) return;
  for (const f of files) {
    if (f.partial || (state.timeline ?? 0) > f.timeline) continue;
    const end = Number(f.segment + 1n) * SEGMENT;
    // Behind a failover's fork nothing is built on it.
    if (end > (server.endOf(f.timeline) ?? end)) continue;
    const reached = state.timeline === f.timeline ? Number(state.end ?? 0n) : 0;
    if (reached >= end) continue;
    throw new Violation(`${f.name} is there, but the ledger reaches only to ${lsn(reached)}`);
  }
}

function ledgerState(disk: SimulatedDisk): LedgerState {
  const state = emptyState();
  const text = disk.names.get(LEDGER_FILE)?.content.toString() ?? '';
  for (const line of text.split('\n').slice(0, -1)) {
    if (line.includes('\0')) break;
    for (const entry of decodeLine(line)) applyEntry(state, entry);
  }
  return state;
}

/** Promises 4 and 6: what was acknowledged is there, from the first byte to the last. */
function checkRecoverable(
  files: File[],
  server: ModelServer,
  wal: TimelineWal,
  from: number,
  to: number,
  excused: Excused,
): void {
  const history = server.lineage.filter((t) => t.id <= wal.id).map((t) => t.id);
  for (let at = from; at < to; at += SEGMENT) {
    const n = at / SEGMENT;
    const length = Math.min(SEGMENT, to - at);
    const expected = wal.segment(n);
    const found = files.some(
      (f) =>
        Number(f.segment) === n && history.includes(f.timeline) && holds(f, wal, length, excused),
    );
    if (found) continue;
    const there = files.filter((f) => Number(f.segment) === n).map((f) => describe(f, expected));
    throw new Violation(
      `acknowledged up to ${lsn(to)} on timeline ${wal.id}, but the WAL from ${lsn(at)} is not on the disk (${there.join(', ') || 'no file'})`,
    );
  }
}

function describe(f: File, expected: Buffer): string {
  const content = storedContent(f.inode, f);
  let same = 0;
  while (same < content.length && content[same] === expected[same]) same += 1;
  return `${f.name}${f.moved ? ' (moved away)' : ''}: right up to offset ${same}`;
}

/** Promise 3: no gap in the final names of the server's lineage up to its last full segment. */
export function checkContinuous(
  disk: SimulatedDisk,
  server: ModelServer,
  moved: MovedFiles,
  promised: Promised,
): void {
  const from = Math.min(...[...promised.values()].map((p) => p.from));
  const wal = server.current;
  const files = segmentFiles(disk, moved).filter((f) => !f.partial && server.timeline(f.timeline));
  for (let at = from; at + SEGMENT <= wal.end; at += SEGMENT) {
    const n = at / SEGMENT;
    if (files.some((f) => Number(f.segment) === n && holds(f, wal, SEGMENT, new Set()))) continue;
    throw new Violation(`a gap: no complete file for the segment at ${lsn(at)}`);
  }
}
