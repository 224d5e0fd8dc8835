import { ParseError } from '../errors.js';
import { formatLsn, type Lsn, parseLsn } from '../lsn.js';
import { crc32c } from '../wal/crc32c.js';
import type { TimelineHistory } from '../wal/timeline.js';

/** Why the archive's lineage begins at a position or turns there. */
export type TimelineReason =
  | 'first start'
  | 'adopted'
  | 'slot'
  | 'switch'
  | 'accepted gap'
  | 'empty partial'
  | (string & {});

/** A receiver took the directory; the first entry of every ledger. */
export interface OpenEntry {
  type: 'open';
  systemId: bigint;
  /** Bytes. */
  segmentSize: number;
  /** Version of walkeep. */
  version: string;
  /** When it was recorded, ISO 8601; filled in if absent. So for every entry. */
  at?: string;
}

/** From `start` on the archive follows `timeline`. */
export interface TimelineEntry {
  type: 'timeline';
  timeline: number;
  start: Lsn;
  why: TimelineReason;
  /** What it branched off, by the server's history: the one followed before may be a sibling. */
  parent?: number;
  at?: string;
}

/** `complete`: segments are durable up to `lsn`. `flushed`: `lsn` was acknowledged. */
export interface PositionEntry {
  type: 'complete' | 'flushed';
  lsn: Lsn;
  timeline: number;
  at?: string;
}

/** WAL from `from` up to `to` is missing, and the operator accepted that. */
export interface GapEntry {
  type: 'gap';
  from: Lsn;
  to: Lsn;
  timeline: number;
  why: string;
  at?: string;
}

/** One fact about the archive. */
/** Bad WAL that was stored all the same (verify: warn). */
export interface DamageEntry {
  type: 'damage';
  lsn: Lsn;
  timeline: number;
  why: string;
  at?: string;
}

/**
 * Segments from `from` up to `to` were complete and are not in the directory any more, since other
 * programs move them away; they are received again. Until they are complete once more their files
 * hold less than what was acknowledged.
 */
export interface AgainEntry {
  type: 'again';
  from: Lsn;
  to: Lsn;
  timeline: number;
  at?: string;
}

export type LedgerEntry =
  | OpenEntry
  | TimelineEntry
  | PositionEntry
  | GapEntry
  | DamageEntry
  | AgainEntry;

const LSN_FIELDS: readonly string[] = ['lsn', 'start', 'from', 'to'];

/**
 * One line of the ledger, with its newline: `{"entries":[…],"crc":"xxxxxxxx"}`. Entries recorded
 * together share a line, so that a crash keeps all of them or none. LSNs are `X/X`, `crc` is the
 * CRC-32C (hex) of the same JSON text without it.
 */
export function encodeLine(entries: readonly LedgerEntry[]): string {
  const text = JSON.stringify({ entries }, (key, value) => {
    if (typeof value !== 'bigint') return value;
    return LSN_FIELDS.includes(key) ? formatLsn(value) : value.toString();
  });
  return `${text.slice(0, -1)},"crc":"${checksum(text)}"}\n`;
}

/** The entries of one line, without its newline. @throws ParseError if it is not intact */
export function decodeLine(line: string): LedgerEntry[] {
  const m = /^(.*),"crc":"([0-9a-f]{8})"\}$/.exec(line);
  const text = `${m?.[1]}}`;
  if (!m || checksum(text) !== m[2]) throw new ParseError('checksum does not match');
  // The check field vouches for what follows: only another version can have written it otherwise.
  let entries: unknown;
  try {
    ({ entries } = JSON.parse(text, (key, value) =>
      LSN_FIELDS.includes(key) ? parseLsn(value) : key === 'systemId' ? BigInt(value) : value,
    ));
  } catch (cause) {
    throw new ParseError('unreadable entry', { cause });
  }
  if (!Array.isArray(entries)) throw new ParseError('no entries');
  for (const entry of entries) checkEntry(entry);
  return entries;
}

/** What each entry must have, by type. */
const FIELDS: Readonly<Record<string, Record<string, 'bigint' | 'number' | 'string'>>> = {
  open: { systemId: 'bigint', segmentSize: 'number', version: 'string' },
  timeline: { timeline: 'number', start: 'bigint', why: 'string' },
  complete: { timeline: 'number', lsn: 'bigint' },
  flushed: { timeline: 'number', lsn: 'bigint' },
  gap: { timeline: 'number', from: 'bigint', to: 'bigint', why: 'string' },
  damage: { timeline: 'number', lsn: 'bigint', why: 'string' },
  again: { timeline: 'number', from: 'bigint', to: 'bigint' },
};

function checkEntry(entry: unknown): void {
  const values = (entry ?? {}) as Record<string, unknown>;
  const type = String(values.type);
  const fields = Object.hasOwn(FIELDS, type) ? FIELDS[type] : undefined;
  if (!fields) {
    throw new ParseError(`unknown entry ${JSON.stringify(values.type)}`, {
      hint: 'A newer walkeep wrote it; use that version.',
    });
  }
  for (const [name, kind] of Object.entries(fields)) {
    if (typeof values[name] !== kind) throw new ParseError(`"${type}" entry without "${name}"`);
  }
}

function checksum(text: string): string {
  return crc32c(Buffer.from(text)).toString(16).padStart(8, '0');
}

/** What all entries together say. */
export interface LedgerState {
  /** Undefined only before the first entry of a new ledger. */
  systemId: bigint | undefined;
  /** Bytes; 0 only before the first entry of a new ledger. */
  segmentSize: number;
  /** Version of walkeep that last opened it. */
  version: string;
  /** The timelines followed and from where, oldest first. */
  lineage: TimelineEntry[];
  /** End of the last complete segment on `timeline`. */
  completeLsn?: Lsn;
  /** Last acknowledged flush on `timeline`. */
  flushedLsn?: Lsn;
  /**
   * The archive is continuous up to here: the highest of `completeLsn`, `flushedLsn` and the start
   * of `timeline`. It can step back where a timeline begins below what its parent had reached.
   */
  end?: Lsn;
  /** Timeline of these positions, the newest of the lineage. */
  timeline?: number;
  /** `end` of every other timeline of the lineage, as it was when another was followed. */
  left: Map<number, Lsn>;
  gaps: GapEntry[];
  damages: DamageEntry[];
  /** What is received again on `timeline` and not complete yet. */
  again: AgainEntry[];
}

/** The state of a ledger without entries. */
export function emptyState(): LedgerState {
  const lists = { lineage: [], gaps: [], damages: [], again: [], left: new Map() };
  return { systemId: undefined, segmentSize: 0, version: '', ...lists };
}

/** Brings the state up to date with one more entry. */
export function applyEntry(state: LedgerState, entry: LedgerEntry): void {
  switch (entry.type) {
    case 'open':
      state.systemId = entry.systemId;
      state.segmentSize = entry.segmentSize;
      state.version = entry.version;
      break;
    case 'timeline':
      state.lineage.push(entry);
      follow(state, entry.timeline);
      state.end = higher(state.end, entry.start);
      break;
    case 'complete':
    case 'flushed': {
      // What is still reported of an ancestor lies before the positions of its child.
      if (state.timeline !== undefined && entry.timeline < state.timeline) break;
      follow(state, entry.timeline);
      const field = entry.type === 'complete' ? 'completeLsn' : 'flushedLsn';
      state[field] = higher(state[field], entry.lsn);
      state.end = higher(state.end, entry.lsn);
      if (entry.type === 'complete') state.again = restOf(state.again, entry.lsn);
      break;
    }
    case 'again':
      if (entry.timeline === state.timeline) state.again.push(entry);
      break;
    case 'gap':
      state.gaps.push(entry);
      break;
    case 'damage':
      state.damages.push(entry);
  }
}

/**
 * Positions count anew on another timeline: its parent may have been received beyond the fork, and
 * that WAL proves nothing about the child's.
 */
function follow(state: LedgerState, timeline: number): void {
  if (state.timeline === timeline) return;
  if (state.timeline !== undefined && state.end !== undefined) {
    state.left.set(state.timeline, higher(state.left.get(state.timeline), state.end));
  }
  state.timeline = timeline;
  delete state.completeLsn;
  delete state.flushedLsn;
  delete state.end;
  state.again = [];
}

/** What is received again, less what is complete by now. */
function restOf(again: readonly AgainEntry[], complete: Lsn): AgainEntry[] {
  return again
    .filter(({ to }) => to > complete)
    .map((entry) => (entry.from < complete ? { ...entry, from: complete } : entry));
}

/** True if what a file holds of the segment at `lsn` was begun anew since that was complete. */
export function comesAgain({ again }: LedgerState, lsn: bigint): boolean {
  return again.some(({ from, to }) => from <= lsn && lsn < to);
}

/** Up to where WAL of the newest timeline is stored for good: acknowledged, or in complete segments. */
export function storedUpTo({ flushedLsn, completeLsn }: LedgerState): Lsn | undefined {
  return completeLsn === undefined ? flushedLsn : higher(flushedLsn, completeLsn);
}

function higher(a: Lsn | undefined, b: Lsn): Lsn {
  return a === undefined || b > a ? b : a;
}

/** A timeline's entry and, if another follows, how far it was stored until then. */
function withEnd(
  { left }: LedgerState,
  entry: TimelineEntry,
  next: TimelineEntry | undefined,
): LedgerEntry[] {
  const { timeline } = entry;
  const lsn = left.get(timeline);
  if (!next || next.timeline === timeline || lsn === undefined) return [entry];
  return [entry, { type: 'flushed', lsn, timeline }];
}

/** True if the archive has followed a timeline, now or before. */
export function wasFollowed({ lineage }: LedgerState, timeline: number): boolean {
  return lineage.some((entry) => entry.timeline === timeline);
}

/**
 * The ancestors of a timeline as far as it followed them on the archive's lineage. The starts that it
 * knows are those of segments, not the forks. Undefined if it tells of none.
 */
export function lineageHistory(state: LedgerState, timeline: number): TimelineHistory | undefined {
  const { lineage } = state;
  const at = lineage.findIndex((entry) => entry.timeline === timeline);
  const entry = lineage[at];
  const parent =
    entry?.parent !== undefined && wasFollowed(state, entry.parent)
      ? entry.parent
      : lineage[at - 1]?.timeline;
  if (!entry || parent === undefined || parent >= timeline) return undefined;
  const ancestors = lineageHistory(state, parent)?.ancestors ?? [];
  return {
    timeline,
    ancestors: [...ancestors, { timeline: parent, end: entry.start, reason: '' }],
  };
}

/** Entries that say the same as all those the state was made of, for a compacted ledger. */
export function summarize(state: LedgerState): LedgerEntry[] {
  const { systemId, segmentSize, version, lineage, gaps, damages, timeline } = state;
  if (systemId === undefined) return [];
  const entries: LedgerEntry[] = [
    { type: 'open', systemId, segmentSize, version },
    ...lineage.flatMap((entry, i) => withEnd(state, entry, lineage[i + 1])),
    ...gaps,
    ...damages,
  ];
  if (timeline === undefined) return entries;
  if (state.completeLsn !== undefined) {
    entries.push({ type: 'complete', lsn: state.completeLsn, timeline });
  }
  if (state.flushedLsn !== undefined) {
    entries.push({ type: 'flushed', lsn: state.flushedLsn, timeline });
  }
  // Behind the position up to which all was complete once.
  return [...entries, ...state.again];
}
