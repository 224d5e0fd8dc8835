import { MetricsText, type Sample, writeTextfile } from '../files/textfile.js';
import { withoutSecrets } from '../text.js';
import type { RehearseReport } from './options.js';

/** What Prometheus's node_exporter takes from a file. */
export function metricsOf(report: RehearseReport, now = new Date()): MetricsText {
  const metrics = new MetricsText({ archive: withoutSecrets(report.places[0] ?? '') });
  const seconds = (milliseconds: number): string => (milliseconds / 1000).toFixed(3);
  const metric = (name: string, help: string, samples: readonly Sample[]): void =>
    metrics.add(`walkeep_rehearse_${name}`, help, samples);
  metric('success', 'Whether the last rehearsal found a good archive.', [
    [{}, report.outcome === 'good' ? '1' : '0'],
  ]);
  metric('timestamp_seconds', 'When the last rehearsal ended.', [[{}, seconds(now.getTime())]]);
  const steps = Object.entries(report.steps).map(
    ([step, time]): Sample => [{ step }, seconds(time)],
  );
  metric('duration_seconds', 'How long each step took, and all of them.', [
    ...steps,
    [{ step: 'total' }, seconds(report.total)],
  ]);
  const { recovery, lastCommit } = report;
  metric(
    'recovery_seconds',
    'Restore, start and recovery: the measured recovery time.',
    recovery === undefined ? [] : [[{}, seconds(recovery)]],
  );
  metric(
    'last_commit_timestamp_seconds',
    'Of the last transaction that the restored server has.',
    lastCommit === undefined ? [] : [[{}, seconds(lastCommit.getTime())]],
  );
  return metrics;
}

/** Puts them in place in one step. @throws StorageError */
export function writeMetrics(path: string, report: RehearseReport): Promise<void> {
  return writeTextfile(path, metricsOf(report));
}
