import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ServerConfig, WorkConfig } from '../../../src/serve/config/config.js';
import { Lines } from '../../../src/serve/jobs/lines.js';
import { type JobMemory, readMemory, writeMemory } from '../../../src/serve/jobs/memory.js';
import { plansOf } from '../../../src/serve/jobs/plan.js';
import { ResultReader } from '../../../src/serve/jobs/results.js';
import type { JobName } from '../../../src/serve/status.js';
import { scratchDir } from '../../support/scratch.js';

const server: ServerConfig = {
  ...{ name: 'shop', directory: '/wal/shop', ensureSlot: false, synchronous: true },
  connection: 'postgresql://me@db1,db2:5433/?application_name=walkeep&options=-c%20x%3D\\1',
  passwordFile: '/etc/walkeep/shop',
  compression: { method: 'none' },
};
const store = {
  ...{ name: 'minio', place: 's3://wal/shop', recipients: ['age1x', 'age1y'], compress: 'zstd:9' },
  ...{ accessKeyFile: '/k/id', secretKeyFile: '/k/secret', identityFile: '/k/age' },
};
const work = (more: Partial<WorkConfig>): WorkConfig => ({
  ...{ server, rpo: 1000, stores: [store], verify: {}, hooks: {} },
  ...more,
});
const plan = (given: WorkConfig, job: JobName, place = 'directory') =>
  plansOf(given).find(({ spec }) => spec.job === job && spec.place === place);

describe('plans', () => {
  it('take backups under a name of their own, without any secret in the arguments', () => {
    const backup = { full: '0 1 * * *', to: 'minio', verifyPages: true };
    const full = plan(work({ backup }), 'backup_full', 'minio');
    expect(full?.schedule).toBe('0 1 * * *');
    expect(full?.spec.args).toEqual([
      ...['backup', '--json', '--no-password'],
      "--dbname=user='me' host='db1,db2' port=',5433' application_name='walkeep backup' options='-c x=\\\\1'",
      ...['--verify-pages', '--compress=zstd:9', '--recipient=age1x', '--recipient=age1y'],
      ...['--identity=/k/age', '--', 's3://wal/shop'],
    ]);
    expect(full?.spec.secrets).toEqual({
      ...{ PGPASSWORD: '/etc/walkeep/shop' },
      ...{ AWS_ACCESS_KEY_ID: '/k/id', AWS_SECRET_ACCESS_KEY: '/k/secret' },
    });
    const args = (job: JobName) => plan(work({ backup }), job, 'minio')?.spec.args;
    expect(args('backup_differential')).toContain('--incremental=full');
    expect(args('backup_incremental')).toContain('--incremental=last');
  });

  it('verify the directory, and in full each store that can be read', () => {
    const verify = { quick: '5 * * * *', full: '0 4 * * sun' };
    const { identityFile: _, ...closed } = { ...store, name: 'closed' };
    const plans = plansOf(work({ verify, stores: [store, closed] }));
    const found = plans.filter(({ spec }) => spec.job.startsWith('verify'));
    expect(found.map(({ spec }) => [spec.job, spec.place, spec.args.join(' ')])).toEqual([
      ['verify_quick', 'directory', 'verify --json --quick -- /wal/shop'],
      ['verify_full', 'directory', 'verify --json -- /wal/shop'],
      ['verify_full', 'minio', 'verify --json --identity=/k/age -- s3://wal/shop'],
    ]);
    expect(found.map(({ spec }) => spec.secrets.PGPASSWORD)).toEqual([...Array(3)]);
  });

  it('expire each place that has a retention, and rehearse', () => {
    const retention = { window: 14 * 86_400_000, redundancy: 2, at: '45 4 * * *' };
    const given = work({
      ...{ retention, stores: [{ ...store, retention: { redundancy: 1, at: '0 5 * * *' } }] },
      rehearse: { at: '0 6 * * *', from: 'minio', sql: ['SELECT 1\n  FROM t'], timeout: 3_600_000 },
      hooks: { before_expire: ['/bin/true'], after_rehearse: ['/bin/false', 'x'] },
    });
    expect(plan(given, 'expire')?.spec.args.slice(2)).toEqual([
      ...['--window=1209600s', '--redundancy=2', '--', '/wal/shop'],
    ]);
    expect(plan(given, 'expire', 'minio')).toMatchObject({
      ...{ schedule: '0 5 * * *', at: 's3://wal/shop' },
      spec: { before: ['/bin/true'] },
    });
    expect(plan(given, 'rehearse', 'minio')?.spec).toMatchObject({
      args: [
        ...['rehearse', '--json', '--sql=SELECT 1 FROM t', '--timeout=3600'],
        ...['--identity=/k/age', '--', 's3://wal/shop'],
      ],
      after: ['/bin/false', 'x'],
    });
    expect(plan(work({}), 'expire')).toBeUndefined();
  });
});

describe('results', () => {
  const read = (job: JobName, lines: object[], code: number | undefined) => {
    const told: string[] = [];
    const reader = new ResultReader(job, (level, message) => void told.push(`${level} ${message}`));
    for (const line of lines) reader.take(JSON.stringify(line));
    return { ...reader.outcome(code), told };
  };
  const summary = { type: 'summary', errors: 1, warnings: 1 };

  it('count only of commands that came to their end', () => {
    expect(read('verify_quick', [{ ...summary, errors: 0, warnings: 0 }], 0).outcome).toBe('good');
    expect(read('verify_quick', [summary], 1)).toMatchObject({ outcome: 'bad', findings: 2 });
    expect(read('verify_quick', [summary], 2).outcome).toBe('failed');
    for (const job of ['verify_full', 'backup_full', 'expire', 'rehearse'] as const) {
      // A node that does not start ends with 1, and may with 0.
      for (const code of [0, 1, undefined]) expect(read(job, [], code).outcome).toBe('failed');
    }
    expect(read('backup_full', [{ type: 'backup', id: 'X', size: 1 }], 0).outcome).toBe('good');
    expect(read('backup_full', [{ type: 'backup', id: 'X', size: 1 }], 1).outcome).toBe('failed');
    expect(read('expire', [{ type: 'expire' }], 3).outcome).toBe('good');
    expect(read('expire', [{ type: 'expire' }], 1).outcome).toBe('failed');
    expect(read('rehearse', [{ outcome: 'good', findings: [] }], 0).outcome).toBe('good');
  });

  it('have the problem of a rehearsal, and some findings of many', () => {
    const problem = { code: 'WK_REHEARSE', message: 'no', more: 1 };
    expect(read('rehearse', [{ outcome: 'bad', problem, findings: [1] }], 1)).toMatchObject({
      ...{ outcome: 'bad', findings: 1, error: { code: 'WK_REHEARSE', message: 'no' } },
    });
    const finding = {
      type: 'finding',
      severity: 'error',
      code: 'zeros',
      file: 'F',
      message: 'bad',
    };
    const all = [...Array(50).fill(finding), { ...summary, errors: 50, warnings: 0 }];
    const { told, findings } = read('verify_full', all, 1);
    expect({ findings, told: told.length }).toEqual({ findings: 50, told: 21 });
    expect(told[0]).toBe('error F: bad (zeros)');
    expect(told.at(-1)).toContain('30 findings more');
  });

  it('do not count a gap that somebody accepted, and count all else beside it', () => {
    const gap = { type: 'finding', severity: 'warning', code: 'accepted-gap', message: 'missing' };
    const summed = (errors: number, warnings: number) => ({ type: 'summary', errors, warnings });
    const known = read('verify_full', [gap, summed(0, 1)], 1);
    expect(known).toMatchObject({ outcome: 'good', findings: 0 });
    expect(known.told).toEqual(['info missing (accepted-gap)']);
    const more = read('verify_full', [gap, { ...gap, code: 'stray-file' }, summed(0, 2)], 1);
    expect(more).toMatchObject({ outcome: 'bad', findings: 1 });
    expect(read('verify_full', [gap, summed(1, 1)], 1).outcome).toBe('bad');
    expect(read('verify_full', [gap, summed(0, 1)], 2).outcome).toBe('failed');
  });
});

it('lines are cut where they are too long, and characters are kept together', () => {
  const found: string[] = [];
  const lines = new Lines(5, (line) => void found.push(line));
  const bytes = Buffer.from('ab\r\n\nüüüüüüü\nrest');
  for (const byte of bytes) lines.take(Buffer.from([byte]));
  lines.end();
  expect(found).toEqual(['ab', 'üüüüü', 'rest']);
});

describe('what is noted', () => {
  const memory: JobMemory = {
    ...{ job: 'backup_full', place: 'minio', seen: '2026-05-01T00:00:00.000Z' },
    dealt: ['2026-05-01T00:00:00.000Z'],
    running: { startedAt: '2026-05-01T00:00:00.000Z', by: 'missed' },
    last: {
      ...{ startedAt: '2026-04-01T00:00:00.000Z', endedAt: '2026-04-01T01:00:00.000Z' },
      ...{ outcome: 'failed', by: 'schedule', error: { code: 'WK_X', message: 'm', hint: 'h' } },
    },
    verdict: {
      ...{ startedAt: '2026-03-01T00:00:00.000Z', endedAt: '2026-03-01T01:00:00.000Z' },
      ...{ outcome: 'bad', by: 'request', findings: 1 },
    },
  };

  it('is read again', async () => {
    const directory = scratchDir('memory');
    expect(await readMemory(directory)).toBeUndefined();
    await writeMemory(directory, [memory]);
    expect(await readMemory(directory)).toEqual([memory]);
    const file = JSON.parse(readFileSync(join(directory, '.walkeep-jobs'), 'utf8'));
    expect(file.version).toBe(1);
  });

  it('is not believed if it is none of ours', async () => {
    const wrong = ['', '{', '[]', '{"version":2,"jobs":[]}', '{"version":1,"jobs":[{"job":"x"}]}'];
    for (const text of wrong) {
      const directory = scratchDir('memory');
      writeFileSync(join(directory, '.walkeep-jobs'), text);
      await expect(readMemory(directory)).rejects.toMatchObject({ code: 'WK_STORAGE' });
    }
    const directory = scratchDir('memory');
    symlinkSync('/etc/hostname', join(directory, '.walkeep-jobs'));
    await expect(readMemory(directory)).rejects.toMatchObject({ code: 'WK_STORAGE' });
  });
});
