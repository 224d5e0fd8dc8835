import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { metricsIn, scrape } from '../serve/metrics/full-status.js';
import { findTool } from '../support/tools.js';
import { readText } from './documents.js';

const exec = promisify(execFile);
const promtool = findTool('promtool');
const LABELS = ['server', 'le'];

/** `walkeep_gaps{accepted}`, with its labels beside the server. */
const documented = new Map(
  readText('docs/serve.md')
    .split('\n### Metrics\n')[1]
    ?.split('\n### ')[0]
    ?.split('\n')
    .filter((line) => line.startsWith('| `walkeep_'))
    .flatMap((line) => [...(line.split(' | ')[0] ?? '').matchAll(/`(walkeep_\w+)(?:\{(.*?)\})?`/g)])
    .map(([, name = '', labels = '']) => [name, labels === '' ? [] : labels.split(',')]),
);

describe('the metrics of serve', () => {
  it('are those that docs/serve.md has, with their labels', async () => {
    const scraped = new Map(
      [...metricsIn(await scrape())].map(([name, { series }]) => {
        const labels = series.flatMap((one) => [...one.matchAll(/(\w+)="/g)].map((m) => m[1]));
        return [name, [...new Set(labels)].filter((one) => !LABELS.includes(one as string))];
      }),
    );
    const sorted = (all: Map<string, unknown[]>) =>
      Object.fromEntries([...all].map(([name, labels]) => [name, [...labels].sort()]).sort());
    expect(sorted(documented)).toEqual(sorted(scraped));
  });

  it('each have a value for a server that has everything', async () => {
    for (const [name, { series }] of metricsIn(await scrape()))
      expect(series, name).not.toEqual([]);
  });

  it.each(['docs/examples/alerts.yaml', 'docs/examples/grafana.json'])(
    'are all that %s asks for',
    async (file) => {
      const known = metricsIn(await scrape());
      const used = readText(file)
        .match(/\bwalkeep_[a-z_]+/g)
        ?.map((name) => name.replace(/_(bucket|sum|count)$/, ''));
      expect(used?.length).toBeGreaterThan(20);
      for (const name of new Set(used)) expect([...known.keys()]).toContain(name);
    },
  );

  it('have labels that Prometheus does not give itself', async () => {
    expect(await scrape()).not.toMatch(/[{,](job|instance|__\w+)="/);
  });

  it.skipIf(!promtool)('are as they should be (promtool)', async () => {
    const checking = exec(promtool as string, ['check', 'metrics']);
    checking.child.stdin?.end(await scrape());
    const { stdout, stderr } = await checking;
    expect(`${stdout}${stderr}`).toBe('');
  });
});
