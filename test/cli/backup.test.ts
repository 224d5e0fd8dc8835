import { expect, it } from 'vitest';
import type { BackupProgress } from '../../src/backup/options.js';
import { BackupMeter, parseMaxRate } from '../../src/cli/commands/backup.js';
import { captureOutput, run } from './run.js';

it.each([
  ['32', 32],
  ['100k', 100],
  ['100M', 102_400],
  ['1024M', 1_048_576],
])('--max-rate=%s is %i kB a second', (text, rate) => {
  expect(parseMaxRate(text)).toBe(rate);
});

it.each([
  [[], 'no archive specified'],
  [['a', 'b'], 'too many command-line arguments (first is "b")'],
  [['--max-rate=31', 'a'], 'invalid value "31" for option --max-rate'],
  [['--max-rate=1G', 'a'], 'invalid value "1G" for option --max-rate'],
  [['--checkpoint=soon', 'a'], 'invalid value "soon" for option --checkpoint'],
  [['--wal=none', 'a'], 'invalid value "none" for option --wal'],
  [['--incremental=never', 'a'], 'there is no backup "never" to base an incremental one on'],
  [['-Z', 'gzip:12', 'a'], 'invalid value "gzip:12" for option --compress'],
])('backup %j says what is wrong', async (args, message) => {
  const { code, stderr } = await run('walkeep', 'backup', ...args);
  expect(code).toBe(1);
  expect(stderr).toContain(`walkeep: error: ${message}`);
});

const progress = (fields: Partial<BackupProgress>): BackupProgress => ({
  ...{ phase: 'copy', id: 'x', bytes: 0, stored: 0, files: 0 },
  ...fields,
});
const TB = 1e12;

it('tells rate and time left on a line that fits into any terminal', () => {
  const { output } = captureOutput('walkeep');
  const meter = new BackupMeter(output, false, false);
  meter.show(progress({ bytes: 0, total: 2e9 }), 0);
  expect(meter.line(progress({ bytes: 5e8, total: 2e9 }), 5000)).toBe(
    '[####............] 25 %  500.0 MB of 2.0 GB, 100.0 MB/s, 15.0 s left',
  );
  // The estimate was too low: it does not go beyond the end.
  expect(meter.line(progress({ bytes: 3e9, total: 2e9 }), 5000)).toContain(
    '100 %  3.0 GB of 3.0 GB',
  );
  expect(meter.line(progress({ bytes: 5e8 }), 5000)).toBe('500.0 MB, 100.0 MB/s');
  const lines = [
    meter.line(progress({ bytes: 999.9 * TB, total: 999.9 * TB }), 1),
    meter.line(progress({ bytes: 111.1 * TB, total: 999.9 * TB }), 1e9),
    meter.line(progress({ phase: 'wal', waitingFor: '0000000100000000000000A4' }), 1),
  ];
  for (const line of lines) expect(line.length).toBeLessThan(80);
});

it('says nothing without a terminal unless asked, and then now and then', () => {
  const { output, stderr } = captureOutput('walkeep');
  const quiet = new BackupMeter(output, false, false);
  quiet.show(progress({ bytes: 5, total: 10 }), 0);
  expect(stderr.text).toBe('');
  const told = new BackupMeter(output, false, true);
  for (let at = 0; at < 25_000; at += 200) told.show(progress({ bytes: at, total: 25_000 }), at);
  told.show(progress({ phase: 'commit' }), 25_100);
  expect(stderr.text.trim().split('\n')).toHaveLength(4);
});

it('shows one line on a terminal, which the result takes away', () => {
  const { output, stderr } = captureOutput('walkeep', {}, true);
  const meter = new BackupMeter(output, false, false);
  meter.show(progress({ bytes: 5, total: 10 }), 0);
  meter.show(progress({ bytes: 6, total: 10 }), 200);
  expect(stderr.text.startsWith('\r\x1b[K[')).toBe(true);
  expect(stderr.text).not.toContain('\n');
});

it('prints an object a line with --json', () => {
  const { output, stdout } = captureOutput('walkeep', {}, true);
  new BackupMeter(output, true, true).show(progress({ bytes: 5, total: 10 }), 0);
  expect(JSON.parse(stdout.text)).toMatchObject({ type: 'progress', phase: 'copy', bytes: 5 });
});
