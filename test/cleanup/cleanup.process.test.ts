import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { LEDGER_FILE } from '../../src/archive/ledger.js';
import { encodeLine } from '../../src/archive/ledger-entry.js';
import { cleanupArchive, oldestSegment, planCleanup } from '../../src/cleanup/cleanup.js';
import type { Lsn } from '../../src/lsn.js';
import { run } from '../cli/run.js';
import { randomNumbers } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { findTool } from '../support/tools.js';

const segment = (timeline: number, n: number) =>
  [timeline, Math.floor(n / 256), n % 256]
    .map((part) => part.toString(16).toUpperCase().padStart(8, '0'))
    .join('');

function archive(...names: string[]): string {
  const directory = scratchDir('archive');
  for (const name of names) writeFileSync(join(directory, name), '');
  return directory;
}

const list = (directory: string) => readdirSync(directory).sort();

/** An archive with two timelines and all that tools leave there. */
function fullArchive(): string {
  const names = [];
  for (let n = 1; n <= 12; n++) if (n < 8) names.push(segment(1, n));
  for (let n = 7; n <= 14; n++) names.push(segment(2, n));
  names.push(`${segment(1, 7)}.partial`, `${segment(2, 15)}.partial`, '00000002.history');
  names.push(`${segment(1, 2)}.00000028.backup`, `${segment(2, 9)}.00000028.backup`);
  names.push('.walkeep-ledger', `.${segment(1, 3)}.replaced`, 'notes.txt', `${segment(1, 1)}.bz2`);
  names.push('00000001000000000000000g', `${segment(1, 1)}x`, `${segment(1, 1)}.partial.old`);
  const directory = archive(...names);
  writeFileSync(join(directory, LEDGER_FILE), ledgerOn(2));
  return directory;
}

/** A ledger that follows a timeline from its first segment on. */
const ledgerOn = (timeline: number) =>
  encodeLine([
    { type: 'open', systemId: 77n, segmentSize: 1 << 24, version: '0' },
    { type: 'timeline', timeline, start: (1n << 24n) as Lsn, why: 'first start' },
  ]);

test.each([
  [segment(1, 5), segment(1, 5)],
  [`${segment(2, 5)}.partial`, segment(2, 5)],
  [`${segment(1, 5)}.00000028.backup`, segment(1, 5)],
  [`${segment(1, 5)}.gz`, segment(1, 5)],
  [`${segment(1, 5)}.lz4.partial`, segment(1, 5)],
])('%s keeps from %s on', (name, oldest) => {
  expect(oldestSegment(name)).toBe(oldest);
});

test.each([
  ...['', '00000002.history', '00000001', `${segment(1, 5)}.bz2`, `${segment(1, 5)}.0028.backup`],
  segment(1, 10).toLowerCase(),
])('"%s" is no name to keep from', (name) => {
  expect(() => oldestSegment(name)).toThrow('invalid file name argument');
});

test('an extension is stripped from both names, if there is something before it', async () => {
  expect(oldestSegment(`${segment(1, 5)}.bz2`, '.bz2')).toBe(segment(1, 5));
  const directory = archive(`${segment(1, 4)}.bz2`, segment(1, 5), '.bz2');
  const options = { stripExtension: '.bz2' };
  const plan = await planCleanup(directory, `${segment(1, 5)}.bz2`, options);
  expect(plan.remove).toEqual([`${segment(1, 4)}.bz2`]);
});

test('compressed files and their partials go without being asked for, oldest first', async () => {
  const forms = ['', '.gz', '.lz4', '.zst', '.partial', '.gz.partial', '.lz4.partial'];
  const directory = archive(
    ...[3, 2, 4].flatMap((n) => forms.map((form) => segment(1, n) + form)),
    `${segment(1, 2)}.xz`,
  );
  const plan = await planCleanup(directory, `${segment(2, 4)}.partial`);
  const expected = [2, 3].flatMap((n) => forms.map((form) => segment(1, n) + form).sort());
  expect(plan.remove).toEqual(expected);
  await cleanupArchive(plan);
  const kept = [...forms.map((form) => segment(1, 4) + form), `${segment(1, 2)}.xz`];
  expect(list(directory)).toEqual(kept.sort());
});

test('the end of the archive stays, whatever is asked for', async () => {
  const directory = archive(
    ...[segment(1, 1), `${segment(1, 2)}.partial`, segment(2, 2), segment(2, 3)],
    ...[`${segment(2, 4)}.partial`, `${segment(2, 5)}.gz.partial`, '00000002.history'],
  );
  await cleanupArchive(await planCleanup(directory, segment(3, 100)));
  expect(list(directory)).toEqual([
    '00000002.history',
    `${segment(2, 4)}.partial`,
    `${segment(2, 5)}.gz.partial`,
  ]);
});

test('what is received stays beside what a clone pushed, also where the ledger is damaged', async () => {
  const open = `${segment(1, 3)}.partial`;
  const directory = archive(segment(1, 1), segment(1, 2), open, segment(2, 3), segment(2, 4));
  const ledger = join(directory, LEDGER_FILE);
  writeFileSync(ledger, ledgerOn(1));
  const plan = () => planCleanup(directory, segment(2, 5)).then(({ remove }) => remove);
  const others = [segment(1, 1), segment(1, 2), segment(2, 3), segment(2, 4)];
  expect(await plan()).toEqual(others);
  writeFileSync(ledger, 'x');
  await expect(plan()).rejects.toThrow('ledger');
  const cleanup = await run('walkeep', 'cleanup', directory, segment(2, 5));
  expect(cleanup.code).not.toBe(0);
  expect(list(directory)).toContain(open);
  // Where nothing depends on it, it is not asked.
  expect(await planCleanup(directory, segment(1, 3))).toMatchObject({ remove: others.slice(0, 2) });
  // Without one the later timeline is the one that goes on.
  rmSync(ledger);
  expect(await plan()).toContain(open);
});

test('history files stay, backup history files unless asked, and what is no file', async () => {
  const directory = fullArchive();
  mkdirSync(join(directory, segment(1, 0)));
  symlinkSync('/nowhere', join(directory, segment(1, 16).replace(/^0+1/, '00000001')));
  const plain = await planCleanup(directory, segment(2, 8));
  expect(plain.remove.filter((name) => /history|backup|^\./.test(name))).toEqual([]);
  const history = await planCleanup(directory, segment(2, 8), { cleanBackupHistory: true });
  expect(history.remove.filter((name) => !plain.remove.includes(name))).toEqual([
    `${segment(1, 2)}.00000028.backup`,
  ]);
  await cleanupArchive(history);
  expect(list(directory)).toContain(segment(1, 0));
});

test('a dry run prints exactly what a run removes', async () => {
  const directory = fullArchive();
  const before = list(directory);
  const args = ['-b', '-x', '.bz2', directory, `${segment(2, 10)}.00000028.backup`];
  const dry = await run('walkeep', 'cleanup', '-n', ...args);
  expect(dry).toMatchObject({ code: 0, stderr: '' });
  expect(list(directory)).toEqual(before);
  expect(await run('walkeep', 'cleanup', ...args)).toEqual({ code: 0, stdout: '', stderr: '' });
  const removed = before.filter((name) => !list(directory).includes(name));
  expect(dry.stdout.split('\n').slice(0, -1).sort()).toEqual(
    removed.map((name) => `${directory}/${name}`).sort(),
  );
  expect(removed.length).toBeGreaterThan(10);
});

test('the command tells what it does and what it cannot', async () => {
  const directory = archive(segment(1, 1), segment(1, 2));
  const debug = await run('walkeep', 'cleanup', '-d', '-n', directory, segment(1, 2));
  expect(debug.stderr.split('\n')).toEqual([
    `walkeep: keeping WAL file "${directory}/${segment(1, 2)}" and later`,
    `walkeep: file "${directory}/${segment(1, 1)}" would be removed`,
    '',
  ]);
  const errors = {
    'must specify archive location': [],
    'must specify oldest kept WAL file': [directory],
    'too many command-line arguments': [directory, segment(1, 1), 'x'],
    'invalid file name argument': [directory, 'x'],
    'archive location "/nowhere" does not exist': ['/nowhere', segment(1, 1)],
  };
  for (const [message, args] of Object.entries(errors)) {
    const result = await run('walkeep', 'cleanup', ...args);
    expect(result.code).toBe(2);
    expect(result.stderr.split('\n')[0]).toBe(`walkeep: error: ${message}`);
  }
  expect(list(directory)).toHaveLength(2);
});

const upstream = findTool('pg_archivecleanup');

test.skipIf(!upstream)(
  'removes what pg_archivecleanup removes (needs pg_archivecleanup)',
  async () => {
    const random = randomNumbers(5);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
    for (let round = 0; round < 30; round++) {
      const names = new Set(['00000002.history', 'README']);
      // With a complete segment at its end: partial files there are kept by walkeep alone.
      names.add(segment(3, 600));
      for (let i = 0; i < 60; i++) {
        const name = segment(pick([1, 2, 3]), 200 + Math.floor(random() * 300));
        names.add(name + pick(['', '', '', '.partial', '.00000028.backup', '.bz2', '.tmp', 'A']));
      }
      const theirs = archive(...names);
      const ours = scratchDir('archive');
      cpSync(theirs, ours, { recursive: true });
      const suffix = pick(['', '.partial', '.00000028.backup', '.bz2']);
      const options = suffix === '.bz2' || random() < 0.3 ? ['-x', '.bz2'] : [];
      const oldest = segment(pick([1, 2, 3]), 200 + Math.floor(random() * 300)) + suffix;
      const dry = execFileSync(upstream!, ['-n', ...options, theirs, oldest], { encoding: 'utf8' });
      const ownDry = await run('walkeep', 'cleanup', '-n', ...options, ours, oldest);
      expect(ownDry.stdout.replaceAll(ours, '').split('\n').sort()).toEqual(
        dry.replaceAll(theirs, '').split('\n').sort(),
      );
      execFileSync(upstream!, [...options, theirs, oldest]);
      expect((await run('walkeep', 'cleanup', ...options, ours, oldest)).code).toBe(0);
      expect(list(ours)).toEqual(list(theirs));
    }
  },
);
