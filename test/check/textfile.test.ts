import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CheckReport } from '../../src/check/check.js';
import { metricsOf } from '../../src/check/textfile.js';
import { writeTextfile } from '../../src/files/textfile.js';
import { readExposition } from '../support/exposition.js';
import { scratchDir } from '../support/scratch.js';

const AT = new Date(1_800_000_000_500);

const REPORT: CheckReport = {
  results: [
    { check: 'slot', status: 'ok', message: '' },
    { check: 'slot', status: 'warn', message: '' },
    { check: 'slot', status: 'unknown', message: '' },
    { check: 'clock', status: 'unknown', message: '' },
    { check: 'clock', status: 'ok', message: '' },
    { check: 'disk "x\\y"\n', status: 'fail', message: '' },
  ],
  recoveryPoint: { bytes: 12_345n, seconds: 1.25, silence: 3 },
  free: 1e12,
};

test('metrics of a check are what it found, in the exposition format', () => {
  const archive = '/with "quotes"';
  const read = readExposition(String(metricsOf(archive, REPORT, AT)));
  for (const { labels } of read) expect(labels.archive).toBe(archive);
  const of = (name: string) =>
    read.filter((s) => s.name === `walkeep_check_${name}`).map((s) => s.value);
  expect(of('status')).toEqual([2]);
  expect(of('timestamp_seconds')).toEqual([1_800_000_000.5]);
  expect(of('behind_bytes')).toEqual([12_345]);
  expect(of('behind_seconds')).toEqual([1.25]);
  expect(of('free_bytes')).toEqual([1e12]);
  const results = read.filter((s) => s.name === 'walkeep_check_result');
  expect(results.map(({ labels, value }) => [labels.check, value])).toEqual([
    ['slot', 1],
    ['clock', 3],
    ['disk "x\\y"\n', 2],
  ]);
});

test('what was not measured is no metric', () => {
  const report = { results: [], recoveryPoint: undefined, free: undefined };
  const names = readExposition(String(metricsOf('s3://wal', report, AT))).map((s) => s.name);
  expect(names).toEqual(['walkeep_check_status', 'walkeep_check_timestamp_seconds']);
  const untimed = {
    ...report,
    recoveryPoint: { bytes: 1n, seconds: undefined, silence: undefined },
  };
  const text = String(metricsOf('s3://wal', untimed, AT));
  expect(text).toContain('walkeep_check_behind_bytes{archive="s3://wal"} 1\n');
  expect(text).not.toContain('behind_seconds');
});

test('the file is replaced, and nothing stays beside it', async () => {
  const directory = scratchDir('textfile');
  const path = join(directory, 'check.prom');
  for (const free of [1, 2]) {
    await writeTextfile(path, metricsOf('/a', { ...REPORT, free }, AT));
    expect(readFileSync(path, 'utf8')).toContain(
      `walkeep_check_free_bytes{archive="/a"} ${free}\n`,
    );
  }
  expect(readdirSync(directory)).toEqual(['check.prom']);
  mkdirSync(join(directory, 'taken'));
  const taken = writeTextfile(join(directory, 'taken'), metricsOf('/a', REPORT, AT));
  await expect(taken).rejects.toMatchObject({ code: 'WK_STORAGE' });
});
