import { acceptedGapState, type GapState } from '../archive/accepted-gap.js';
import type { Catalog, SegmentGap } from '../archive/catalog.js';
import { missingEnd } from '../archive/catalog-lineage.js';
import type { Finding } from '../archive/findings.js';
import { LEDGER_FILE } from '../archive/ledger.js';
import { formatLsn } from '../lsn.js';
import { historyFileName, segmentFileName, segmentOf } from '../wal/file-name.js';
import { majorOfMagic } from '../wal/page.js';
import type { TimelineHistory } from '../wal/timeline.js';
import type { Scope } from './plan.js';

/** What names, history files and ledger tell before any WAL is read. */
export function catalogFindings(catalog: Catalog, scope: Scope = {}): Finding[] {
  return [
    ...ledgerFindings(catalog, scope),
    ...gapFindings(catalog, scope),
    ...historyFindings(catalog, scope),
    ...branchFindings(catalog, scope),
    ...strayFindings(catalog),
    ...versionFindings(catalog),
  ];
}

const inScope = (scope: Scope, timeline: number, to: bigint): boolean =>
  (scope.timeline === undefined || scope.timeline === timeline) &&
  (scope.since === undefined || to > scope.since);

const GAP_HINT: Readonly<Record<GapState, string>> = {
  between: 'It was accepted; a backup from before it cannot be recovered beyond it.',
  before: 'It was accepted; all WAL that is kept is from behind it.',
  filled: 'A recovery can pass it.',
};

function ledgerFindings(catalog: Catalog, scope: Scope): Finding[] {
  const { ledger, ledgerProblem } = catalog;
  const findings: Finding[] = [];
  if (ledgerProblem) {
    findings.push({
      severity: 'error',
      code: 'ledger-damaged',
      file: LEDGER_FILE,
      message: ledgerProblem.detail
        ? `${ledgerProblem.message}: ${ledgerProblem.detail}`
        : ledgerProblem.message,
      hint: ledgerProblem.hint ?? 'Without it WAL missing at the end of the archive is not seen.',
    });
  }
  for (const gap of ledger?.gaps ?? []) {
    if (!inScope(scope, gap.timeline, gap.to)) continue;
    const state = acceptedGapState(gap, catalog);
    const what = state === 'filled' ? 'was missing, and is here again' : 'is missing';
    findings.push({
      severity: state === 'between' ? 'warning' : 'info',
      code: 'accepted-gap',
      file: LEDGER_FILE,
      lsn: gap.from,
      message: `WAL from ${formatLsn(gap.from)} to ${formatLsn(gap.to)} ${what} (${gap.why})`,
      hint: GAP_HINT[state],
    });
  }
  for (const { lsn, timeline, why } of ledger?.damages ?? []) {
    if (!inScope(scope, timeline, lsn + 1n)) continue;
    findings.push({
      severity: 'info',
      code: 'known-damage',
      file: LEDGER_FILE,
      lsn,
      message: `WAL on timeline ${timeline} was bad when it was received, and stored: ${why}`,
      hint: 'If it is not among the other findings it was received again since.',
    });
  }
  const end = missingEnd(catalog.timelines, catalog.segmentSize, ledger);
  if (end && inScope(scope, end.timeline, end.to)) findings.push(missingEndFinding(catalog, end));
  const first = ledger?.lineage[0];
  const begins = first && catalog.timelines.find((t) => t.segments.length > 0)?.ranges[0]?.from;
  if (first && begins !== undefined && begins > first.start && scope.since === undefined) {
    findings.push({
      severity: 'info',
      code: 'starts-later',
      file: LEDGER_FILE,
      lsn: begins,
      message: `the archive begins at ${formatLsn(begins)}; receiving began at ${formatLsn(first.start)}`,
      hint: 'Older WAL was removed; backups from before cannot be recovered.',
    });
  }
  return findings;
}

function missingEndFinding({ segmentSize }: Catalog, { timeline, from, to }: SegmentGap): Finding {
  return {
    severity: 'error',
    code: 'missing-end',
    file: segmentFileName(timeline, segmentOf(from, segmentSize), segmentSize),
    lsn: from,
    message: `WAL from ${formatLsn(from)} to ${formatLsn(to)} was received and is not here`,
    hint: 'Put the removed files back, or receive the WAL again from the server.',
  };
}

function gapFindings(catalog: Catalog, scope: Scope): Finding[] {
  const { segmentSize } = catalog;
  return catalog.gaps.flatMap(({ timeline, from, to, accepted, beside }): Finding[] => {
    if (accepted || !inScope(scope, timeline, to)) return [];
    const end = segmentOf(to - 1n, segmentSize);
    const count = end + 1n - segmentOf(from, segmentSize);
    const last = segmentFileName(timeline, end, segmentSize);
    const what = count === 1n ? 'one segment is' : `${count} segments, up to ${last}, are`;
    return [
      {
        severity: beside ? 'info' : 'error',
        code: 'gap',
        file: segmentFileName(timeline, segmentOf(from, segmentSize), segmentSize),
        lsn: from,
        message: `${what} missing: WAL from ${formatLsn(from)} to ${formatLsn(to)}`,
        hint: beside
          ? 'Only recovery to a timeline beside the one that is received needs it.'
          : 'Recovery stops here: put the missing files back, or take a new base backup.',
      },
    ];
  });
}

function historyFindings(catalog: Catalog, scope: Scope): Finding[] {
  const findings: Finding[] = [];
  for (const { name, timeline, problem, history } of catalog.histories) {
    if (scope.timeline !== undefined && scope.timeline !== timeline) continue;
    if (problem) {
      findings.push({
        severity: 'error',
        code: 'history-damaged',
        file: name,
        message: `${problem.message}: ${problem.detail}`,
        hint: 'Recovery to this timeline fails. Get it again: from pg_wal of the server, or another archive.',
      });
    }
    for (const other of catalog.histories) {
      if (!history || !other.history || other.timeline >= timeline) continue;
      const ancestors = history.ancestors.filter((a) => a.timeline < other.timeline);
      const descends = history.ancestors.some((a) => a.timeline === other.timeline);
      if (!descends || describe({ timeline, ancestors }) === describe(other.history)) continue;
      findings.push({
        severity: 'error',
        code: 'history-conflict',
        file: name,
        message: `${describe({ timeline, ancestors })}, but in ${other.name} ${describe(other.history)}`,
        hint: 'One of them is of another server that was promoted from the same parent.',
      });
    }
  }
  for (const { timeline, segments } of catalog.timelines) {
    if (timeline === 1 || segments.length === 0) continue;
    if (scope.timeline !== undefined && scope.timeline !== timeline) continue;
    if (catalog.histories.some((h) => h.timeline === timeline)) continue;
    findings.push({
      severity: 'warning',
      code: 'history-missing',
      file: historyFileName(timeline),
      message: `timeline ${timeline} has segments here, but no history file`,
      hint: 'Recovery to this timeline needs it: copy it from pg_wal of the server.',
    });
  }
  return findings;
}

/** Timelines beside the one that is received. */
function branchFindings({ timelines, ledger }: Catalog, scope: Scope): Finding[] {
  return timelines.flatMap(({ timeline, history, beside }): Finding[] => {
    if (!beside || (scope.timeline !== undefined && scope.timeline !== timeline)) return [];
    const file = historyFileName(timeline);
    const left = history?.ancestors.at(-1);
    const place = left && { lsn: left.end };
    const from = left ? `, which left timeline ${left.timeline} at ${formatLsn(left.end)},` : '';
    if (beside === 'abandoned') {
      const message = `timeline ${timeline}${from} is a branch that was abandoned: the archive goes on with timeline ${ledger?.timeline}`;
      const hint = `Recovery goes there only with recovery_target_timeline = '${timeline}'.`;
      return [{ severity: 'info', code: 'abandoned-branch', file, ...place, message, hint }];
    }
    const message = `timeline ${timeline}${from} was never received here, and receiving goes on with timeline ${ledger?.timeline}; recovery to the latest timeline would follow it`;
    const hint = `If a clone pushed it, move ${file.slice(0, 8)}* out of the archive. If it is the new primary's, let the receiver connect to that.`;
    return [{ severity: 'warning', code: 'unfollowed-timeline', file, ...place, message, hint }];
  });
}

function describe({ ancestors }: TimelineHistory): string {
  if (ancestors.length === 0) return 'no ancestors';
  return ancestors.map((a) => `timeline ${a.timeline} ends at ${formatLsn(a.end)}`).join(', ');
}

function strayFindings(catalog: Catalog): Finding[] {
  return catalog.strays.map(({ name, kind }) => {
    if (kind === 'temporary') {
      return {
        severity: 'info',
        code: 'temporary-file',
        file: name,
        message: 'a file that was not finished, or is being written',
        hint: 'If no receiver runs it can be removed.',
      };
    }
    const what = {
      file: 'not a file of a WAL archive',
      directory: 'a directory in a WAL archive',
      irregular: 'has the name of WAL, but is no regular file',
    };
    return {
      severity: 'warning',
      code: 'stray-file',
      file: name,
      message: what[kind],
      hint: 'Move it away: tools that read the archive may stumble over it.',
    };
  });
}

function versionFindings({ magic }: Catalog): Finding[] {
  if (magic === undefined || majorOfMagic(magic) !== undefined) return [];
  return [
    {
      severity: 'warning',
      code: 'unknown-version',
      file: '',
      message: `WAL of an unknown PostgreSQL version (page magic 0x${magic.toString(16).toUpperCase()})`,
      hint: 'Its structure and checksums were checked, flags that are new in it were not.',
    },
  ];
}
