import { formatLsn } from '../../lsn.js';
import type {
  DeltaCompared,
  RestorePlan,
  RestoreProgress,
  RestoreResult,
} from '../../restore/options.js';
import { recoverySteps } from '../../restore/reach/next-steps.js';
import { RECOVERY_SETTINGS, word } from '../../restore/settings.js';
import { targetText, timeText } from '../../restore/target-text.js';
import { formatBytes, formatSeconds } from '../../units.js';
import { formatTimestamp } from '../../wal/records/timestamp.js';

/** The plan for people. */
export function planText(plan: RestorePlan): string {
  const { backup, place, located, wal, space, tablespaces } = plan;
  const rows: [string, string][] = [
    [
      'backup',
      `${backup.id} in ${place}, ended ${backup.end.time} at ${formatLsn(backup.end.lsn)}`,
    ],
    ['size', `${formatBytes(backup.size)} of PostgreSQL ${versionText(backup.serverVersion)}`],
    ['target', targetText(plan.target)],
    ['found', foundText(plan)],
    ...commitRows(plan),
    [
      'WAL',
      `${wal.segments} segment${wal.segments === 1 ? '' : 's'}, ${wal.first} to ${wal.last} (${formatBytes(Number(wal.to - wal.from))})`,
    ],
    ['timeline', String(located.timeline)],
    ['into', plan.dataDir],
    ...tablespaces.map(({ from, to, inPlace }): [string, string] => [
      'tablespace',
      inPlace ? `${to} (in place)` : from === to ? to : `${from} -> ${to}`,
    ]),
    ...(plan.walDir === undefined ? [] : [['pg_wal', plan.walDir] as [string, string]]),
    ...(plan.polarData === undefined ? [] : [['PolarDB', plan.polarData] as [string, string]]),
    ...plan.adopted.map(({ from, to }): [string, string] => ['config', `${from} -> ${to}`]),
    ...deltaRows(plan),
    ...space.map(({ path, needed, free }): [string, string] => [
      'space',
      `${formatBytes(needed)} of ${formatBytes(free)} free for ${path}`,
    ]),
    ['command', plan.command],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
  return [...lines, 'settings', ...settingRows(plan).map((line) => `  ${line}`)].join('\n');
}

/** The dozen that are emptied so that nothing of an earlier recovery counts say little one by one. */
function settingRows({ settings }: RestorePlan): string[] {
  const isEmptied = (line: string) =>
    line.endsWith(" = ''") && RECOVERY_SETTINGS.has(line.slice(0, -" = ''".length));
  const shown = settings.filter((line) => !isEmptied(line));
  const emptied = settings.length - shown.length;
  if (emptied === 0) return shown;
  return [...shown, `(and ${emptied} settings of earlier recoveries emptied)`];
}

function deltaRows({ delta }: RestorePlan): [string, string][] {
  if (!delta) return [];
  const { oldWal, unarchived, compared } = delta;
  const many = unarchived.length === 1 ? '1 file' : `${unarchived.length} files`;
  return [
    ['delta', delta.resumed ? 'goes on where one was cut short' : 'what is the same stays'],
    ...(compared ? comparedRows(compared) : []),
    ...(oldWal === undefined
      ? []
      : [
          [
            'old WAL',
            `${oldWal}, ${unarchived.length === 0 ? 'all of it is in the archive' : `${many} of it not whole in the archive`}`,
          ] as [string, string],
        ]),
  ];
}

/** What a delta finds. */
export function comparedRows(compared: DeltaCompared): [string, string][] {
  const { same, changed, removed, read, kept } = compared;
  const text = ({ files, bytes }: DeltaCompared['same']) =>
    `${formatBytes(bytes)} in ${files} file${files === 1 ? '' : 's'}`;
  return [
    ['same', text(same)],
    ['to write', `${text(changed)}, for which ${formatBytes(read)} of the archive are read`],
    ['to remove', text(removed)],
    ...kept.map(({ path, as }): [string, string] => ['kept', `${path} -> ${as}`]),
  ];
}

function versionText(version: number): string {
  return `${Math.floor(version / 10_000)}.${version % 10_000}`;
}

function foundText({ located, target }: RestorePlan): string {
  const { setting, lsn } = located;
  if (target.kind === 'immediate') return `${formatLsn(lsn)}, where the backup is consistent`;
  if (!setting) return `${formatLsn(lsn)}, where the WAL ends`;
  const how = 'inclusive' in setting ? (setting.inclusive ? ' with' : ' without') : '';
  return `${formatLsn(lsn)}${how === '' ? '' : `:${how} the record at ${setting.value}`}`;
}

function commitRows({ located: { last, next } }: RestorePlan): [string, string][] {
  const text = ({ lsn, time, xid }: NonNullable<typeof last>) =>
    `${timeText(time)}${xid === undefined ? '' : `, transaction ${xid}`} at ${formatLsn(lsn)}`;
  return [
    ...(last ? [['last in', text(last)] as [string, string]] : []),
    ...(next ? [['first out', text(next)] as [string, string]] : []),
  ];
}

/** For programs: LSNs as PostgreSQL prints them, times in UTC. */
export function planJson(plan: RestorePlan): string {
  const { backup, ...rest } = plan;
  const { id, size, serverVersion, systemId, start, end } = backup;
  const shown = {
    ...rest,
    backup: { id, size, serverVersion, systemId: `${systemId}`, start, end },
  };
  return JSON.stringify(shown, (key, value) => {
    if (typeof value !== 'bigint') return value;
    return key === 'time' ? formatTimestamp(value as never) : formatLsn(value);
  });
}

/** What to do now, and what happens then. */
export function nextSteps({ plan }: RestoreResult, places: readonly string[] = []): string[] {
  const { dataDir, configDir, located, signalFile, action, owner } = plan;
  const restored = {
    ...{ dataDir, configDir, uid: owner?.uid, lsn: formatLsn(located.lsn), action },
    isLatest: !located.setting,
    standby: signalFile === 'standby.signal',
  };
  return [...oldWalSteps(plan, places), ...recoverySteps(restored)];
}

/** What was not streamed is nowhere else: it counts for recovery only if it is stored before. */
function oldWalSteps({ delta, wal }: RestorePlan, [place = 'PLACE']: readonly string[]): string[] {
  if (delta?.oldWal === undefined) return [];
  const { oldWal, unarchived } = delta;
  const directory = word(oldWal);
  const remove = `when the server is up and right, remove the WAL of the lost one: rm -r ${directory}`;
  if (unarchived.length === 0) return [remove];
  const files = unarchived.map((name) => `${directory}/${name}`);
  const push = `walkeep push ${word(place)}`;
  const command =
    files.length === 1
      ? `${push} ${files[0]}`
      : `for f in ${unarchived.join(' ')}; do ${push} ${directory}/$f; done`;
  return [
    `before you start it: the lost server's pg_wal is kept in ${directory}, and may hold the only copy of what was not streamed (the archive ends at ${formatLsn(wal.to)}); to recover that too: ${command}`,
    remove,
  ];
}

/** A line for a terminal, with the time that is left. */
export class RestoreMeter {
  #began = performance.now();
  #phase: RestoreProgress['phase'] = 'files';

  line({ phase, done, total }: RestoreProgress): string {
    if (phase === 'sync') return `making files durable, ${done} of ${total}`;
    if (phase !== this.#phase) {
      this.#phase = phase;
      this.#began = performance.now();
    }
    const seconds = (performance.now() - this.#began) / 1000;
    const rate = done / Math.max(seconds, 0.001);
    const percent = total === 0 ? 100 : Math.floor((100 * done) / total);
    const left = rate > 0 ? `, ${formatSeconds((total - done) / rate)} left` : '';
    const what = phase === 'compare' ? 'comparing' : 'restoring';
    return `${what} ${formatBytes(done)} of ${formatBytes(total)} (${percent} %), ${formatBytes(rate)}/s${left}`;
  }
}
