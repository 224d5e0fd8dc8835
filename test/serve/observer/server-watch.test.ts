import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Budget } from '../../../src/serve/observer/budget.js';
import type { LookAnswer, LookJob, WalLook } from '../../../src/serve/observer/jobs.js';
import { ServerWatch } from '../../../src/serve/observer/server-watch.js';
import { scratchDir } from '../../support/scratch.js';
import { waitFor } from '../../support/wait.js';

const READ = '2026-11-28T12:00:00.000Z';
const wal = (more: Partial<WalLook> = {}): WalLook => ({
  ...{ readAt: READ, segments: 3, bytes: 3, timelines: [], gaps: [], latest: 1, incomplete: false },
  ...more,
});
const backups = { readAt: READ, backups: [], more: 0, reaches: [] };

function watching(answer: (job: LookJob) => LookAnswer | Promise<LookAnswer>) {
  const directory = scratchDir('watch');
  const jobs: LookJob[] = [];
  let news = 0;
  const server = {
    ...{ name: 'shop', connection: '', directory, ensureSlot: false, synchronous: false },
    compression: { method: 'none' as const },
  };
  const watch = new ServerWatch({
    observed: { server, stores: [{ name: 'minio', place: 's3://x' }] },
    budget: new Budget(0),
    shapes: new Budget(0),
    look: async (_, job) => {
      jobs.push(job);
      return answer(job);
    },
    slot: async () => ({ readAt: READ, name: 'w', exists: true, walStatus: 'reserved' }),
    news: () => {
      news += 1;
    },
  });
  const tick = () => watch.tick(performance.now());
  const status = () => watch.status(performance.now());
  const looked = () =>
    waitFor(() => {
      tick();
      return status();
    });
  const walJobs = () => jobs.filter(({ kind }) => kind === 'wal');
  return { watch, directory, jobs, walJobs, tick, status, looked, news: () => news };
}

it('tells nothing before it has looked everywhere, and then all of it', async () => {
  let answer = (_: LookAnswer): void => {};
  const store = new Promise<LookAnswer>((resolve) => {
    answer = resolve;
  });
  const reach = { backup: 'b', from: 1000, to: 2000, timeline: 1, beside: false };
  const { watch, status, tick, looked, jobs } = watching((job) => {
    if (job.kind === 'wal') return { busy: 1, wal: wal() };
    if (job.kind === 'backups' && job.store) return store;
    return { busy: 1, backups: { ...backups, reaches: [{ ...reach, place: 'directory' }] } };
  });
  await waitFor(() => {
    tick();
    return jobs.length >= 3;
  });
  expect(watch.status(0)).toBeUndefined();
  answer({
    busy: 1,
    backups: { ...backups, reaches: [{ ...reach, to: 3000, place: 'minio' }] },
  });
  const told = await looked();
  expect(told).toMatchObject({
    ...{ segments: 3, latest: 1, places: [{ place: 'directory' }, { place: 'minio' }] },
    windows: [{ from: new Date(1000).toISOString(), to: new Date(3000).toISOString() }],
  });
  await waitFor(() => status()?.slot?.exists);
});

it('looks again when a name comes or goes, and not while none does', async () => {
  const { directory, walJobs, looked, tick } = watching((job) =>
    job.kind === 'wal' ? { busy: 900, wal: wal() } : { busy: 1, backups },
  );
  await looked();
  // What came just before the first look may be looked at twice.
  let before = -1;
  await waitFor(
    () => {
      tick();
      const calm = walJobs().length === before;
      before = walJobs().length;
      return calm;
    },
    { intervalMs: 400 },
  );
  writeFileSync(join(directory, 'x'), '');
  await waitFor(() => {
    tick();
    return walJobs().length > before;
  });
});

it('asks names first where a look takes long', async () => {
  const { directory, walJobs, looked, tick } = watching((job) =>
    job.kind === 'wal' ? { busy: 900, wal: wal() } : { busy: 1, backups },
  );
  await looked();
  writeFileSync(join(directory, 'x'), '');
  await waitFor(() => {
    tick();
    return walJobs().some((job) => job.kind === 'wal' && job.unless === 'same');
  });
});

it('says that a disk gives no answer, and since when nothing was read', async () => {
  let hangs = false;
  const { watch, directory, looked, tick, jobs } = watching((job) => {
    if (hangs) return new Promise(() => {});
    return job.kind === 'wal' ? { busy: 1, wal: wal() } : { busy: 1, backups };
  });
  await looked();
  hangs = true;
  const before = jobs.length;
  writeFileSync(join(directory, 'x'), '');
  await waitFor(() => {
    tick();
    return jobs.length > before;
  });
  const later = performance.now() + 16_000;
  expect(watch.status(later)).toMatchObject({
    segments: 3,
    error: { code: 'WK_TIMEOUT', message: expect.stringContaining(`not read since ${READ}`) },
  });
});

it('says so of one that never answered', () => {
  const { watch, tick } = watching(() => new Promise(() => {}));
  tick();
  expect(watch.status(0)).toBeUndefined();
  expect(watch.status(performance.now() + 21_000)).toMatchObject({
    ...{ segments: 0, error: { code: 'WK_TIMEOUT' } },
  });
});

it('keeps what it has when a place cannot be read, and says which', async () => {
  let fails = false;
  const error = { code: 'WK_STORE_UNCERTAIN', message: 'away' };
  const { looked, watch, tick, status } = watching((job) => {
    if (job.kind === 'wal') return fails ? { busy: 1, error } : { busy: 1, wal: wal() };
    return job.kind === 'backups' && job.store ? { busy: 1, error } : { busy: 1, backups };
  });
  const told = await looked();
  expect(told.error).toBeUndefined();
  expect(told.places).toEqual([
    { place: 'directory', readAt: READ },
    { place: 'minio', error },
  ]);
  fails = true;
  const later = performance.now() + 100_000;
  await waitFor(() => {
    watch.tick(later);
    return status()?.error;
  });
  expect(status()).toMatchObject({ segments: 3, readAt: READ, error });
  tick();
});
