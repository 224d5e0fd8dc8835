import type { Lsn } from '../lsn.js';
import type { WalFaultKind } from '../wal/fault.js';

/** `error`: WAL is missing or bad. `warning`: look at it. `info`: known, or as it should be. */
export type Severity = 'error' | 'warning' | 'info';

/** What is wrong; stable, for programs. Those of WAL content are the kinds of WalFault. */
export type FindingCode =
  | WalFaultKind
  // The directory.
  | 'gap'
  | 'accepted-gap'
  | 'missing-end'
  | 'known-damage'
  | 'starts-later'
  | 'ledger-damaged'
  | 'history-damaged'
  | 'history-missing'
  | 'history-conflict'
  | 'abandoned-branch'
  | 'unfollowed-timeline'
  | 'stray-file'
  | 'temporary-file'
  | 'unknown-version'
  // A file.
  | 'unreadable'
  | 'not-checked'
  | 'wrong-size'
  | 'compression-damaged'
  | 'trailing-garbage'
  | 'foreign-cluster'
  | 'wrong-segment'
  | 'duplicate'
  | 'duplicate-differs'
  | 'partial-inside'
  | 'not-renamed'
  | 'torn-tail'
  | 'flushed-damaged'
  // A base backup.
  | 'backup-damaged'
  | 'backup-chain-broken'
  | 'backup-unfinished'
  | 'backup-without-wal'
  | 'backup-foreign'
  | 'backup-page'
  | 'backup-not-checked';

/** One thing that a check of an archive found. */
export interface Finding {
  severity: Severity;
  code: FindingCode;
  /** Bare file name; of what is missing the name that it should have. */
  file: string;
  lsn?: Lsn;
  /** What is the case, with the numbers. One line, no full stop. */
  message: string;
  /** What it means or what to do, one sentence. */
  hint: string;
}

/** Two findings with the same key are one: neighbouring checks meet at the same fault. */
export function findingKey(f: Finding): string {
  return `${f.file} ${f.code} ${f.lsn ?? ''}`;
}

/** Order of a report: by file, which is by timeline and position, then by position in it. */
export function byPlace(a: Finding, b: Finding): number {
  if (a.file !== b.file) return a.file < b.file ? -1 : 1;
  const x = a.lsn ?? 0n;
  const y = b.lsn ?? 0n;
  return x < y ? -1 : x > y ? 1 : 0;
}
