import { expect, test } from 'vitest';
import { duration, reportJson, reportText } from '../../src/cli/rehearse/output.js';
import type { Lsn } from '../../src/lsn.js';
import type { RehearseReport } from '../../src/rehearse/options.js';
import { guardedSettings } from '../../src/rehearse/server.js';
import { metricsOf } from '../../src/rehearse/textfile.js';

const GOOD: RehearseReport = {
  ...{ outcome: 'good', problem: undefined, places: ['/with "quotes"', 's3://wal'] },
  ...{ began: new Date(1_800_000_060_000), plan: undefined, server: undefined },
  steps: { restore: 75_000, start: 100, recovery: 9000, queries: 500 },
  ...{ recovery: 84_100, total: 84_600, files: 12 },
  reached: { lsn: 0x1_0000_0028n as Lsn, promoted: false },
  lastCommit: new Date(1_800_000_000_500),
  databases: [{ name: 'postgres', relations: 400, size: 7_000_000 }],
  reading: { checksums: false, tables: 70, bytes: 1e6, sampled: 1, compared: 60 },
  ...{ findings: [], warnings: [], log: [], swept: [] },
  queries: [{ sql: `SELECT ${'very '.repeat(20)}long`, rows: 1, first: ['x\ny'], duration: 1 }],
};

const BAD: RehearseReport = {
  ...GOOD,
  outcome: 'bad',
  problem: { code: 'WK_REHEARSE', message: 'postgres, t: invalid page' },
  findings: [{ database: 'postgres', relation: 't', message: 'invalid page' }],
};

test.each([true, false])('the report fits 80 columns (plain: %s)', (plain) => {
  for (const report of [GOOD, BAD, { ...GOOD, places: ['/x'.repeat(100)] }]) {
    const { problem, ...rest } = report;
    const text = reportText({ ...rest, problem }, plain);
    for (const line of text.split('\n')) expect([...line].length).toBeLessThanOrEqual(80);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
    if (plain) expect(text.replaceAll(/[→…]/g, '')).toMatch(/^[\x00-\x7f]*$/);
  }
  expect(reportText(GOOD, plain)).toMatch(/^GOOD: .* in 1 min 24 s\.$/m);
  expect(reportText(BAD, plain)).toMatch(/^ {2}BAD {2}postgres, t: invalid page$/m);
});

test('the report as JSON has LSNs as text', () => {
  expect(JSON.parse(reportJson(GOOD))).toMatchObject({
    outcome: 'good',
    reached: { lsn: '1/28' },
    lastCommit: '2027-01-15T08:00:00.500Z',
  });
});

test('durations', () => {
  expect([20, 9_990, 59_900, 60_000, 3_600_000, 7_560_000].map(duration)).toEqual([
    ...['0.02 s', '9.99 s', '59.9 s', '1 min 00 s', '1 h 00 min', '2 h 06 min'],
  ]);
});

test('metrics say what was measured, and nothing that was not', () => {
  const now = new Date(1_800_000_200_000);
  expect(String(metricsOf(GOOD, now))).toBe(`\
# HELP walkeep_rehearse_success Whether the last rehearsal found a good archive.
# TYPE walkeep_rehearse_success gauge
walkeep_rehearse_success{archive="/with \\"quotes\\""} 1
# HELP walkeep_rehearse_timestamp_seconds When the last rehearsal ended.
# TYPE walkeep_rehearse_timestamp_seconds gauge
walkeep_rehearse_timestamp_seconds{archive="/with \\"quotes\\""} 1800000200.000
# HELP walkeep_rehearse_duration_seconds How long each step took, and all of them.
# TYPE walkeep_rehearse_duration_seconds gauge
walkeep_rehearse_duration_seconds{archive="/with \\"quotes\\"",step="restore"} 75.000
walkeep_rehearse_duration_seconds{archive="/with \\"quotes\\"",step="start"} 0.100
walkeep_rehearse_duration_seconds{archive="/with \\"quotes\\"",step="recovery"} 9.000
walkeep_rehearse_duration_seconds{archive="/with \\"quotes\\"",step="queries"} 0.500
walkeep_rehearse_duration_seconds{archive="/with \\"quotes\\"",step="total"} 84.600
# HELP walkeep_rehearse_recovery_seconds Restore, start and recovery: the measured recovery time.
# TYPE walkeep_rehearse_recovery_seconds gauge
walkeep_rehearse_recovery_seconds{archive="/with \\"quotes\\""} 84.100
# HELP walkeep_rehearse_last_commit_timestamp_seconds Of the last transaction that the restored server has.
# TYPE walkeep_rehearse_last_commit_timestamp_seconds gauge
walkeep_rehearse_last_commit_timestamp_seconds{archive="/with \\"quotes\\""} 1800000000.500
`);
  const unknown: RehearseReport = {
    ...{ ...GOOD, outcome: 'unknown', steps: {}, total: 0 },
    ...{ recovery: undefined, lastCommit: undefined },
  };
  const text = String(metricsOf(unknown, now));
  expect(text).toMatch(/^walkeep_rehearse_success\{.*\} 0$/m);
  expect(text).not.toMatch(/recovery_seconds|last_commit/);
});

test('the server is cut off from everything, unless somebody says otherwise', () => {
  const scratch = {
    ...{ path: '/s', dataDir: '/s/data', tablespaces: '/s/t', socket: '/s, "x"/s' },
    ...{ log: '/s/log', hba: '/s/hba.conf', ident: '/s/ident.conf' },
  };
  const of = (major: number, more: object = {}) =>
    Object.fromEntries(
      guardedSettings({
        ...{ scratch, major, promote: false, keepPreload: false, settings: {} },
        ...more,
      }),
    );
  expect(of(17)).toMatchObject({
    ...{ listen_addresses: '', archive_mode: 'off', primary_conninfo: '' },
    ...{ max_logical_replication_workers: '0', shared_preload_libraries: '' },
    ...{ unix_socket_directories: '"/s, ""x""/s"', sync_replication_slots: 'off' },
  });
  expect(of(16)).not.toHaveProperty('sync_replication_slots');
  expect(of(14)).toHaveProperty('stats_temp_directory');
  expect(of(17, { keepPreload: true })).not.toHaveProperty('shared_preload_libraries');
  expect(of(17, { settings: { work_mem: '1MB' } })).toMatchObject({ work_mem: '1MB' });
});
