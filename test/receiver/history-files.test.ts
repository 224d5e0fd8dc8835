import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import { ProtocolError } from '../../src/errors.js';
import { ensureHistoryFile } from '../../src/receiver/history-files.js';
import { nodeFileSystem } from '../../src/storage/file-system.js';

const GOOD = Buffer.from('1\t0/3000110\tno recovery target specified\n');
const FLIPPED = Buffer.from('1\t0/3000150\tno recovery target specified\n');

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'walkeep-history-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** Asks a server that gives these answers, one behind the other. */
function ensure(answers: readonly Buffer[], known?: Buffer) {
  const left = [...answers];
  const connection = {
    timelineHistory: async () => ({ fileName: '00000002.history', content: left.shift() }),
  } as unknown as ReplicationConnection;
  const options = { mode: 0o600, sync: true, fs: nodeFileSystem, known };
  return ensureHistoryFile(connection, dir, 2, options);
}

it('stores what two answers agree on', async () => {
  const history = await ensure([GOOD, GOOD]);
  expect(history.ancestors).toMatchObject([{ timeline: 1, end: 0x3000110n }]);
  expect(readFileSync(join(dir, '00000002.history')).equals(GOOD)).toBe(true);
  // From now on nobody is asked.
  expect(await ensure([])).toEqual(history);
});

it.each([
  ['first', [FLIPPED, GOOD], undefined],
  ['second', [GOOD, FLIPPED], undefined],
  ['one before', [GOOD], FLIPPED],
] as const)('stores nothing if the %s answer was damaged', async (_which, answers, known) => {
  await expect(ensure(answers, known)).rejects.toBeInstanceOf(ProtocolError);
  expect(readdirSync(dir)).toEqual([]);
});
