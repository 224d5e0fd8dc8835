import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { scratchDir } from '../support/scratch.js';
import { findTool } from '../support/tools.js';
import { readText } from './documents.js';

const exec = promisify(execFile);
const promtool = findTool('promtool');

interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  datasource?: { uid: string };
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { refId: string; expr: string; datasource: { uid: string } }[];
}

const dashboard = JSON.parse(readText('docs/examples/grafana.json')) as {
  schemaVersion: number;
  panels: Panel[];
  templating: { list: { name: string; type: string }[] };
  annotations: { list: { expr: string }[] };
};
const { panels } = dashboard;
const targets = panels.flatMap(({ title, targets = [] }) =>
  targets.map((target) => ({ title, ...target })),
);
/** With what Grafana puts in for its variables. */
const asked = [
  ...targets.map(({ expr }) => expr),
  ...dashboard.annotations.list.map((a) => a.expr),
].map((expr) => expr.replaceAll('$__rate_interval', '5m').replaceAll('$server', 'shop|ledger'));

describe('docs/examples/grafana.json', () => {
  it('can be imported: versions, ids, places, variables', () => {
    // Of Grafana 10.4; 11 takes it as well.
    expect(dashboard.schemaVersion).toBe(39);
    const ids = panels.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(dashboard.templating.list.map(({ name, type }) => `${name}: ${type}`)).toEqual([
      ...['datasource: datasource', 'server: query'],
    ]);
    for (const { title, type, datasource, description, targets = [] } of panels) {
      expect(title).toMatch(/\S/);
      if (type === 'row') continue;
      expect(description, title).toMatch(/\.$/);
      expect(targets.length, title).toBeGreaterThan(0);
      const used = [datasource?.uid, ...targets.map((target) => target.datasource.uid)];
      for (const uid of used) expect(uid, title).toMatch(/^\$\{datasource\}$/);
      const refs = targets.map(({ refId }) => refId);
      expect(new Set(refs).size, title).toBe(refs.length);
    }
  });

  it('lays its panels side by side', () => {
    for (const [i, { title, gridPos: one }] of panels.entries()) {
      expect(one.x + one.w, title).toBeLessThanOrEqual(24);
      for (const { title: other, gridPos: two } of panels.slice(i + 1)) {
        const beside = one.x + one.w <= two.x || two.x + two.w <= one.x;
        const below = one.y + one.h <= two.y || two.y + two.h <= one.y;
        expect(beside || below, `${title} and ${other}`).toBe(true);
      }
    }
  });

  it('asks only for servers that are chosen', () => {
    for (const { title, expr } of targets) {
      for (const [, labels = ''] of expr.matchAll(/walkeep_[a-z_]+(\{[^}]*\})?/g)) {
        expect(labels, title).toContain('server=~"$server"');
      }
    }
  });

  it.skipIf(!promtool)('asks what Prometheus understands (promtool)', async () => {
    const file = join(scratchDir('dashboard'), 'rules.yaml');
    const rules = asked.map((expr, i) => ({ record: `panel_${i}`, expr }));
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'panels', rules }] }));
    const { stdout } = await exec(promtool as string, ['check', 'rules', file]);
    expect(stdout).toContain(`SUCCESS: ${asked.length} rules found`);
  });
});
