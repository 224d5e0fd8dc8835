import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { MANY_RESTARTS, RESTARTS_WITHIN, SLOT_LOW } from '../../src/serve/notify/troubles.js';
import { FULL, scrape } from '../serve/metrics/full-status.js';
import { packageRoot, scratchDir } from '../support/scratch.js';
import { findTool } from '../support/tools.js';
import { readText } from './documents.js';

const exec = promisify(execFile);
const RULES = join(packageRoot, 'docs/examples/alerts.yaml');
const promtool = findTool('promtool');

interface Rule {
  alert: string;
  expr: string;
  labels: { severity: string };
  annotations: { summary: string; description: string };
}
const { groups } = parse(readText('docs/examples/alerts.yaml')) as {
  groups: { name: string; rules: Rule[] }[];
};
const rules = groups.flatMap((group) => group.rules);

/** `name{labels}` with values as promtool writes them: `0+10x5` is 0, 10 … 50. */
type Series = Readonly<Record<string, string>>;

const shop = (name: string, labels = '') =>
  `walkeep_${name}{job="walkeep",server="shop"${labels === '' ? '' : `,${labels}`}}`;

/** For each rule when it fires and when it does not, though it is near; a value each half minute. */
const CASES: Readonly<Record<string, { fires: Series; quiet: Series }>> = {
  WalkeepDown: {
    fires: { 'up{job="walkeep"}': '0x99' },
    quiet: { 'up{job="walkeep"}': '1 0 0 1x99' },
  },
  WalkeepRecoveryPoint: {
    fires: { [shop('rpo_seconds')]: '31x99', [shop('rpo_limit_seconds')]: '30x99' },
    quiet: { [shop('rpo_seconds')]: '30x99', [shop('rpo_limit_seconds')]: '30x99' },
  },
  WalkeepReceiverHeld: {
    fires: { [shop('receiver_state', 'state="held"')]: '1x99' },
    quiet: { [shop('receiver_state', 'state="paused"')]: '1x99' },
  },
  WalkeepReceiverHangs: {
    fires: { [shop('receiver_silent_seconds')]: '12x99' },
    quiet: { [shop('receiver_silent_seconds')]: '0 12 0x99' },
  },
  WalkeepReceiverRestarts: {
    fires: { [shop('receiver_restarts_total')]: '0x30 0 1 2 3 4x99' },
    quiet: { [shop('receiver_restarts_total')]: '0x30 0 1 2x99' },
  },
  WalkeepRefusedWal: {
    fires: { [shop('refused_wal_total')]: '0x40 1x99' },
    quiet: { [shop('refused_wal_total')]: '7x199' },
  },
  WalkeepGap: {
    fires: { [shop('gaps', 'accepted="false"')]: '1x99' },
    quiet: {
      [shop('gaps', 'accepted="true"')]: '1x99',
      [shop('gaps', 'accepted="false"')]: '0x99',
    },
  },
  WalkeepBeyondFork: {
    fires: { [shop('timeline_diverged_bytes', 'timeline="1"')]: '8192x99' },
    quiet: { [shop('timeline_diverged_bytes', 'timeline="1"')]: '0x99' },
  },
  WalkeepSlotLost: {
    fires: { [shop('slot_up')]: '0x99' },
    quiet: { [shop('slot_up')]: '1 0 1x99' },
  },
  WalkeepSlotLow: {
    fires: { [shop('slot_safe_bytes')]: '1e9x99', [shop('slot_retained_bytes')]: '5e9x99' },
    quiet: { [shop('slot_safe_bytes')]: '1e9x99', [shop('slot_retained_bytes')]: '3e9x99' },
  },
  WalkeepSlotGrows: {
    fires: { [shop('slot_retained_bytes')]: '1e10+1e8x199' },
    // Much, as a backup may need it, that does not grow; and what grows from little.
    quiet: { [shop('slot_retained_bytes')]: '2e10x199' },
  },
  WalkeepMemberNotCovered: {
    fires: { [shop('member_slot_covers', 'member="db2"')]: '0x99' },
    quiet: { [shop('member_slot_covers', 'member="db2"')]: '1 0 0 0 0 1x99' },
  },
  WalkeepStoreBehind: {
    fires: {
      [shop('store_rpo_seconds', 'store="minio"')]: '601x99',
      [shop('store_rpo_limit_seconds', 'store="minio"')]: '600x99',
      [shop('trouble', 'kind="ship"')]: '1x99',
    },
    quiet: {
      [shop('store_rpo_seconds', 'store="minio"')]: '599x99',
      [shop('store_rpo_limit_seconds', 'store="minio"')]: '600x99',
    },
  },
  WalkeepShippingHeld: {
    fires: {
      [shop('store_held', 'store="minio"')]: '1x99',
      [shop('store_rpo_seconds', 'store="minio"')]: '1x99',
      [shop('store_rpo_limit_seconds', 'store="minio"')]: '600x99',
    },
    quiet: {
      [shop('store_held', 'store="minio"')]: '0 1 0x99',
      [shop('trouble', 'kind="ship"')]: '1x99',
    },
  },
  WalkeepFindings: {
    fires: {
      [shop('verify_findings', 'task="verify_full",place="directory"')]: '2x99',
      [shop('trouble', 'kind="verify"')]: '1x99',
    },
    quiet: { [shop('verify_findings', 'task="verify_full",place="directory"')]: '0x99' },
  },
  WalkeepNotVerified: {
    fires: {
      [shop('verify_findings', 'task="verify_full",place="directory"')]: '0x99',
      [shop('trouble', 'kind="verify"')]: '1x99',
    },
    quiet: { [shop('trouble', 'kind="verify"')]: '0x99' },
  },
  WalkeepBackupTooOld: {
    // None at all.
    fires: {
      [shop('backup_newest_timestamp_seconds')]: '0x99',
      [shop('backup_limit_seconds')]: '900x99',
    },
    quiet: {
      [shop('backup_newest_timestamp_seconds')]: '0x99',
      [shop('backup_limit_seconds')]: '9000x99',
    },
  },
  WalkeepJobFailed: {
    fires: { [shop('trouble', 'kind="expire"')]: '1x99' },
    quiet: { [shop('trouble', 'kind="expire"')]: '0x99', [shop('trouble', 'kind="gap"')]: '1x99' },
  },
  WalkeepDiskFillsUp: {
    fires: { [shop('archive_free_bytes')]: '4e10-1e8x199' },
    quiet: { [shop('archive_free_bytes')]: '4e10-1e6x199' },
  },
  WalkeepDiskLow: {
    fires: { [shop('archive_free_bytes')]: '1e9x99' },
    quiet: { [shop('archive_free_bytes')]: '2e9x99' },
  },
  WalkeepReloadFailed: {
    fires: { 'walkeep_config_last_reload_successful{job="walkeep"}': '0x99' },
    quiet: { 'walkeep_config_last_reload_successful{job="walkeep"}': '1 0 1x99' },
  },
  WalkeepClock: {
    fires: { 'walkeep_clock_timestamp_seconds{job="walkeep"}': '20+30x99' },
    quiet: { 'walkeep_clock_timestamp_seconds{job="walkeep"}': '-5+30x99' },
  },
};

/** Minutes until a rule fires that looks far back. */
const LONG: Readonly<Record<string, number>> = { WalkeepSlotGrows: 95 };

const UP: Series = { 'up{job="walkeep"}': '1x199' };

/** @param fires the alerts that fire at the end, and no others; none: none ever did */
function unitTest(name: string, series: Series, minutes: number, ...fires: string[]) {
  const at = `${minutes}m`;
  const now = 'count by (alertname) (ALERTS{alertstate="firing"})';
  const ever = `count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[${at}]))`;
  const all = Object.entries({ ...UP, ...series });
  return {
    name,
    interval: '30s',
    input_series: all.map(([of, values]) => ({ series: of, values })),
    promql_expr_test: [
      {
        expr: fires.length === 0 ? ever : now,
        eval_time: at,
        exp_samples: fires.map((alert) => ({ labels: `{alertname="${alert}"}`, value: 1 })),
      },
    ],
  };
}

async function runTests(tests: object[]): Promise<string> {
  const file = join(scratchDir('alerts'), 'tests.yaml');
  // JSON is YAML.
  writeFileSync(file, JSON.stringify({ rule_files: [RULES], evaluation_interval: '30s', tests }));
  const { stdout, stderr } = await exec(promtool as string, ['test', 'rules', file]).catch(
    (e) => e,
  );
  return `${stdout}${stderr}`;
}

describe('docs/examples/alerts.yaml', () => {
  it('has a case for each rule, and says what to do', () => {
    expect(Object.keys(CASES).sort()).toEqual(rules.map(({ alert }) => alert).sort());
    for (const { alert, labels, annotations } of rules) {
      expect(['critical', 'warning'], alert).toContain(labels.severity);
      expect(annotations.summary, alert).toMatch(/\S/);
      expect(annotations.description, alert).toMatch(/\.$/);
    }
  });

  it('goes by the limits that troubles have', () => {
    const exprs = Object.fromEntries(rules.map(({ alert, expr }) => [alert, expr]));
    const minutes = RESTARTS_WITHIN / 60_000;
    // What increase() makes of counts is a little more than they are.
    const often = `increase(walkeep_receiver_restarts_total[${minutes}m]) > ${MANY_RESTARTS - 0.5}`;
    expect(exprs.WalkeepReceiverRestarts).toBe(often);
    expect(exprs.WalkeepSlotLow).toMatch(new RegExp(` < ${SLOT_LOW}$`));
  });

  it.skipIf(!promtool)('is valid (promtool)', async () => {
    const { stdout } = await exec(promtool as string, ['check', 'rules', RULES]);
    expect(stdout).toContain(`SUCCESS: ${rules.length} rules found`);
  });

  it.skipIf(!promtool)('fires each rule, and does not where it is near (promtool)', async () => {
    const tests = Object.entries(CASES).flatMap(([alert, { fires, quiet }]) => [
      unitTest(`${alert} fires`, fires, LONG[alert] ?? 24, alert),
      unitTest(`${alert} is quiet`, quiet, LONG[alert] ?? 24),
    ]);
    expect(await runTests(tests)).toContain('SUCCESS');
  });

  it.skipIf(!promtool)('hides none behind another (promtool)', async () => {
    const both: Series = {
      [shop('store_held', 'store="minio"')]: '1x99',
      [shop('store_held', 'store="backup"')]: '0x99',
      [shop('store_rpo_seconds', 'store="backup"')]: '601x99',
      [shop('store_rpo_limit_seconds', 'store="backup"')]: '600x99',
    };
    // Another machine that archives the same server.
    const other: Series = {
      [shop('verify_findings', 'instance="b",task="verify_full",place="directory"')]: '2x99',
      [shop('trouble', 'instance="a",kind="verify"')]: '1x99',
    };
    const tests = [
      unitTest('held and behind', both, 24, 'WalkeepShippingHeld', 'WalkeepStoreBehind'),
      unitTest('two machines', other, 24, 'WalkeepFindings', 'WalkeepNotVerified'),
    ];
    expect(await runTests(tests)).toContain('SUCCESS');
  });

  it.skipIf(!promtool)('says nothing of a server that does nothing (promtool)', async () => {
    const idle = { ...FULL, counts: { ...(FULL.counts as object), diverged: {} } } as typeof FULL;
    const values = Object.fromEntries(
      (await scrape([idle]))
        .split('\n')
        .map((line) => /^(walkeep_[a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line))
        .filter((found) => found !== null)
        .map(([, name, labels = '', value]): [string, string] => {
          const all = ['job="walkeep"', ...(labels === '' ? [] : [labels])].join(',');
          // Times of promtool begin at 0.
          const shown = name?.includes('timestamp') ? '0' : value;
          const moves = name === 'walkeep_clock_timestamp_seconds' ? '0+30x25' : `${shown}x25`;
          return [`${name}{${all}}`, moves];
        }),
    );
    expect(Object.keys(values).length).toBeGreaterThan(50);
    expect(await runTests([unitTest('idle', values, 10)])).toContain('SUCCESS');
  });
});
