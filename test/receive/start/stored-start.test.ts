import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { FsyncError } from '../../../src/errors.js';
import { type FileSystem, nodeFileSystem } from '../../../src/files/file-system.js';
import type { ReceivingDirectory } from '../../../src/receive/start/receiving-directory.js';
import { storedStart } from '../../../src/receive/start/stored-start.js';
import { scratchDir } from '../../support/scratch.js';
import { makeWal } from '../../wal/synthetic.js';

const MB = 1024 * 1024;

/** Segments 6 and 7 of timeline 2. */
const wal = makeWal(
  Array.from({ length: 60 }, (_, i) => ({ body: Buffer.alloc(30_000, i + 1) })),
  { start: BigInt(6 * MB), timeline: 2 },
);
const NAME = '000000020000000000000006';
const NEXT = '000000020000000000000007';

/** What a stream finds that begins where `wal` does; the connection began further back. */
async function start(directory: string, refused = false, fs = nodeFileSystem, sync = false) {
  const archive = {
    ...{ server: { fileMode: 0o600 }, acknowledged: () => 0n, isRefused: () => false },
    asksAgain: refused,
  } as unknown as ReceivingDirectory;
  const { start: startLsn, segmentSize } = wal;
  return storedStart({
    ...{ directory, archive, sync, fs, warn: () => {} },
    ...{ wal: { startLsn, segmentSize, timeline: 2, systemId: 77n }, checked: true, refuses: true },
  });
}

const partial = (directory: string, name: string) =>
  readFileSync(join(directory, `${name}.partial`));

it('knows what is stored of a later timeline that the stream comes to', async () => {
  const directory = scratchDir('start');
  const held = wal.bytes.subarray(0, 700_000);
  writeFileSync(join(directory, `${NAME}.gz.partial`), gzipSync(held));
  const { compareUntil } = await start(directory);
  expect(partial(directory, NAME).equals(Buffer.concat([held], MB))).toBe(true);
  expect(compareUntil).toBeGreaterThan(wal.start + 660_000n);
});

it.each([true, false])('takes no segment for another one; asks again: %s', async (refused) => {
  const directory = scratchDir('start');
  const held = Buffer.concat([wal.bytes.subarray(0, 700_000)], MB);
  writeFileSync(join(directory, `${NAME}.partial`), held);
  writeFileSync(join(directory, NEXT), wal.bytes.subarray(MB, 2 * MB));
  await start(directory, refused);
  expect(partial(directory, NAME).equals(held)).toBe(true);
});

it('compares also what lies in the segments behind the first', async () => {
  const directory = scratchDir('start');
  writeFileSync(join(directory, `${NAME}.partial`), wal.bytes.subarray(0, MB));
  writeFileSync(join(directory, `${NEXT}.partial`), wal.bytes.subarray(MB, MB + 300_000));
  const { compareUntil, soundUntil } = await start(directory);
  expect(compareUntil).toBeGreaterThan(wal.start + BigInt(MB + 260_000));
  expect(soundUntil).toBe(compareUntil);
});

it.each(['', '.gz'])('goes on where a complete file is moved away meanwhile: %s', async (form) => {
  const directory = scratchDir('start');
  writeFileSync(join(directory, `${NAME}.partial`), wal.bytes.subarray(0, MB));
  const whole = wal.bytes.subarray(MB, 2 * MB);
  const path = join(directory, `${NEXT}${form}`);
  writeFileSync(path, form === '.gz' ? gzipSync(whole) : whole);
  let looks = 2;
  const open: FileSystem['open'] = async (...args) => {
    // Read, and about to be read once more.
    if (args[0] === path && looks-- === 0) rmSync(path);
    return nodeFileSystem.open(...args);
  };
  await start(directory, false, { ...nodeFileSystem, open });
  expect(existsSync(path)).toBe(false);
  expect(readdirSync(directory)).toEqual([`${NAME}.partial`]);
});

it('does not try once more what the disk refused, though a file is moved away', async () => {
  const directory = scratchDir('start');
  const path = join(directory, NEXT);
  writeFileSync(path, wal.bytes.subarray(MB, 2 * MB));
  let syncs = 0;
  const fsync: FileSystem['fsync'] = async () => {
    syncs += 1;
    rmSync(path, { force: true });
    throw Object.assign(new Error('EIO'), { code: 'EIO' });
  };
  await expect(start(directory, false, { ...nodeFileSystem, fsync }, true)).rejects.toBeInstanceOf(
    FsyncError,
  );
  expect(syncs).toBe(1);
});
