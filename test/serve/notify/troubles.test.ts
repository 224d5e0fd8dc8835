import { expect, it } from 'vitest';
import { findTroubles } from '../../../src/serve/notify/troubles.js';
import type { ArchiveStatus, ServerStatus } from '../../../src/serve/status.js';
import { ago, archiveOf, around, HOUR, jobOf, NOW, serverOf } from './statuses.js';

const GAP = { timeline: 1, from: '0/1000000', to: '0/3000000', segments: 2, accepted: false };
const SLOT = { readAt: ago(0), name: 'walkeep', exists: true, walStatus: 'reserved' };
const BACKUP = {
  ...{ id: 'b', place: 'directory', type: 'full' as const, kept: false, reaches: [] },
};
const FAILED = { startedAt: ago(HOUR), endedAt: ago(HOUR), by: 'schedule' as const };
const error = { code: 'WK_STORAGE', message: 'the disk is gone' };

const of = (server: Partial<ServerStatus>, more: Parameters<typeof around>[0] = {}) =>
  findTroubles([serverOf(server)], around(more));
const kept = (archive: Partial<ArchiveStatus>) => of({ archive: archiveOf(archive) });
const kinds = (found: ReturnType<typeof of>) =>
  found.map(({ kind, severity }) => `${kind} ${severity}`);

it('finds nothing of a server that is well, or does nothing', () => {
  const day = 24 * HOUR;
  const jobs = [
    jobOf('verify_quick', { schedule: '5 * * * *', lastSuccess: ago(HOUR) }),
    jobOf('verify_full', { schedule: '0 4 * * sun' }),
    jobOf('backup_full', { schedule: '0 0 * * *', lastSuccess: ago(HOUR) }),
    jobOf('expire', { last: { ...FAILED, outcome: 'ended' } }),
  ];
  const stores = [
    {
      ...{ name: 'minio', place: 's3://x', state: 'away' as const, since: ago(HOUR) },
      ...{ rpoSeconds: 500, totals: { segments: 1, failures: 9 } },
    },
  ];
  const backup = { ...BACKUP, state: 'complete' as const };
  const archive = archiveOf({
    gaps: [{ ...GAP, accepted: true }],
    backups: [{ ...backup, endedAt: ago(day) }],
    slot: { ...SLOT, retainedBytes: 16e6, safeBytes: 1e9 },
  });
  const backupLimitSeconds = day / 1000;
  // For weeks nothing came.
  expect(of({ since: ago(21 * day), jobs, stores, archive, backupLimitSeconds })).toEqual([]);
  for (const state of ['starting', 'disconnected', 'restarting', 'paused'] as const) {
    expect(of({ state, rpoSeconds: 30 })).toEqual([]);
  }
});

it('finds that too much could be lost, however that came', () => {
  for (const state of ['streaming', 'disconnected', 'paused', 'held'] as const) {
    expect(kinds(of({ state, rpoSeconds: 30.1 }))).toContain('rpo critical');
  }
  expect(of({ rpoSeconds: 99, rpoLimitSeconds: 0 })).toEqual([]);
});

it('finds a receiver that is held, hangs or does not get on', () => {
  const ended = { code: 'WK_GAP', message: 'WAL is missing' };
  expect(of({ state: 'held', ended, since: ago(5000) })).toEqual([
    {
      ...{ server: 'shop', kind: 'receiver', severity: 'critical', since: NOW - 5000 },
      text: 'nothing is received until somebody looks: WAL is missing',
    },
  ]);
  expect(kinds(of({ silentSeconds: 12 }))).toEqual(['receiver critical']);
  expect(kinds(of({ ended }, { restarts: () => 3 }))).toEqual(['receiver warning']);
  expect(of({ ended }, { restarts: () => 2 })).toEqual([]);
});

it('finds WAL that is missing', () => {
  const [found, ...others] = kept({ gaps: [{ ...GAP, accepted: true }, GAP, GAP] });
  expect(others).toEqual([]);
  expect(found).toMatchObject({
    ...{ server: 'shop', kind: 'gap', severity: 'critical' },
    text: 'WAL is missing on timeline 1 from 0/1000000 to 0/3000000, and 1 more',
  });
});

it('finds a slot that does not keep what is needed', () => {
  const cases: [object, string[]][] = [
    [{ exists: false }, ['slot critical']],
    [{ exists: false, error }, []],
    [{ walStatus: 'lost' }, ['slot critical']],
    [{ walStatus: 'unreserved' }, ['slot critical']],
    [{ walStatus: 'extended' }, []],
    [{ retainedBytes: 81, safeBytes: 19 }, ['slot warning']],
    [{ retainedBytes: 80, safeBytes: 20 }, []],
    [{ retainedBytes: 1e12 }, []],
  ];
  for (const [slot, expected] of cases) {
    expect(kinds(kept({ slot: { ...SLOT, ...slot } })), JSON.stringify(slot)).toEqual(expected);
  }
  const members = {
    a: { covers: true, message: '' },
    b: { covers: false, message: 'it is behind' },
    c: { covers: null, message: 'it is away' },
  };
  const receiver = { state: 'streaming' as const, segments: 0, connections: 1, members };
  expect(of({ receiver }).map(({ about, severity }) => `${about} ${severity}`)).toEqual([
    ...['b warning', 'c warning'],
  ]);
});

it('finds a store that is held or too far behind', () => {
  const store = {
    ...{ name: 'minio', place: 's3://x', since: ago(5000), error, rpoSeconds: 0 },
    totals: { segments: 1, failures: 9 },
  };
  expect(of({ stores: [{ ...store, state: 'held' }] })).toMatchObject([
    { kind: 'ship', about: 'minio', severity: 'critical', since: NOW - 5000 },
  ]);
  const behind = { ...store, state: 'away' as const, rpoSeconds: 601 };
  expect(of({ stores: [behind] })).toMatchObject([
    { severity: 'warning', text: 'minio lacks WAL of more than 600 s: the disk is gone' },
  ]);
  expect(of({ stores: [behind], rpoLimitSeconds: 900 })).toEqual([]);
});

it('finds what a check found, and a check that did not succeed for two of its times', () => {
  const bad = jobOf('verify_full', { last: { ...FAILED, outcome: 'bad', findings: 2 } });
  expect(of({ jobs: [bad] })).toMatchObject([
    {
      ...{ kind: 'verify', severity: 'critical', about: 'verify_full directory' },
      text: 'the full check of directory found 2 faults',
    },
  ]);
  // What was broken off, or could not look, has not mended anything.
  for (const outcome of ['ended', 'failed'] as const) {
    const last = { ...FAILED, outcome, endedAt: ago(0) };
    const after = jobOf('verify_full', { ...(bad.last && { verdict: bad.last }), last });
    expect(of({ jobs: [after] })).toEqual(of({ jobs: [bad] }));
  }
  const hourly = (lastSuccess?: string) =>
    jobOf('verify_quick', {
      schedule: '5 * * * *',
      last: { ...FAILED, outcome: 'failed', error },
      ...(lastSuccess === undefined ? {} : { lastSuccess }),
    });
  // At 12:00 the last two times were 11:05 and 10:05.
  expect(of({ jobs: [hourly(ago(HOUR + 50 * 60_000))] })).toEqual([]);
  expect(of({ jobs: [hourly(ago(2 * HOUR))] })).toMatchObject([
    {
      ...{ kind: 'verify', severity: 'warning' },
      text: 'the quick check of directory did not succeed for two of its times: the disk is gone',
    },
  ]);
  // Of one that never did, since it could.
  expect(of({ jobs: [hourly()] }, { begun: NOW - HOUR })).toEqual([]);
  expect(of({ jobs: [hourly()] }, { begun: NOW - 2 * HOUR })).toHaveLength(1);
  const unread = { kind: 'verify', about: 'archive' };
  const late = { code: 'WK_PROCESS', message: 'the archive was not read' };
  expect(kept({ error: late })).toMatchObject([
    { ...unread, severity: 'warning', patience: 600_000 },
  ]);
  const gone = { code: 'WK_ARCHIVE_ACCESS', message: 'could not open directory' };
  expect(kept({ error: gone })).toMatchObject([
    { ...unread, severity: 'critical', patience: 60_000 },
  ]);
});

it('finds jobs that failed, until one of their kind succeeds there', () => {
  const failed = { ...FAILED, outcome: 'failed' as const, error };
  const jobs = [
    jobOf('backup_incremental', { last: failed }),
    jobOf('backup_full', { lastSuccess: ago(2 * HOUR) }),
    jobOf('expire', { last: failed, place: 'minio' }),
    jobOf('rehearse', { last: { ...failed, outcome: 'bad' } }),
  ];
  expect(kinds(of({ jobs }))).toEqual(['backup critical', 'expire warning', 'rehearse critical']);
  const ended = { ...FAILED, outcome: 'ended' as const, endedAt: ago(0) };
  const brokenOff = jobOf('backup_incremental', { last: ended, verdict: failed });
  expect(kinds(of({ jobs: [brokenOff] }))).toEqual(['backup critical']);
  const full = jobOf('backup_full', { lastSuccess: ago(0) });
  expect(of({ jobs: [jobOf('backup_incremental', { last: failed }), full] })).toEqual([]);
  const elsewhere = { ...full, place: 'minio' };
  expect(of({ jobs: [jobOf('backup_incremental', { last: failed }), elsewhere] })).toHaveLength(1);
});

it('finds that the newest backup is too old, or that there is none', () => {
  const backupLimitSeconds = HOUR / 1000;
  const stored = { ...BACKUP, state: 'complete' as const };
  const withBackups = (...backups: ArchiveStatus['backups']) =>
    of({ archive: archiveOf({ backups }), backupLimitSeconds });
  expect(withBackups({ ...stored, endedAt: ago(HOUR) })).toEqual([]);
  expect(withBackups({ ...stored, endedAt: ago(HOUR + 1) })).toMatchObject([
    { kind: 'backup', text: 'the newest backup is older than 3600 s' },
  ]);
  expect(withBackups({ ...stored, state: 'failed', endedAt: ago(0) })).toMatchObject([
    { kind: 'backup', text: 'there is no backup that is complete' },
  ]);
  // Of another place nothing is known yet.
  const places = [{ place: 'directory', readAt: ago(0) }, { place: 'minio' }];
  expect(of({ archive: archiveOf({ places }), backupLimitSeconds })).toEqual([]);
  // What cannot be read may have one, too; nobody is left to think so for long.
  const unread = archiveOf({ places: [places[0], { place: 'minio', error }] as typeof places });
  expect(of({ archive: unread, backupLimitSeconds })).toEqual([
    {
      ...{ server: 'shop', kind: 'backup', severity: 'warning', patience: 600_000 },
      text: 'the age of the newest backup is not known: backups in minio cannot be read: the disk is gone',
    },
  ]);
  expect(of({ archive: unread })).toEqual([]);
  expect(of({ backupLimitSeconds })).toEqual([]);
});

it('finds a configuration that was not taken', () => {
  const [found] = of({}, { configIsGood: false });
  expect(found).toMatchObject({ kind: 'reload', severity: 'warning' });
  expect(found?.server).toBeUndefined();
});
