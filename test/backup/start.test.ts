import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openDirectory } from '../../src/archive/places/directory-archive.js';
import { requireStart } from '../../src/backup/wal.js';
import type { Lsn } from '../../src/lsn.js';
import { sampleArchive } from '../support/archives.js';

const SEGMENT = 1n << 20n;

/** An archive of segments in a row, the last one partial, and the position in one of them. */
function sample() {
  const { directory, names } = sampleArchive(4);
  const at = (segment: number) =>
    (BigInt(`0x${names[0]!.slice(16, 24)}`) + BigInt(segment)) * SEGMENT + 40n;
  const begin = (segment: number, timeline = 1) =>
    requireStart(openDirectory(directory), { lsn: at(segment) as Lsn, timeline }, Number(SEGMENT));
  return { directory, names, begin };
}

test('a backup may begin where the archive has WAL, or is about to', async () => {
  const { directory, names, begin } = sample();
  for (const segment of [0, 1, 3, 4]) await begin(segment);
  // Nothing of that timeline is there yet.
  await begin(0, 2);
  // Of what was moved away something before it is no sign that it will not come.
  renameSync(join(directory, names[3]!), join(directory, 'elsewhere'));
  await begin(3);
});

test('a backup that begins before all of it, or in a hole, is refused before it is copied', async () => {
  const { directory, names, begin } = sample();
  const refused = { code: 'WK_GAP', retryable: false, path: directory };
  await expect(begin(-1)).rejects.toMatchObject(refused);
  renameSync(join(directory, names[1]!), join(directory, 'elsewhere'));
  await expect(begin(1)).rejects.toMatchObject({
    ...refused,
    message: expect.stringContaining(names[1]!),
    hint: expect.stringContaining('--wal include'),
  });
});
