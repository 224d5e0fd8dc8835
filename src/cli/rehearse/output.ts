import { formatLsn } from '../../lsn.js';
import type { RehearseProgress, RehearseReport, RehearseStep } from '../../rehearse/options.js';
import { targetText } from '../../restore/target-text.js';
import { oneLine } from '../../text.js';
import { formatBytes } from '../../units.js';
import { formatTimestamp } from '../../wal/records/timestamp.js';
import { RestoreMeter } from '../restore/output.js';

const WIDTH = 80;
const LABEL = 10;
const BAR = 32;
const STEPS: readonly RehearseStep[] = ['restore', 'start', 'recovery', 'queries'];
const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/** The report for people, in 80 columns. */
export function reportText(report: RehearseReport, plain: boolean): string {
  const parts = [whatText(report), stepsText(report, plain), seenText(report)];
  const log = report.log.map((line) => `  ${cut(line, WIDTH - 2)}`);
  if (log.length > 0) parts.push(["  the server's log ends:", ...log].join('\n'));
  parts.push(verdictText(report));
  return parts.filter((part) => part !== '').join('\n\n');
}

function whatText({ places, plan, server }: RehearseReport): string {
  const rows: [string, string][] = [['archive', places.join(', ')]];
  if (plan) {
    const { id, size, end } = plan.backup;
    rows.push(['backup', `${id}, ${formatBytes(size)}, ended ${shortTime(new Date(end.time))}`]);
    rows.push(['target', targetText(plan.target)]);
    const { lsn, timeline } = plan.located;
    const segments = `${plan.wal.segments} segment${plan.wal.segments === 1 ? '' : 's'}`;
    rows.push(['WAL', `${segments} to ${formatLsn(lsn)} on timeline ${timeline}`]);
  }
  if (server) rows.push(['server', `PostgreSQL ${server.version} in ${server.bin}`]);
  return rows.map(([name, value]) => cut(`${name.padEnd(LABEL)}${value}`, WIDTH)).join('\n');
}

function stepsText(report: RehearseReport, plain: boolean): string {
  const { steps, files, plan, recovery, total } = report;
  const done = STEPS.filter((step) => steps[step] !== undefined);
  if (done.length === 0) return '';
  const longest = Math.max(...done.map((step) => steps[step] as number));
  const notes: Readonly<Record<RehearseStep, string>> = {
    restore: plan ? `${formatBytes(plan.backup.size)}, ${files} files` : '',
    start: 'on a socket of its own',
    recovery: plan ? `${formatBytes(Number(plan.wal.to - plan.wal.from))} of WAL` : '',
    queries: queryNote(report),
  };
  const lines = done.map((step) => {
    const time = steps[step] as number;
    const drawn = bar((time / longest) * BAR, plain).padEnd(BAR);
    return `  ${step.padEnd(LABEL)}${drawn} ${duration(time).padStart(9)}  ${notes[step]}`.trimEnd();
  });
  if (recovery !== undefined) {
    const name = 'recovered';
    const rest = report.reached?.promoted ? 'promoted' : 'answers queries';
    lines.push(
      `  ${name.padEnd(LABEL)}${''.padEnd(BAR)} ${duration(recovery).padStart(9)}  ${rest}`,
    );
  }
  lines.push(`  ${'total'.padEnd(LABEL)}${''.padEnd(BAR)} ${duration(total).padStart(9)}`);
  return lines.map((line) => cut(line, WIDTH)).join('\n');
}

function queryNote({ reading, databases, queries }: RehearseReport): string {
  if (reading) return `${formatBytes(reading.bytes)} read`;
  if (queries.length > 0) return `${queries.length} quer${queries.length === 1 ? 'y' : 'ies'}`;
  return `${databases.length} databases`;
}

function seenText(report: RehearseReport): string {
  const { reading, databases, findings, queries, lastCommit, reached, began } = report;
  if (!reached) return '';
  const lines: [boolean, string][] = [];
  const relations = databases.reduce((sum, one) => sum + one.relations, 0);
  const size = formatBytes(databases.reduce((sum, one) => sum + one.size, 0));
  const bases = `${databases.length} database${databases.length === 1 ? '' : 's'}`;
  const refused = findings.filter(({ relation }) => relation === undefined);
  lines.push([refused.length === 0, `${bases} answer, ${relations} relations, ${size}`]);
  if (reading) {
    const { tables, sampled, checksums, compared } = reading;
    const some = sampled === 0 ? '' : `, ${sampled} in part`;
    const how = checksums ? 'with page checksums' : 'the cluster has no page checksums';
    const isGood = findings.every(({ relation }) => relation === undefined);
    lines.push([isGood, `${tables} tables read${some}, ${formatBytes(reading.bytes)}, ${how}`]);
    if (compared > 0) lines.push([isGood, `rows of ${compared} tables counted by an index, too`]);
  }
  for (const { database, relation = 'connection', message } of findings) {
    lines.push([false, `${database}, ${relation}: ${message}`]);
  }
  for (const { sql, first, rows, problem } of queries) {
    const values = first.map((value) => value ?? 'NULL').join(' | ');
    const answer = problem ?? (rows > 1 ? `${values} (first of ${rows} rows)` : values);
    lines.push([problem === undefined, `${cut(oneLine(sql), 40)} → ${answer}`]);
  }
  if (lastCommit) {
    const ago = sinceText(began.getTime() - lastCommit.getTime());
    lines.push([true, `last commit ${shortTime(lastCommit)}, ${ago}`]);
  }
  return lines
    .map(([good, line]) => cut(`  ${good ? 'ok ' : 'BAD'}  ${oneLine(line)}`, WIDTH))
    .join('\n');
}

function verdictText({ outcome, problem, recovery, reached, lastCommit }: RehearseReport): string {
  if (outcome === 'good') {
    const until = lastCommit ? ` to ${shortTime(lastCommit)}` : '';
    const at = reached ? ` (${formatLsn(reached.lsn)})` : '';
    return `GOOD: it can be restored${until}${at}, in ${duration(recovery ?? 0)}.`;
  }
  const word = outcome === 'bad' ? 'BAD' : 'UNKNOWN';
  return `${word}: ${oneLine(problem?.message ?? '')}`;
}

function bar(length: number, plain: boolean): string {
  const eighths = Math.max(1, Math.round(length * 8));
  if (plain) return '#'.repeat(Math.max(1, Math.round(length)));
  return '█'.repeat(Math.floor(eighths / 8)) + EIGHTHS[eighths % 8];
}

/** `0.42 s`, `3 min 12 s`, `2 h 05 min`. */
export function duration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const [minutes, hours] = [Math.floor(seconds / 60), Math.floor(seconds / 3600)];
  const two = (n: number): string => String(Math.floor(n)).padStart(2, '0');
  if (hours === 0) return `${minutes} min ${two(seconds % 60)} s`;
  return `${hours} h ${two(minutes % 60)} min`;
}

function sinceText(milliseconds: number): string {
  return milliseconds < 0
    ? 'as this rehearsal began'
    : `${duration(milliseconds)} before this began`;
}

function shortTime(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

function cut(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, width - 1).join('')}…`;
}

/** The report as one object; LSNs as text, times in UTC, durations in milliseconds. */
export function reportJson(report: RehearseReport): string {
  const { plan, places, ...rest } = report;
  const shown = {
    ...rest,
    places,
    backup: plan && {
      ...{ id: plan.backup.id, place: plan.place, size: plan.backup.size },
      ...{ serverVersion: plan.backup.serverVersion, systemId: `${plan.backup.systemId}` },
      ...{ start: plan.backup.start, end: plan.backup.end },
    },
    target: plan?.target,
    located: plan && { lsn: plan.located.lsn, timeline: plan.located.timeline },
    wal: plan?.wal,
  };
  return JSON.stringify(shown, (key, value) => {
    if (typeof value !== 'bigint') return value;
    return key === 'time' ? formatTimestamp(value as never) : formatLsn(value);
  });
}

/** What is going on now, in one line. */
export class RehearseMeter {
  readonly #began = performance.now();
  #restore = new RestoreMeter();
  #line = '';

  note(progress: RehearseProgress): void {
    switch (progress.kind) {
      case 'begin':
        if (progress.step === 'restore') this.#restore = new RestoreMeter();
        this.#line = {
          restore: 'restoring',
          start: 'starting',
          recovery: 'recovering',
          queries: 'looking',
        }[progress.step];
        break;
      case 'restore':
        this.#line = this.#restore.line(progress.progress);
        break;
      case 'recovery':
        this.#line = `recovering, ${progress.segments} of ${progress.of} segments`;
        break;
      case 'query':
        this.#line = `looking at ${oneLine(progress.database)}: ${oneLine(progress.what)}`;
        break;
      case 'removing':
        this.#line = 'removing everything';
        break;
    }
  }

  get line(): string | undefined {
    if (this.#line === '') return undefined;
    return `${duration(performance.now() - this.#began)}  ${this.#line}`;
  }
}
