import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { compressionHelp, parseCompression } from '../../src/cli/compression.js';
import { CODECS, isLevelOf, loadCodecs, RECEIVED } from '../../src/codec/codecs.js';
import { checkReceiverOptions } from '../../src/receive/options.js';
import { COMPRESSIONS } from '../../src/wal/file-name.js';

const SOURCE = fileURLToPath(new URL('../../src/', import.meta.url));

/**
 * Where a compression is called by its name: its suffix, the table, what a bare level of
 * `--compress` means, the pages' images, which PostgreSQL compresses with a list of its own, as it
 * does base backups, and what a record of a backup says.
 */
const NAMED_IN = [
  'base/backup-record.ts',
  'base/base-index.ts',
  'cli/compression.ts',
  'codec/codecs.ts',
  'protocol/backup-stream.ts',
  'protocol/base-backup.ts',
  'wal/records/record-body.ts',
];

it('names a compression in the table and nowhere else', () => {
  const files = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' });
  const naming = files.filter(
    (name) =>
      name.endsWith('.ts') &&
      /'(gzip|lz4|zstd)'|^ {2}(gzip|lz4|zstd):/m.test(readFileSync(join(SOURCE, name), 'utf8')),
  );
  expect(naming.sort()).toEqual([...NAMED_IN, 'wal/file-name.ts'].sort());
});

it('loads all that the table names', async () => {
  await loadCodecs();
  for (const name of COMPRESSIONS) {
    const { reads, writes } = CODECS[name];
    expect(await reads()).toMatchObject({ decompress: expect.any(Function) });
    if (name === 'none') expect(writes).toBeUndefined();
    else expect(await writes?.()).toMatchObject({ compress: expect.any(Function) });
  }
});

it('tells apart by their first bytes what is compressed', () => {
  const magics = COMPRESSIONS.filter((name) => name !== 'none').map((name) =>
    Buffer.from(CODECS[name].magic).toString('hex'),
  );
  for (const a of magics) {
    expect(a.length).toBeGreaterThanOrEqual(4);
    expect(magics.filter((b) => b.startsWith(a))).toEqual([a]);
  }
});

it('has one line of help and one set of bounds for the command and the library', () => {
  expect(compressionHelp()).toBe('none, gzip[:1-9] or lz4; a bare level means gzip');
  const accepts = (call: () => unknown): boolean => {
    try {
      call();
      return true;
    } catch {
      return false;
    }
  };
  for (const method of RECEIVED) {
    if (method === 'none') continue;
    for (let level = 1; level <= 14; level++) {
      const ok = isLevelOf(method, level);
      expect([method, level, accepts(() => parseCompression(`${method}:${level}`))]).toEqual([
        method,
        level,
        ok,
      ]);
      const compression = { method, level };
      const options = { connection: 'host=x', directory: '/x', compression };
      expect([method, level, accepts(() => checkReceiverOptions(options))]).toEqual([
        method,
        level,
        ok,
      ]);
    }
  }
});
