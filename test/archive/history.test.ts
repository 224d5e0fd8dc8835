import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readStoredHistory } from '../../src/archive/history.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import { nodeFileSystem } from '../../src/files/file-system.js';
import { pushFile } from '../../src/push/push.js';
import { ensureHistoryFile } from '../../src/receive/start/history-files.js';
import { readServerHistory } from '../../src/server/server-history.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { judgeHistory } from '../../src/wal/history-file.js';
import { scratchDir } from '../support/scratch.js';

const NAME = '00000003.history';
const GOOD = '1\t0/3000110\tno recovery target specified\n\n2\t0/5000028\tbefore 2026\n';

/** What must not pass for a history of timeline 3. */
const DAMAGED: readonly [string, string][] = [
  ['empty', ''],
  ['line ends alone', '\n\n'],
  ['a comment alone', '# nothing\n'],
  ['blocks that were never written', '\0'.repeat(84)],
  ['no history', 'nonsense\n'],
  ['parents in the wrong order', '2\t0/3000110\tx\n1\t0/5000028\tx\n'],
  ['switch points that go back', '1\t0/5000028\tx\n2\t0/3000110\tx\n'],
  ['a parent that is its child', '3\t0/3000110\tx\n'],
  ['an LSN that is cut short', '1\t0/3000110\tx\n2\t0/5000'],
  ['a line that ends behind the slash', '1\t0/'],
];

describe('a stored history', () => {
  test('is absent, or good', async () => {
    const directory = scratchDir();
    expect(await readStoredHistory(directory, 3)).toEqual({ state: 'absent' });
    writeFileSync(join(directory, NAME), GOOD);
    expect(await readStoredHistory(directory, 3)).toMatchObject({
      state: 'good',
      history: { timeline: 3, ancestors: [{ timeline: 1 }, { timeline: 2, end: 0x5000028n }] },
      content: Buffer.from(GOOD),
    });
  });

  test('may lack its last line end behind the LSN', () => {
    expect(judgeHistory(NAME, 3, Buffer.from('1\t0/3000110\tby hand')).state).toBe('good');
  });

  test('that cannot be read is neither', async () => {
    const directory = scratchDir();
    mkdirSync(join(directory, NAME));
    await expect(readStoredHistory(directory, 3)).rejects.toMatchObject({ code: 'WK_STORAGE' });
  });
});

describe.each(DAMAGED)('a history with %s', (_what, text) => {
  const content = Buffer.from(text, 'latin1');

  test('is damaged for every reader', async () => {
    const directory = scratchDir('archive');
    const path = join(directory, NAME);
    writeFileSync(path, content);
    writeFileSync(join(directory, '000000030000000000000005'), Buffer.alloc(1 << 20));
    expect(judgeHistory(NAME, 3, content).state).toBe('damaged');
    expect((await readStoredHistory(directory, 3)).state).toBe('damaged');
    expect(() => readServerHistory(3, content)).toThrow(
      expect.objectContaining({ code: 'WK_PROTOCOL' }),
    );
    const { findings } = await verifyArchive(directory, { jobs: 1, quick: true });
    expect(findings.find((f) => f.code === 'history-damaged')?.severity).toBe('error');
    const target = join(scratchDir(), 'RECOVERYHISTORY');
    await expect(fetchFile({ places: [directory], name: NAME, target })).rejects.toMatchObject({
      code: 'WK_CORRUPT_WAL',
    });
    await expect(pushFile(scratchDir('archive'), path)).rejects.toMatchObject({
      code: 'WK_CORRUPT_WAL',
    });
  });

  test('is replaced by a good one, and kept', async () => {
    const directory = scratchDir('archive');
    const path = join(directory, NAME);
    const kept = join(directory, `.walkeep-damaged-${NAME}`);
    writeFileSync(path, content);
    const source = join(scratchDir(), NAME);
    writeFileSync(source, GOOD);
    expect(await pushFile(directory, source)).toEqual({ outcome: 'mended', name: NAME });
    expect(readFileSync(path, 'latin1')).toBe(GOOD);
    expect(readFileSync(kept)).toEqual(content);
    expect((await pushFile(directory, source)).outcome).toBe('present');

    writeFileSync(path, content);
    const answer = { fileName: NAME, content: Buffer.from(GOOD) };
    const connection = { timelineHistory: async () => answer } as unknown as ReplicationConnection;
    const how = { mode: 0o600, sync: true, fs: nodeFileSystem };
    await ensureHistoryFile(connection, directory, 3, how);
    expect(readFileSync(path, 'latin1')).toBe(GOOD);
  });
});
