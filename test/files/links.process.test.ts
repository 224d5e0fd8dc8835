import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { contentLength } from '../../src/archive/good-wal.js';
import { LEDGER_FILE, Ledger, readLedger } from '../../src/archive/ledger.js';
import { compressFile, decompressFile } from '../../src/codec/codec.js';
import { fsyncFile, storeAnew, writeFileDurably } from '../../src/files/durable.js';
import { CREATE_NEW, nodeFileSystem } from '../../src/files/file-system.js';
import { acquireDirectoryLock, LOCK_FILE, readLockHolder } from '../../src/files/lock.js';
import { parseLsn } from '../../src/lsn.js';
import { pushFile } from '../../src/push/push.js';
import { storedWal } from '../../src/receive/start/stored-wal.js';
import { compressPartial } from '../../src/receive/target/compressed-partial.js';
import type { OpenSegment } from '../../src/receive/target/open-segment.js';
import { seedPartial } from '../../src/receive/target/partial-seed.js';
import { SPARE_NAME } from '../../src/receive/target/spare-segment.js';
import { historyFileName } from '../../src/wal/file-name.js';
import { SEGMENT, sampleArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';

const NAME = '000000010000000000000001';
const VICTIM = 'what is here stays';

let directory: string;
let victim: string;
let umask: number;
beforeEach(() => {
  directory = scratchDir('planted');
  victim = join(scratchDir('victim'), 'file');
  writeFileSync(victim, VICTIM);
  umask = process.umask();
});
afterEach(() => {
  process.umask(umask);
});

const at = (name: string) => join(directory, name);
const fifo = (name: string) => execFileSync('mkfifo', [at(name)]);
const mode = (path: string) => lstatSync(path).mode & 0o7777;

const fs = nodeFileSystem;
const open = { systemId: 7n, segmentSize: SEGMENT, version: '0', type: 'open' } as const;

/** Every place that writes a file anew: the name it writes under before it renames, and that one. */
const WRITERS: [string, string, string, (mode: number) => Promise<unknown>][] = [
  ['a small file', 'x.tmp', 'x', (m) => writeFileDurably(at('x'), 'new', { mode: m })],
  [
    'a history file',
    '00000002.history.tmp',
    '00000002.history',
    (m) =>
      writeFileDurably(at(historyFileName(2)), 'new', {
        mode: m,
        temporary: at('00000002.history.tmp'),
      }),
  ],
  [
    'the ledger',
    `${LEDGER_FILE}.tmp`,
    LEDGER_FILE,
    async (m) => {
      const ledger = (await Ledger.open(directory, { create: true, mode: m })) as Ledger;
      await ledger.append(open);
      await ledger.close();
    },
  ],
  [
    'a segment stored anew',
    SPARE_NAME,
    'segment',
    async (m) => {
      writeFileSync(at('segment'), Buffer.alloc(SEGMENT, 1));
      await storeAnew(at('segment'), at(SPARE_NAME), SEGMENT, { mode: m, fs });
    },
  ],
  [
    'a compressed partial',
    `.walkeep-${NAME}.gz.partial`,
    `${NAME}.gz.partial`,
    async (m) => {
      writeFileSync(at(`${NAME}.partial`), Buffer.alloc(SEGMENT, 1));
      const open = { name: NAME, path: at(`${NAME}.partial`), fresh: true } as OpenSegment;
      const options = { method: 'gzip', mode: m } as const;
      await compressPartial(open, SEGMENT, options, { directory, segmentSize: SEGMENT, fs });
    },
  ],
  [
    'a partial from a compressed one',
    `.walkeep-${NAME}.seed`,
    `${NAME}.partial`,
    async (m) => {
      writeFileSync(at('segment'), Buffer.alloc(1000, 1));
      await compressFile(at('segment'), at(`${NAME}.gz.partial`), 1000, { method: 'gzip' });
      const segment = { timeline: 1, segment: 1n, partial: true, compression: 'gzip' } as const;
      const files = [{ name: `${NAME}.gz.partial`, ...segment }];
      const options = { segmentSize: SEGMENT, mode: m, sync: true, fs };
      await seedPartial(directory, NAME, files, options);
    },
  ],
];

describe.each(WRITERS)('writing %s', (_, temporary, made, write) => {
  it('does not go through a planted link', async () => {
    symlinkSync(victim, at(temporary));
    await write(0o600);
    expect(readFileSync(victim, 'utf8')).toBe(VICTIM);
    expect(readdirSync(directory)).not.toContain(temporary);
  });

  it('takes no file that somebody else still has open', async () => {
    writeFileSync(at(temporary), 'planted', { mode: 0o666 });
    const { ino } = statSync(at(temporary));
    const fd = fs.openSync(at(temporary), 2, 0);
    await write(0o600);
    fs.closeSync(fd);
    for (const name of readdirSync(directory)) expect(statSync(at(name)).ino).not.toBe(ino);
  });

  it('does not wait for the reader of a fifo', async () => {
    fifo(temporary);
    await write(0o600);
    expect(readdirSync(directory)).not.toContain(temporary);
  });

  it.each([
    [0o600, 0o000],
    [0o640, 0o077],
  ])('gives it mode %o whatever the umask', async (wanted, mask) => {
    process.umask(mask);
    await write(wanted);
    expect(mode(at(made))).toBe(wanted);
  });
});

it('a new file has its mode whatever the umask', async () => {
  process.umask(0o077);
  fs.closeSync(fs.openSync(at('a'), CREATE_NEW, 0o640));
  await fs.close(await fs.open(at('b'), CREATE_NEW, 0o640));
  expect([mode(at('a')), mode(at('b'))]).toEqual([0o640, 0o640]);
});

describe('what is no regular file', () => {
  it.each(['fifo', 'link to a device'])('is no ledger: a %s', async (kind) => {
    if (kind === 'fifo') fifo(LEDGER_FILE);
    else symlinkSync('/dev/zero', at(LEDGER_FILE));
    await expect(readLedger(directory)).rejects.toMatchObject({ code: 'WK_ARCHIVE_ACCESS' });
    await expect(Ledger.open(directory, { create: true })).rejects.toMatchObject({
      code: 'WK_STORAGE',
    });
  });

  it.each(['none', 'gzip', 'lz4', 'zstd'] as const)('has no WAL: %s', async (compression) => {
    fifo('file');
    const outcome = await decompressFile(at('file'), compression).catch((e) => e.code);
    if (typeof outcome === 'string') expect(outcome).toMatch(/^WK_(STORAGE|NOT_SUPPORTED)$/);
    else expect(outcome).toMatchObject({ bytes: 0 });
  });

  it('is no stored WAL to compare with', async () => {
    fifo(`${NAME}.partial`);
    const lsn = parseLsn('0/100000');
    expect((await storedWal(directory, lsn, 0n, 1, SEGMENT)).end).toBe(lsn);
    expect(await contentLength(at(`${NAME}.partial`), fs)).toBe(0);
    unlinkSync(at(`${NAME}.partial`));
    symlinkSync(victim, at(`${NAME}.partial`));
    await expect(contentLength(at(`${NAME}.partial`), fs)).rejects.toMatchObject({
      code: 'WK_STORAGE',
    });
  });

  it('is not synced as a file of the archive', async () => {
    symlinkSync(victim, at('x'));
    await expect(fsyncFile(at('x'))).rejects.toMatchObject({ code: 'WK_STORAGE' });
  });
});

it('a device is not replaced by a compressed file', async (context) => {
  writeFileSync(at('plain'), 'x');
  if (spawnSync('mknod', [at('device'), 'c', '1', '7']).status !== 0) context.skip('needs root');
  const { ino } = lstatSync(at('device'));
  const compressed = compressFile(at('plain'), at('device'), 1, { method: 'gzip' });
  await expect(compressed).rejects.toMatchObject({ code: 'WK_STORAGE' });
  expect(lstatSync(at('device'))).toMatchObject({ ino });
  expect(lstatSync(at('device')).isCharacterDevice()).toBe(true);
});

describe('the lock', () => {
  it.each(['fifo', 'directory', 'dangling link', 'link to a device'])('%s', async (kind) => {
    if (kind === 'fifo') fifo(LOCK_FILE);
    else if (kind === 'directory') mkdirSync(at(LOCK_FILE));
    else symlinkSync(kind === 'dangling link' ? 'nowhere' : '/dev/zero', at(LOCK_FILE));
    expect(await readLockHolder(directory)).toBeUndefined();
    await expect(acquireDirectoryLock(directory, { graceMs: 0 })).rejects.toMatchObject({
      code: 'WK_LOCKED',
      detail: expect.stringContaining('does not say who made it'),
    });
  });

  it.skipIf(process.platform !== 'linux')('is 0600, file and socket', async () => {
    process.umask(0);
    const lock = await acquireDirectoryLock(directory);
    const modes = readdirSync(directory).map((name) => [name, mode(at(name))]);
    await lock.release();
    expect(modes).toHaveLength(2);
    expect(modes.filter(([, m]) => m !== 0o600)).toEqual([]);
  });
});

describe('the staging directory of push', () => {
  const wal = sampleArchive(2);
  const source = join(wal.directory, wal.names[0] as string);

  it('is not a link to elsewhere, where nothing is written or removed', async () => {
    const elsewhere = scratchDir('elsewhere');
    writeFileSync(join(elsewhere, 'old'), VICTIM);
    utimesSync(join(elsewhere, 'old'), 0, 0);
    symlinkSync(elsewhere, at('.walkeep-push'));
    await expect(pushFile(directory, source)).rejects.toMatchObject({ code: 'WK_STORAGE' });
    expect(readdirSync(elsewhere)).toEqual(['old']);
    expect(readdirSync(directory)).toEqual(['.walkeep-push']);
  });

  it('gives files the mode of their source whatever the umask', async () => {
    process.umask(0o077);
    chmodSync(source, 0o640);
    await pushFile(directory, source);
    expect(mode(at(wal.names[0] as string))).toBe(0o640);
  });

  it('a link of the same content is not taken for the file', async () => {
    symlinkSync(source, at(wal.names[0] as string));
    await expect(pushFile(directory, source)).rejects.toMatchObject({ code: 'WK_STORAGE' });
  });
});
