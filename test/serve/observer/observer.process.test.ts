import { readFileSync, renameSync } from 'node:fs';
import { constants, getPriority, setPriority } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ArchiveStatus } from '../../../src/serve/status.js';
import { fixtureArchive } from '../../support/archives.js';
import { runCli } from '../../support/cli.js';
import { commitArchive } from '../../support/commit-archive.js';
import { childrenOf, isRunning, signal } from '../../support/processes.js';
import { scratchDir } from '../../support/scratch.js';
import { type ServerEntry, Serving } from '../../support/serving.js';
import { waitFor } from '../../support/wait.js';

/** Nobody listens there: archives are looked at all the same. */
const away = (directory: string): ServerEntry => ({
  connection: 'host=127.0.0.1 port=1 user=x',
  ...{ directory, slot: 'walkeep' },
});

/** What "list --json" says is missing. */
async function listedGaps(directory: string) {
  const run = runCli(['list', '--json', directory]);
  await run.exit;
  const objects = run.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  return objects
    .filter(({ type }) => type === 'gap')
    .map(({ timeline, from, to }) => ({ timeline, from, to }));
}

describe('the observer of archives', () => {
  let serving: Serving;
  const { directory: shop, names } = commitArchive();
  const forked = fixtureArchive('promoted');
  const empty = scratchDir('archive');

  beforeAll(async () => {
    serving = await Serving.start({ shop: away(shop), forked: away(forked), empty: away(empty) });
  });

  afterAll(() => serving.run.stop('SIGKILL'));

  const archive = async (name: string): Promise<ArchiveStatus | undefined> =>
    (await serving.status(name)).archive;
  const told = (
    name: string,
    wanted: (archive: ArchiveStatus) => unknown,
  ): Promise<ArchiveStatus> =>
    waitFor(
      async () => {
        const found = await archive(name);
        return found && wanted(found) ? found : undefined;
      },
      { timeoutMs: 120_000 },
    );
  const observer = () =>
    waitFor(() =>
      childrenOf(serving.run.pid).find((pid) =>
        readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('observer'),
      ),
    );

  it('tells of each server what its archive holds', async () => {
    expect(await told('shop', ({ segments }) => segments === names.length)).toMatchObject({
      ...{ gaps: [], backups: [], windows: [], latest: 1 },
      places: [{ place: 'directory', readAt: expect.any(String) }],
      freeBytes: expect.any(Number),
    });
    const { timelines } = await told('forked', (one) => one.timelines.length === 2);
    expect(timelines[1]).toMatchObject({ timeline: 2, parent: 1, branch: expect.any(String) });
    expect(await told('empty', () => true)).toMatchObject({ segments: 0, timelines: [] });
    // Of a server that cannot be asked that is said, and not that it has no slot.
    const { slot } = await told('empty', (one) => one.slot);
    expect(slot).toMatchObject({ name: 'walkeep', error: { code: 'WK_CONNECTION' } });
  });

  it('tells of a gap when it is there, and not any more when it is not', async () => {
    const gone = join(scratchDir('gone'), 'segment');
    const path = join(shop, names[4] as string);
    renameSync(path, gone);
    const { gaps } = await told('shop', (one) => one.gaps.length === 1);
    expect(gaps.map(({ timeline, from, to }) => ({ timeline, from, to }))).toEqual(
      await listedGaps(shop),
    );
    expect(gaps[0]).toMatchObject({ accepted: false, segments: 1, after: expect.any(String) });
    renameSync(gone, path);
    await told('shop', (one) => one.gaps.length === 0);
  });

  it('is replaced when it is killed, and when it is stopped', async () => {
    const first = await observer();
    signal(first, 'SIGKILL');
    await waitFor(() => serving.events('observer').some((e) => e.message.includes('SIGKILL')));
    await waitFor(() => !isRunning(first));
    const second = await observer();
    await told('shop', ({ error }) => !error);
    signal(second, 'SIGSTOP');
    await waitFor(() => !isRunning(second), { timeoutMs: 120_000 });
    await told('shop', ({ error }) => !error);
    await waitFor(() => serving.events('observer').length >= 2);
  });

  it('begins also where all has the lowest priority already, and keeps that', async () => {
    const { PRIORITY_LOW } = constants.priority;
    const gone = join(scratchDir('gone'), 'segment');
    const before = await observer();
    setPriority(serving.run.pid, PRIORITY_LOW);
    signal(before, 'SIGKILL');
    await waitFor(() => !isRunning(before));
    renameSync(join(shop, names[4] as string), gone);
    await told('shop', ({ gaps }) => gaps.length === 1);
    expect(getPriority(await observer())).toBe(PRIORITY_LOW);
  });

  it('ends with who began it', async () => {
    const pid = await observer();
    serving.run.child.kill('SIGKILL');
    await waitFor(() => !isRunning(pid));
  });
});
