import { acceptedGapState, isBehind } from '../archive/accepted-gap.js';
import type { SegmentGap } from '../archive/catalog.js';
import { formatLsn } from '../lsn.js';
import type { ServerFacts } from '../server/server-facts.js';
import { formatBinaryBytes, formatSeconds } from '../units.js';
import { historyFileName, segmentStart } from '../wal/file-name.js';
import { commonTimeline, isInHistory, timelineEnd } from '../wal/timeline.js';
import { type ArchiveFacts, type DiskSpace, isAhead, type Permissions } from './archive-facts.js';
import { type CheckResult, judge } from './result.js';

/** Whether directory and server are of one cluster, and one goes on where the other is. */
export function checkCluster(server: ServerFacts, archive: ArchiveFacts): CheckResult[] {
  const { ok, warn, fail } = judge('cluster');
  const { systemId, segmentSize } = archive.catalog;
  const { state } = server;
  if (systemId === undefined) {
    return [warn('the directory has no WAL yet', 'Start "walkeep receive".')];
  }
  if (systemId !== state.systemId) {
    return [
      fail(
        `the directory is of cluster ${systemId}, the server of ${state.systemId}`,
        'Use another directory for this server, or connect to the right one.',
      ),
    ];
  }
  if (segmentSize !== state.segmentSize) {
    const text = `the directory has segments of ${formatBinaryBytes(segmentSize)}, the server makes them of ${formatBinaryBytes(state.segmentSize)}`;
    return [fail(text, 'Use another directory for this server.')];
  }
  const strangers = checkStrangers(server, archive);
  return [ok(`system identifier ${systemId}`), checkTimeline(server, archive), ...strangers];
}

/** Timelines that a receiver never followed, and that the server does not know either. */
function checkStrangers({ state }: ServerFacts, { catalog }: ArchiveFacts): CheckResult[] {
  return catalog.timelines.flatMap(({ timeline, beside }) => {
    if (beside !== 'unfollowed' || isInHistory(state.history, timeline)) return [];
    return [
      judge('timeline').warn(
        `timeline ${timeline} was never received, and is not the server's; recovery to the latest timeline would follow it`,
        `If a clone pushed it, move ${historyFileName(timeline).slice(0, 8)}* out of the directory.`,
      ),
    ];
  });
}

function checkTimeline({ state }: ServerFacts, { catalog, end }: ArchiveFacts): CheckResult {
  const { ok, warn, fail } = judge('timeline');
  const received = catalog.timelines.filter((t) => t.segments.length > 0 && !t.beside);
  const newest = Math.max(catalog.ledger?.timeline ?? 0, ...received.map((t) => t.timeline));
  const history = catalog.timelines.find((t) => t.timeline === newest)?.history;
  if (newest > state.timeline) {
    return fail(
      `the archive has timeline ${newest}, the server is on ${state.timeline}`,
      'It is an old primary, or a standby that has not followed: connect to the new one.',
    );
  }
  const common = history && commonTimeline(history, state.history);
  if (!isInHistory(state.history, newest) && common !== undefined) {
    return warn(
      `the archive is on timeline ${newest}, beside the server's timeline ${state.timeline}: both left timeline ${common}`,
      `If this is the right server, start the receiver: it follows, and keeps timeline ${newest} as a branch.`,
    );
  }
  if (!end || !isInHistory(state.history, newest)) {
    return fail(
      `the archive is on timeline ${newest}, which the server's timeline ${state.timeline} does not descend from`,
      'The server was recovered to another past; use a new directory for it.',
    );
  }
  if (newest === state.timeline) return ok(`${newest}`);
  const fork = timelineEnd(state.history, newest);
  // What the server still has is not asked for: a stream that only looks would be in its statistics.
  return warn(
    `the archive is still on timeline ${newest}, the server on ${state.timeline} since ${fork === undefined ? '?' : formatLsn(fork)}`,
    `Start the receiver, or let it connect to this server: it follows by itself if the server still has the WAL from ${formatLsn(end.lsn)} on.`,
  );
}

/** WAL that was received, and confirmed, beyond what the new primary took over. */
export function checkDiverged({ catalog, diverged }: ArchiveFacts): CheckResult[] {
  const { warn } = judge('beyond fork');
  return diverged.map(({ timeline, from, to }) => {
    const files = historyFileName(timeline).slice(0, 8);
    return warn(
      `${formatBinaryBytes(Number(to - from))} of timeline ${timeline}, from ${formatLsn(from)} to ${formatLsn(to)}, were received and are not on the timeline that followed: transactions in it are missing there`,
      `"walkeep find --timeline ${timeline} --beyond-fork ${catalog.archive.place}" lists them. When that is settled, move the files of segments ${files}* from there on out of the directory.`,
    );
  });
}

/** How many of a list are named in a message. */
const NAMED = 3;

/** Whether the archive is without holes, as far as names and ledger tell. */
export function checkContinuity({ catalog, end, lastSegment }: ArchiveFacts): CheckResult[] {
  const { ok, warn, fail } = judge('continuity');
  const results: CheckResult[] = [];
  const { ledger, ledgerProblem, gaps, histories } = catalog;
  if (ledgerProblem) {
    results.push(fail(ledgerProblem.message, ledgerProblem.hint ?? 'Restore it from a copy.'));
  }
  const open = gaps.filter((gap) => !gap.accepted && !gap.beside);
  if (open.length > 0) {
    const text = open.slice(0, NAMED).map(gapText).join(', ');
    const more = open.length > NAMED ? ` and ${open.length - NAMED} more` : '';
    results.push(fail(`missing: ${text}${more}`, 'Recovery cannot pass it: make a base backup.'));
  }
  for (const { problem } of histories) {
    if (problem) results.push(fail(`${problem.message}: ${problem.detail}`, problem.hint ?? ''));
  }
  const accepted = (ledger?.gaps ?? []).filter(
    (gap) => acceptedGapState(gap, catalog) === 'between',
  );
  for (const { from, to } of accepted.slice(-NAMED)) {
    const text = `accepted gap from ${formatLsn(from)} to ${formatLsn(to)}`;
    results.push(warn(text, 'Only base backups made after it can be recovered beyond it.'));
  }
  const damages = (ledger?.damages ?? []).filter(({ lsn }) => !isBehind(lsn + 1n, catalog));
  for (const { lsn, why } of damages.slice(-NAMED)) {
    const text = `damaged WAL was stored at ${formatLsn(lsn)}: ${why}`;
    results.push(warn(text, 'Only base backups made after it can be recovered beyond it.'));
  }
  if (end && isAhead(end, lastSegment, catalog)) {
    const there =
      lastSegment === undefined
        ? 'there are no files'
        : `the files end at ${formatLsn(segmentStart(lastSegment + 1n, catalog.segmentSize))}`;
    results.push(
      warn(
        `WAL was archived up to ${formatLsn(end.lsn)}, but ${there}`,
        'Files were moved away or lost; see that they are where recovery looks for them.',
      ),
    );
  }
  const { isDirectory } = catalog.archive;
  if (isDirectory && !ledger && !ledgerProblem && catalog.timelines.length > 0) {
    const hint =
      'walkeep receive makes one; without it files that vanish from the end are not missed.';
    results.push(warn('the directory has no ledger', hint));
  }
  return results.length > 0 ? results : [ok('no gap')];
}

function gapText({ timeline, from, to }: SegmentGap): string {
  return `${formatLsn(from)} to ${formatLsn(to)} on timeline ${timeline}`;
}

/** Whether a process receives into the directory. */
export function checkReceiver({ receiver }: ArchiveFacts): CheckResult {
  const { ok, unknown, fail } = judge('receiver');
  if (!receiver) return fail('none runs on the directory', 'Start "walkeep receive".');
  const text = `process ${receiver.pid} on ${receiver.host}`;
  if (receiver.state === 'alive') return ok(text);
  return unknown(`${text}, which cannot be seen from here`, 'Run check where the receiver runs.');
}

/** Free space below which WAL soon has no place: segments, part of the disk, seconds at this rate. */
const FEW_SEGMENTS = 16;
const LITTLE = 0.05;
const SOON = 86_400;

/** Free space, and how long it lasts. */
export function checkDisk({ rate, catalog }: ArchiveFacts, disk: DiskSpace): CheckResult {
  const { ok, warn, fail } = judge('disk space');
  const segments = Math.floor(disk.free / catalog.segmentSize);
  const seconds = rate === undefined ? undefined : disk.free / rate;
  const lasts =
    seconds === undefined ? '' : `, enough for ${formatSeconds(seconds)} at the last rate`;
  const text = `${formatBinaryBytes(disk.free)} of ${formatBinaryBytes(disk.total)} free: ${segments} segments${lasts}`;
  const hint = 'Free space, or remove WAL that no backup needs: "walkeep cleanup".';
  if (segments < FEW_SEGMENTS) return fail(text, hint);
  const soon = seconds !== undefined && seconds < SOON && disk.free < disk.total / 2;
  return disk.free < LITTLE * disk.total || soon ? warn(text, hint) : ok(text);
}

/** Whether we can use directory and files, and others cannot. */
export function checkPermissions(p: Permissions): CheckResult {
  const { ok, warn, fail } = judge('permissions');
  const names = (list: readonly string[]) =>
    `${list.slice(0, NAMED).join(', ')}${list.length > NAMED ? ` and ${list.length - NAMED} more` : ''}`;
  const mode = p.directoryMode.toString(8).padStart(4, '0');
  if (p.unusable) {
    return fail(
      `the directory (mode ${mode}) cannot be listed and written by this user`,
      'Run check as the user of the receiver.',
    );
  }
  if (p.unreadable.length > 0) {
    return fail(
      `not readable for this user: ${names(p.unreadable)}`,
      'Run check as the user of the receiver.',
    );
  }
  if ((p.directoryMode & 0o002) !== 0) {
    return fail(`everybody may write to the directory (mode ${mode})`, 'chmod o-w it.');
  }
  if (p.open.length > 0 && (p.directoryMode & 0o001) !== 0) {
    return warn(
      `everybody may read ${names(p.open)}`,
      'WAL holds all data: chmod o-rwx the files.',
    );
  }
  if (p.foreign.length > 0) {
    return warn(
      `of another user: ${names(p.foreign)}`,
      'Let one user own the directory and its files.',
    );
  }
  return ok(`directory mode ${mode}`);
}
