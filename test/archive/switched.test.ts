import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { scanDirectory } from '../../src/archive/wal-directory.js';
import { nodeFileSystem } from '../../src/files/file-system.js';
import { findEvents } from '../../src/find/find.js';
import { pushFile } from '../../src/push/push.js';
import { removeCopies } from '../../src/receive/start/left-segments.js';
import { check, SEGMENT } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { SWITCH_PLACES, switchedWal } from '../wal/switched.js';

const FIRST = '000000010000000000000050';
const SECOND = '000000010000000000000051';

describe.each(SWITCH_PLACES.filter(([, at]) => at <= SEGMENT - 24))(
  'a segment whose switch record is %s',
  (_where, at) => {
    const wal = switchedWal(at);
    const zeros = wal.bytes.subarray(0, SEGMENT);
    const old = wal.tail((rest) => rest.fill(0xd1)).subarray(0, SEGMENT);
    const next = wal.bytes.subarray(SEGMENT, 2 * SEGMENT);
    const damaged = Buffer.from(old);
    damaged[at - 40] = damaged[at - 40]! ^ 1;

    /** An archive with these files. */
    const archive = (files: Record<string, Buffer>) => {
      const directory = scratchDir('archive');
      for (const [name, content] of Object.entries(files)) {
        writeFileSync(join(directory, name), name.includes('.gz') ? gzipSync(content) : content);
      }
      return directory;
    };

    test('is whole, whatever follows in it', async () => {
      expect(await check(archive({ [FIRST]: old, [SECOND]: next }))).toEqual([]);
      const directory = archive({ [FIRST]: damaged, [SECOND]: next });
      expect(await check(directory)).toContain(`error record-crc ${FIRST}`);
      const intact = archive({ [FIRST]: old, [SECOND]: next });
      const { damaged: places } = await findEvents(intact, {}, () => undefined);
      expect(places).toBe(0);
    });

    test('is the same as one filled up, in whatever form', async () => {
      const both = archive({ [FIRST]: zeros, [`${FIRST}.gz`]: old, [SECOND]: next });
      expect(await check(both)).toEqual([`info duplicate ${FIRST}.gz`]);
      const partial = archive({ [FIRST]: zeros, [`${FIRST}.gz.partial`]: old, [SECOND]: next });
      expect(await check(partial)).toEqual([`info duplicate ${FIRST}.gz.partial`]);
      const differs = archive({ [FIRST]: old, [`${FIRST}.gz`]: damaged, [SECOND]: next });
      expect((await check(differs)).join()).toContain('error duplicate-differs');
    });

    test('is pushed where the other one is', async () => {
      const source = archive({ [FIRST]: zeros, [`${FIRST}.partial`]: zeros });
      for (const there of [FIRST, `${FIRST}.gz`]) {
        const directory = archive({ [there]: old });
        const present = { outcome: 'present', name: there };
        expect(await pushFile(directory, join(source, FIRST))).toEqual(present);
        expect(await pushFile(directory, join(source, `${FIRST}.partial`))).toEqual(present);
        const bad = archive({ [FIRST]: damaged });
        await expect(pushFile(directory, join(bad, FIRST))).rejects.toMatchObject({
          code: 'WK_REWRITE',
        });
      }
      for (const there of [`${FIRST}.partial`, `${FIRST}.gz.partial`]) {
        const directory = archive({ [there]: old });
        const present = { outcome: 'present', name: there };
        expect(await pushFile(directory, join(source, `${FIRST}.partial`))).toEqual(present);
        const stored = { outcome: 'stored', name: FIRST };
        expect(await pushFile(directory, join(source, FIRST))).toEqual(stored);
      }
    });

    test('a plain copy of the compressed one is removed', async () => {
      for (const [plain, gone] of [
        [zeros, true],
        [damaged, false],
      ] as const) {
        const directory = archive({
          [`${FIRST}.partial`]: plain,
          [`${FIRST}.gz`]: old,
          [`${SECOND}.partial`]: next,
        });
        await removeCopies(directory, await scanDirectory(directory, SEGMENT), nodeFileSystem);
        expect(existsSync(join(directory, `${FIRST}.partial`))).toBe(!gone);
      }
    });
  },
);

test('the file on which a switch record ends needs the one before', async () => {
  for (const at of [SEGMENT - 16, SEGMENT - 8]) {
    const wal = switchedWal(at);
    const bytes = wal.tail((rest) => rest.fill(0xd1));
    const directory = scratchDir('archive');
    writeFileSync(join(directory, FIRST), bytes.subarray(0, SEGMENT));
    writeFileSync(join(directory, SECOND), bytes.subarray(SEGMENT, 2 * SEGMENT));
    expect(await check(directory)).toEqual([]);
    expect(await check(directory, { jobBytes: 1 })).toEqual([]);
  }
});
