import { copyFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { LedgerEntry } from '../../src/archive/ledger.js';
import { openDirectory } from '../../src/archive/places/directory-archive.js';
import { readCatalog } from '../../src/archive/read-catalog.js';
import { planCleanup } from '../../src/cleanup/cleanup.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import { findEvents } from '../../src/find/find.js';
import { listArchive } from '../../src/list/list.js';
import { parseLsn } from '../../src/lsn.js';
import { pushFile } from '../../src/push/push.js';
import { run } from '../cli/run.js';
import { check as checkAll, sampleArchive, writeLedger } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';

const name = (timeline: number, n: number) =>
  `0000000${timeline}00000000000000${n.toString(16).padStart(2, '0')}`;

/** Timelines with their starts in the ledger, and up to where each was acknowledged. */
type Followed = [timeline: number, start: string, flushed: string, parent?: number];

const entries = (followed: readonly Followed[]): LedgerEntry[] =>
  followed.flatMap(([timeline, start, flushed, parent]): LedgerEntry[] => [
    {
      ...{ type: 'timeline', timeline, start: parseLsn(start), why: 'switch' },
      ...(parent === undefined ? {} : { parent }),
    },
    { type: 'flushed', timeline, lsn: parseLsn(flushed) },
  ]);

/**
 * Timeline 1 in segments 50 to 54, which timeline 2 left at 0/5100000 (segments 51 to 53) and
 * timeline 3 at `fork` (segments 52 and 53); the last of each is partial.
 */
async function archive(followed: readonly Followed[], fork = '0/5200000') {
  const { directory } = sampleArchive(5);
  sampleArchive(3, { timeline: 2, start: 0x510_0000n }, directory);
  sampleArchive(2, { timeline: 3, start: 0x520_0000n }, directory);
  writeFileSync(join(directory, '00000002.history'), '1\t0/5100000\tfirst\n');
  writeFileSync(join(directory, '00000003.history'), `1\t${fork}\tsecond\n`);
  if (followed.length > 0) await writeLedger(directory, ...entries(followed));
  return directory;
}

const SIBLINGS: readonly Followed[] = [
  [1, '0/5000000', '0/5480000'],
  [2, '0/5100000', '0/5380000', 1],
  [3, '0/5200000', '0/5380000', 1],
];
const PRODUCTION: readonly Followed[] = [[1, '0/5000000', '0/5480000']];

/** By names and headers: the made WAL of a branch does not go on in its parent's. */
const check = (directory: string) => checkAll(directory, { quick: true });

async function besides(directory: string) {
  const { timelines } = await readCatalog(openDirectory(directory));
  return timelines.map((t) => `${t.timeline} ${t.beside ?? '-'}`);
}

const serve = (directory: string, file: string) =>
  fetchFile({ places: [directory], name: file, target: join(scratchDir(), 'RECOVERYXLOG') });

describe('how timelines stand', () => {
  test('without a ledger nobody knows', async () => {
    expect(await besides(await archive([]))).toEqual(['1 -', '2 -', '3 -']);
  });
  test('the ancestors of what is received are no branches', async () => {
    expect(await besides(await archive(SIBLINGS))).toEqual(['1 -', '2 abandoned', '3 -']);
    // Passed by, though it was never received.
    const skipped = await archive([SIBLINGS[0]!, SIBLINGS[2]!]);
    expect(await besides(skipped)).toEqual(['1 -', '2 abandoned', '3 -']);
  });
  test('a later one that was never received left the way, or goes on where it ends', async () => {
    const strangers = ['1 -', '2 unfollowed', '3 unfollowed'];
    expect(await besides(await archive(PRODUCTION))).toEqual(strangers);
    const between = await archive([[1, '0/5000000', '0/5180000']]);
    expect(await besides(between)).toEqual(['1 -', '2 unfollowed', '3 -']);
    const ends = await archive([[1, '0/5000000', '0/5100000']]);
    expect(await besides(ends)).toEqual(['1 -', '2 -', '3 -']);
  });
});

describe('an abandoned branch', () => {
  test('is information, and so is a hole on its way', async () => {
    const directory = await archive(SIBLINGS);
    const branch = 'info abandoned-branch 00000002.history';
    expect(await check(directory)).toEqual([branch]);
    expect((await run('walkeep', 'verify', '--quick', directory)).code).toBe(0);
    rmSync(join(directory, name(2, 0x52)));
    expect(await check(directory)).toEqual([branch, `info gap ${name(2, 0x52)}`]);
    // Before the fork both need it.
    rmSync(join(directory, name(1, 0x51)));
    expect(await check(directory)).toContain(`error gap ${name(1, 0x51)}`);
  });
  test('is shown as one', async () => {
    const directory = await archive(SIBLINGS);
    const { timelines, gaps } = await listArchive(directory);
    expect(timelines.map((t) => [t.timeline, t.parent, t.beside])).toEqual([
      [1, undefined, undefined],
      [2, 1, 'abandoned'],
      [3, 1, undefined],
    ]);
    expect(gaps).toEqual([]);
    const { stdout } = await run('walkeep', 'list', directory);
    expect(stdout).toContain('├ timeline 2, branched off 1 at 0/5100000, abandoned (first)');
  });
  test('ends where it was left, wherever the next one begins', async () => {
    const siblings: readonly Followed[] = [
      [1, '0/5000000', '0/5480000'],
      [2, '0/5100000', '0/5380000'],
      [3, '0/5600000', '0/5780000', 1],
    ];
    const directory = await archive(siblings, '0/5600000');
    expect(await serve(directory, name(2, 0x54))).toMatchObject({ found: false });
    expect(await serve(directory, name(2, 0x52))).toMatchObject({ found: true });
    rmSync(join(directory, `${name(2, 0x53)}.partial`));
    await expect(serve(directory, name(2, 0x53))).rejects.toMatchObject({ code: 'WK_GAP' });
  });
});

describe('a timeline that was never received', () => {
  test('is a warning, and no gap', async () => {
    const directory = await archive(PRODUCTION);
    rmSync(join(directory, name(2, 0x52)));
    expect(await check(directory)).toEqual([
      'warning unfollowed-timeline 00000002.history',
      `info gap ${name(2, 0x52)}`,
      'warning unfollowed-timeline 00000003.history',
    ]);
    expect((await run('walkeep', 'list', directory)).stdout).toContain(', never received (first)');
  });
  test('is not what find looks along, unless it is asked to', async () => {
    const directory = await archive(PRODUCTION);
    expect(await findEvents(directory, {}, () => false)).toMatchObject({
      timeline: 1,
      unfollowed: [2, 3],
    });
    const wanted = await findEvents(directory, { timeline: 3 }, () => false);
    expect(wanted).toMatchObject({ timeline: 3, unfollowed: [] });
    const { stderr } = await run('walkeep', 'find', directory);
    expect(stderr).toContain('looked along timeline 1, which is received; timeline 2, 3 never was');
    const siblings = await findEvents(await archive(SIBLINGS), {}, () => false);
    expect(siblings).toMatchObject({ timeline: 3, unfollowed: [] });
  });
  test('is told of where its history is fetched', async () => {
    const directory = await archive(PRODUCTION);
    const target = join(scratchDir(), 'RECOVERYHISTORY');
    const told = await run('walkeep', 'fetch', directory, '00000002.history', target);
    expect(told).toMatchObject({ code: 0 });
    expect(told.stderr).toContain('timeline 2 was never received here');
    const followed = await archive(SIBLINGS);
    const silent = await run('walkeep', 'fetch', followed, '00000003.history', target);
    expect(silent).toMatchObject({ code: 0, stderr: '' });
  });
  test('does not take from the receiver where it goes on', async () => {
    const directory = await archive(PRODUCTION);
    const own = `${name(1, 0x54)}.partial`;
    writeFileSync(join(directory, name(2, 0x55)), '');
    expect((await planCleanup(directory, name(2, 0x55))).remove).not.toContain(own);
    const left = await archive(SIBLINGS);
    writeFileSync(join(left, name(3, 0x55)), '');
    expect((await planCleanup(left, name(3, 0x55))).remove).toContain(own);
  });
});

describe('a push of a timeline that the archive has passed by', () => {
  const source = scratchDir();
  const history = join(source, '00000002.history');
  const segment = join(source, name(2, 0x51));
  writeFileSync(history, '1\t0/5100000\tfirst\n');
  const wal = sampleArchive(3, { timeline: 2, start: 0x510_0000n });
  copyFileSync(join(wal.directory, name(2, 0x51)), segment);

  async function receiving(...followed: Followed[]): Promise<string> {
    const directory = scratchDir('archive');
    writeFileSync(join(directory, '00000003.history'), '1\t0/5200000\tsecond\n');
    await writeLedger(directory, ...entries(followed));
    return directory;
  }
  const visible = (directory: string) =>
    readdirSync(directory).filter((file) => !file.startsWith('.'));

  test('is set apart, history and segments, each once', async () => {
    const directory = await receiving([1, '0/5000000', '0/5280000'], [3, '0/5200000', '0/5380000']);
    for (const _ of [1, 2]) {
      for (const path of [history, segment]) {
        expect((await pushFile(directory, path)).outcome).toBe('apart');
      }
    }
    expect(visible(directory)).toEqual(['00000003.history']);
    const kept = readdirSync(directory).filter((file) => file.includes('.pushed'));
    expect(kept.sort()).toEqual(['.00000002.history.pushed', `.${name(2, 0x51)}.pushed`]);
    const told = await run('walkeep', 'push', directory, history);
    expect(told).toMatchObject({ code: 0 });
    expect(told.stderr).toContain('has passed by');
  });
  test.each([
    ['was received', [1, 2, 3]],
    ['may be the next one', [1]],
  ])('but not one that %s', async (_what, numbers) => {
    const directory = await receiving(
      ...numbers.map((n): Followed => [n, '0/5200000', '0/5380000']),
    );
    expect((await pushFile(directory, history)).outcome).toBe('stored');
    expect((await pushFile(directory, segment)).outcome).toBe('stored');
  });
  test('but not where some of it is here, or it is an ancestor', async () => {
    const begun = await receiving([3, '0/5200000', '0/5380000']);
    copyFileSync(history, join(begun, '00000002.history'));
    expect((await pushFile(begun, segment)).outcome).toBe('stored');
    const descended = await receiving([3, '0/5200000', '0/5380000']);
    const line = '1\t0/5100000\tfirst\n2\t0/5200000\tthen\n';
    writeFileSync(join(descended, '00000003.history'), line);
    expect((await pushFile(descended, segment)).outcome).toBe('stored');
    // Nothing tells whether it is one.
    const unknown = await receiving([1, '0/5000000', '0/5280000'], [3, '0/5200000', '0/5380000']);
    rmSync(join(unknown, '00000003.history'));
    expect((await pushFile(unknown, history)).outcome).toBe('stored');
  });
});
