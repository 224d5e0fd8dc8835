import { basename, dirname, join } from 'node:path';
import { writeFileDurably } from '../files/durable.js';
import { withoutSecrets } from '../text.js';
import type { RehearseReport } from './options.js';

/** What Prometheus's node_exporter takes from a file. */
export function metricsText(report: RehearseReport, now = new Date()): string {
  const place = withoutSecrets(report.places[0] ?? '');
  const label = `archive="${place.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')}"`;
  const seconds = (milliseconds: number): string => (milliseconds / 1000).toFixed(3);
  const lines: string[] = [];
  const metric = (name: string, help: string, values: [string, string][]): void => {
    if (values.length === 0) return;
    const full = `walkeep_rehearse_${name}`;
    lines.push(`# HELP ${full} ${help}`, `# TYPE ${full} gauge`);
    for (const [more, value] of values) lines.push(`${full}{${label}${more}} ${value}`);
  };
  metric('success', 'Whether the last rehearsal found a good archive.', [
    ['', report.outcome === 'good' ? '1' : '0'],
  ]);
  metric('timestamp_seconds', 'When the last rehearsal ended.', [['', seconds(now.getTime())]]);
  const steps = Object.entries(report.steps).map(([step, time]): [string, string] => [
    `,step="${step}"`,
    seconds(time),
  ]);
  metric('duration_seconds', 'How long each step took, and all of them.', [
    ...steps,
    [',step="total"', seconds(report.total)],
  ]);
  const { recovery, lastCommit } = report;
  metric(
    'recovery_seconds',
    'Restore, start and recovery: the measured recovery time.',
    recovery === undefined ? [] : [['', seconds(recovery)]],
  );
  metric(
    'last_commit_timestamp_seconds',
    'Of the last transaction that the restored server has.',
    lastCommit === undefined ? [] : [['', seconds(lastCommit.getTime())]],
  );
  return `${lines.join('\n')}\n`;
}

/** Puts them in place in one step. @throws StorageError */
export async function writeMetrics(path: string, report: RehearseReport): Promise<void> {
  // The exporter reads what ends in .prom, and nothing else.
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  await writeFileDurably(path, metricsText(report), { mode: 0o644, temporary });
}
