import { MetricsText, type Sample } from '../files/textfile.js';
import { withoutSecrets } from '../text.js';
import type { CheckReport } from './check.js';
import { type CheckResult, type CheckStatus, worst } from './result.js';

/** As Nagios numbers them. */
const NUMBER: Readonly<Record<CheckStatus, number>> = { ok: 0, warn: 1, fail: 2, unknown: 3 };

/** What Prometheus's node_exporter takes from a file. */
export function metricsOf(
  place: string,
  { results, recoveryPoint, free }: CheckReport,
  now = new Date(),
): MetricsText {
  const metrics = new MetricsText({ archive: withoutSecrets(place) });
  const metric = (name: string, help: string, value: number | string | undefined): void =>
    metrics.add(`walkeep_check_${name}`, help, value === undefined ? [] : [[{}, value]]);
  metric(
    'status',
    'The worst of all results. 0: ok, 1: warning, 2: failure.',
    NUMBER[worst(results)],
  );
  metric('timestamp_seconds', 'When the last check ended.', (now.getTime() / 1000).toFixed(3));
  metrics.add(
    'walkeep_check_result',
    'The worst result of each check. 0: ok, 1: warning, 2: failure, 3: unknown.',
    [...byCheck(results)].map(([check, all]): Sample => [{ check }, NUMBER[worstOf(all)]]),
  );
  metric(
    'behind_bytes',
    'WAL of the server that the archive has not.',
    recoveryPoint?.bytes.toString(),
  );
  metric('behind_seconds', 'How old that WAL can be.', recoveryPoint?.seconds?.toFixed(3));
  metric('free_bytes', 'Free on the file system of the archive.', free);
  return metrics;
}

function byCheck(results: readonly CheckResult[]): Map<string, CheckResult[]> {
  const found = new Map<string, CheckResult[]>();
  for (const result of results) {
    const all = found.get(result.check);
    if (all) all.push(result);
    else found.set(result.check, [result]);
  }
  return found;
}

/** One that is known to be bad says more than one that is unknown, and that more than a good one. */
function worstOf(results: readonly CheckResult[]): CheckStatus {
  const known = worst(results);
  return known === 'ok' && results.some((r) => r.status === 'unknown') ? 'unknown' : known;
}
