import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test } from 'vitest';
import { compressFile } from '../../src/codec/codec.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import { acquireDirectoryLock, type DirectoryLock } from '../../src/files/lock.js';
import { ownIdentity } from '../../src/files/process-identity.js';
import { formatLsn } from '../../src/lsn.js';
import { pushFile } from '../../src/push/push.js';
import { edit, SEGMENT, sampleArchive, writeLedger } from '../support/archives.js';
import { withoutHardLinks } from '../support/no-links.js';
import { scratchDir } from '../support/scratch.js';

const wal = sampleArchive(3);
const [first, second, last] = wal.names as [string, string, string];
const pushed = (name: string) => join(wal.directory, name);
/** Bytes of `last` that are WAL. */
const used = Number(wal.end % BigInt(SEGMENT));

const seen = (directory: string) =>
  readdirSync(directory)
    .filter((name) => name !== '.walkeep-push')
    .sort();
const staged = (directory: string) => readdirSync(join(directory, '.walkeep-push'));

/** Changes one byte of a file. */
const flip = (path: string, at: number) =>
  edit(path, (content) => void content.writeUInt8(content.readUInt8(at) ^ 1, at));

/** The last segment's partial as another party has it. */
function partial(directory: string, length: number, name = last): string {
  const content = Buffer.alloc(SEGMENT);
  readFileSync(pushed(last)).copy(content, 0, 0, length);
  const path = join(directory, name);
  writeFileSync(path, name.includes('.gz') ? gzipSync(content.subarray(0, length)) : content);
  return path;
}

let lock: DirectoryLock | undefined;
afterEach(async () => {
  await lock?.release();
  lock = undefined;
});

describe('without hard links', () => {
  withoutHardLinks();

  test('push says so and stores nothing', async () => {
    const directory = scratchDir('archive');
    await expect(pushFile(directory, pushed(first))).rejects.toMatchObject({
      code: 'WK_NOT_SUPPORTED',
      message: `the file system of "${directory}" has no hard links`,
      hint: expect.stringContaining('walkeep receive'),
    });
    expect(seen(directory)).toEqual([]);
    expect(staged(directory)).toEqual([]);
  });
});

test('a segment is stored as it is, and only once', async () => {
  const directory = scratchDir('archive');
  expect(await pushFile(directory, pushed(first))).toEqual({ outcome: 'stored', name: first });
  expect(readFileSync(join(directory, first)).equals(readFileSync(pushed(first)))).toBe(true);
  expect(statSync(join(directory, first)).mode & 0o777 & ~0o040).toBe(0o600);
  expect(await pushFile(directory, pushed(first))).toEqual({ outcome: 'present', name: first });
  expect(seen(directory)).toEqual([first]);
  expect(staged(directory)).toEqual([]);
});

test.each(['gzip', 'lz4'] as const)(
  'a stored %s file is compared by its content',
  async (method) => {
    const directory = scratchDir('archive');
    const name = first + (method === 'gzip' ? '.gz' : '.lz4');
    await compressFile(pushed(first), join(directory, name), SEGMENT, { method });
    expect(await pushFile(directory, pushed(first))).toEqual({ outcome: 'present', name });
    const other = join(scratchDir(), first);
    copyFileSync(pushed(first), other);
    flip(other, 700_000);
    await expect(pushFile(directory, other)).rejects.toMatchObject({ code: 'WK_REWRITE' });
    // Cut short it is no copy to rely on.
    edit(join(directory, name), (content) => content.subarray(0, -3));
    await expect(pushFile(directory, pushed(first))).rejects.toThrow('differs');
    expect(seen(directory)).toEqual([name]);
  },
);

test('other content under a name that is taken is refused, at its first byte', async () => {
  const directory = scratchDir('archive');
  await pushFile(directory, pushed(first));
  const other = join(scratchDir(), first);
  copyFileSync(pushed(first), other);
  flip(other, 123_456);
  await expect(pushFile(directory, other)).rejects.toMatchObject({
    code: 'WK_REWRITE',
    lsn: wal.start + 123_456n,
  });
  expect(readFileSync(join(directory, first)).equals(readFileSync(pushed(first)))).toBe(true);
  writeFileSync(join(directory, second), '');
  await expect(pushFile(directory, pushed(second))).rejects.toThrow(`differs from`);
});

test('a file that is not the segment it is called is refused', async () => {
  const directory = scratchDir('archive');
  const source = scratchDir();
  const as = (name: string, change: (content: Buffer) => Buffer | undefined = () => undefined) => {
    const path = join(source, name);
    copyFileSync(pushed(first), path);
    edit(path, change);
    return path;
  };
  const codes: Record<string, string> = {};
  const attempt = async (what: string, path: string) => {
    codes[what] = await pushFile(directory, path).then(
      () => 'stored',
      (e) => e.code,
    );
  };
  await attempt('address', as(second));
  await attempt(
    'size',
    as(first, (content) => content.subarray(0, SEGMENT - 1)),
  );
  await attempt(
    'another size',
    as(first, (content) => Buffer.concat([content, content])),
  );
  await attempt(
    'zeros',
    as(first, (content) => content.fill(0)),
  );
  await attempt(
    'timeline',
    as(first, (content) => void content.writeUInt32LE(2, 4)),
  );
  await attempt('name', as('000000010000000000000001.gz'));
  await attempt('a word', as('postgresql.conf'));
  await attempt('missing', join(source, '000000010000000000000077'));
  mkdirSync(join(source, '000000010000000000000078'));
  await attempt('directory', join(source, '000000010000000000000078'));
  expect(codes).toEqual({
    address: 'WK_CORRUPT_WAL',
    size: 'WK_USAGE',
    'another size': 'WK_CORRUPT_WAL',
    zeros: 'WK_CORRUPT_WAL',
    timeline: 'WK_CORRUPT_WAL',
    name: 'WK_USAGE',
    'a word': 'WK_USAGE',
    missing: 'WK_STORAGE',
    directory: 'WK_USAGE',
  });
  await expect(pushFile(join(directory, 'no'), pushed(first))).rejects.toThrow('No such file');
  expect(seen(directory)).toEqual([]);
});

test('another cluster is refused, by the ledger and without one', async () => {
  const other = sampleArchive(2, { systemId: 78n });
  const withLedger = scratchDir('archive');
  await writeLedger(withLedger);
  const without = scratchDir('archive');
  await pushFile(without, pushed(first));
  for (const directory of [withLedger, without]) {
    await expect(pushFile(directory, join(other.directory, other.names[0]!))).rejects.toMatchObject(
      {
        code: 'WK_SYSTEM_IDENTIFIER',
        expected: '77',
        actual: '78',
      },
    );
  }
  await writeFileSync(join(withLedger, '.walkeep-ledger'), 'nonsense\n');
  await expect(pushFile(withLedger, pushed(first))).rejects.toThrow('is damaged');
});

test('after a promotion the first page may be of the parent, as the history says', async () => {
  const source = scratchDir();
  const name = `00000002${second.slice(8)}`;
  copyFileSync(pushed(second), join(source, name));
  const history = (end: string) => `1\t${end}\tno recovery target specified\n`;
  writeFileSync(join(source, '00000002.history'), history('0/5080000'));
  const directory = scratchDir('archive');
  const path = join(source, '00000002.history');
  expect((await pushFile(directory, path)).outcome).toBe('stored');
  expect((await pushFile(directory, path)).outcome).toBe('present');
  // That timeline 1 ended before this segment.
  await expect(pushFile(directory, join(source, name))).rejects.toMatchObject({
    code: 'WK_CORRUPT_WAL',
  });
  writeFileSync(path, history('0/5180000'));
  await expect(pushFile(directory, path)).rejects.toMatchObject({ code: 'WK_REWRITE' });
  rmSync(join(directory, '00000002.history'));
  // The page with the fork is the parent's yet, those behind it are not.
  edit(join(source, name), (content) => {
    for (let at = 0x80000; at < SEGMENT; at += 8192) content.writeUInt32LE(2, at + 4);
  });
  expect((await pushFile(directory, join(source, name))).outcome).toBe('stored');
  writeFileSync(join(source, '00000003.history'), '');
  await expect(pushFile(directory, join(source, '00000003.history'))).rejects.toThrow(
    'no history of timeline 3',
  );
});

test('a damaged segment is refused before anything is stored', async () => {
  const directory = scratchDir('archive');
  const source = scratchDir();
  const content = readFileSync(pushed(first));
  const place = (change: (bytes: Buffer) => void): string => {
    const bytes = Buffer.from(content);
    change(bytes);
    const path = join(source, first);
    writeFileSync(path, bytes);
    return path;
  };
  const zeroed = place((bytes) => bytes.fill(0, 327_680, 335_872));
  await expect(pushFile(directory, zeroed)).rejects.toMatchObject({ code: 'WK_CORRUPT_WAL' });
  const recycled = place((bytes) => readFileSync(pushed(second)).copy(bytes, 327_680, 327_680));
  await expect(pushFile(directory, recycled)).rejects.toThrow(/at 0\/5050000/);
  const damaged = place((bytes) => bytes.writeUInt8(bytes.readUInt8(900_000) ^ 1, 900_000));
  await expect(pushFile(directory, damaged)).rejects.toMatchObject({ code: 'WK_CORRUPT_WAL' });
  expect(seen(directory)).toEqual([]);
  // The good one takes its place all the same.
  expect((await pushFile(directory, pushed(first))).outcome).toBe('stored');
  const unread = await pushFile(scratchDir('archive'), damaged, { verify: false });
  expect(unread.outcome).toBe('stored');
});

test('a complete segment whose WAL stops is a partial one', async () => {
  const directory = scratchDir('archive');
  const source = scratchDir();
  const name = last.replace('.partial', '');
  const unfinished = join(source, name);
  copyFileSync(pushed(last), unfinished);
  expect(await pushFile(directory, unfinished)).toEqual({ outcome: 'stored', name: last });
  expect(await pushFile(directory, unfinished)).toEqual({ outcome: 'present', name: last });
  // What a recycled file held before lies behind the end of the timeline, which a history tells.
  edit(unfinished, (content) => void content.fill(9, used));
  await expect(pushFile(scratchDir('archive'), unfinished)).rejects.toMatchObject({
    code: 'WK_CORRUPT_WAL',
  });
  writeFileSync(join(source, '00000002.history'), `1\t${formatLsn(wal.end)}\tno reason\n`);
  const other = scratchDir('archive');
  expect(await pushFile(other, unfinished)).toEqual({ outcome: 'stored', name: last });
  expect(seen(other)).toEqual([last]);
});

test('a partial file with less than a page of WAL is taken', async () => {
  const directory = scratchDir('archive');
  const name = `${first}.partial`;
  const path = join(scratchDir(), name);
  const content = Buffer.alloc(SEGMENT);
  readFileSync(pushed(first)).copy(content, 0, 0, 3000);
  writeFileSync(path, content);
  expect(await pushFile(directory, path)).toEqual({ outcome: 'stored', name });
});

test('a backup history file is stored as it is', async () => {
  const path = join(scratchDir(), `${first}.00000028.backup`);
  writeFileSync(path, 'START WAL LOCATION: 0/5000028\n');
  const directory = scratchDir('archive');
  expect((await pushFile(directory, path)).outcome).toBe('stored');
  expect((await pushFile(directory, path)).outcome).toBe('present');
  writeFileSync(path, 'START WAL LOCATION: 0/5000028\nmore');
  await expect(pushFile(directory, path)).rejects.toThrow('differs');
});

test('a complete segment and a partial file of it that agree live side by side', async () => {
  const directory = scratchDir('archive');
  const content = Buffer.alloc(SEGMENT);
  readFileSync(pushed(first)).copy(content, 0, 0, 300_000);
  const theirs = join(directory, `${first}.partial`);
  writeFileSync(theirs, content);
  expect((await pushFile(directory, pushed(first))).outcome).toBe('stored');
  // Untouched: a receiver may have it open.
  expect(readFileSync(theirs).equals(content)).toBe(true);
});

test('a complete segment that contradicts the WAL of a partial file is refused', async () => {
  const directory = scratchDir('archive');
  copyFileSync(pushed(first), join(directory, `${first}.partial`));
  const other = join(scratchDir(), first);
  copyFileSync(pushed(first), other);
  flip(other, 500_000);
  await expect(pushFile(directory, other)).rejects.toMatchObject({ code: 'WK_REWRITE' });
  expect(existsSync(join(directory, first))).toBe(false);
  // Bytes behind the last good record prove nothing.
  edit(join(directory, `${first}.partial`), (content) => void content.fill(7, 400_000));
  expect((await pushFile(directory, pushed(first))).outcome).toBe('stored');
});

test('a partial file: the longer one is kept', async () => {
  const directory = scratchDir('archive');
  expect(await pushFile(directory, pushed(last))).toEqual({ outcome: 'stored', name: last });
  expect(await pushFile(directory, pushed(last))).toEqual({ outcome: 'present', name: last });
  // Less of it, and garbage of a recycled file behind the end.
  const shorter = partial(scratchDir(), used - 100_000);
  edit(shorter, (content) => void content.fill(9, used));
  expect(await pushFile(directory, shorter)).toEqual({ outcome: 'present', name: last });
  expect(readFileSync(join(directory, last)).equals(readFileSync(pushed(last)))).toBe(true);

  const behind = scratchDir('archive');
  partial(behind, used - 100_000);
  expect(await pushFile(behind, pushed(last))).toEqual({ outcome: 'extended', name: last });
  expect(readFileSync(join(behind, last)).equals(readFileSync(pushed(last)))).toBe(true);
  expect(seen(behind)).toEqual([last]);
});

test('a complete segment has all of its partial file', async () => {
  const directory = scratchDir('archive');
  await pushFile(directory, pushed(first));
  const path = join(scratchDir(), `${first}.partial`);
  copyFileSync(pushed(first), path);
  edit(path, (content) => void content.fill(9, 600_000));
  expect(await pushFile(directory, path)).toEqual({ outcome: 'present', name: first });
});

test('while a receiver runs, a longer partial file goes beside its own', async () => {
  const directory = scratchDir('archive');
  const theirs = partial(directory, used - 100_000);
  const before = readFileSync(theirs);
  lock = await acquireDirectoryLock(directory);
  const beside = last.replace('.partial', '.gz.partial');
  expect(await pushFile(directory, pushed(last))).toEqual({ outcome: 'beside', name: beside });
  expect(readFileSync(theirs).equals(before)).toBe(true);
  const content = readFileSync(pushed(last)).subarray(0, used);
  const stored = gunzipSync(readFileSync(join(directory, beside)));
  expect(content.subarray(0, stored.length).equals(stored)).toBe(true);
  expect(stored.length).toBeGreaterThan(used - 16);
  expect(await pushFile(directory, pushed(last))).toEqual({ outcome: 'present', name: beside });
  expect(staged(directory)).toEqual([]);
});

test('also where a shorter compressed one is there already', async () => {
  const directory = scratchDir('archive');
  partial(directory, used - 100_000);
  partial(directory, used - 150_000, last.replace('.partial', '.gz.partial'));
  lock = await acquireDirectoryLock(directory);
  const beside = last.replace('.partial', '.lz4.partial');
  expect(await pushFile(directory, pushed(last))).toEqual({ outcome: 'beside', name: beside });
  const target = join(scratchDir('archive'), 'target');
  await fetchFile({ places: [directory], name: last.replace('.partial', ''), target });
  expect(readFileSync(target).equals(readFileSync(pushed(last)))).toBe(true);
});

test('a partial file with other WAL is kept aside, once, and the push succeeds', async () => {
  const directory = scratchDir('archive');
  const theirs = partial(directory, used);
  const other = partial(scratchDir(), used);
  const foreign = sampleArchive(4);
  copyFileSync(join(foreign.directory, foreign.names[2]!), other);
  const aside = `.${last}.pushed`;
  for (let i = 0; i < 2; i++) {
    expect(await pushFile(directory, other)).toEqual({ outcome: 'aside', name: aside });
  }
  expect(readFileSync(join(directory, aside)).equals(readFileSync(other))).toBe(true);
  expect(readFileSync(theirs).equals(readFileSync(pushed(last)))).toBe(true);
  edit(other, (content) => void content.fill(0, 900_000));
  expect((await pushFile(directory, other)).name).toBe(`${aside}.2`);
});

test('an acknowledged begin of a record is not given up for a longer file', async () => {
  const directory = scratchDir('archive');
  // Cut inside a record: what is there of it may have been acknowledged.
  const theirs = partial(directory, used - 100_000);
  flip(theirs, used - 100_001);
  const before = readFileSync(theirs);
  expect((await pushFile(directory, pushed(last))).outcome).toBe('aside');
  expect(readFileSync(theirs).equals(before)).toBe(true);
});

test('what a killed push left is removed after a while', async () => {
  const directory = scratchDir('archive');
  await pushFile(directory, pushed(first));
  const staging = join(directory, '.walkeep-push');
  for (const name of ['old', 'new']) writeFileSync(join(staging, name), 'x');
  utimesSync(join(staging, 'old'), 1, 1);
  await pushFile(directory, pushed(second));
  expect(staged(directory)).toEqual(['new']);
});

test('what a killed push left is removed at once, what a living one writes is not', async () => {
  const directory = scratchDir('archive');
  await pushFile(directory, pushed(first));
  const staging = join(directory, '.walkeep-push');
  const { bootId, pidNamespace, startTime } = await ownIdentity();
  const name = (pid: number, start: string) =>
    ['token', bootId, pidNamespace.replace(/\D/g, ''), pid, start].join('_');
  // No process has that number any more, or a younger one has.
  const { pid: gone } = spawnSync('true');
  const names = { living: name(process.pid, startTime), younger: name(process.pid, '1') };
  for (const left of [...Object.values(names), name(gone, startTime), 'unknown']) {
    writeFileSync(join(staging, left), 'x');
  }
  await pushFile(directory, pushed(second));
  expect(staged(directory).sort()).toEqual([names.living, 'unknown'].sort());
});
