import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readStoredHistory } from '../../../src/archive/history.js';
import type { ReplicationConnection } from '../../../src/connection/connection.js';
import { ProtocolError, ServerError } from '../../../src/errors.js';
import { nodeFileSystem } from '../../../src/files/file-system.js';
import {
  checkHistories,
  ensureHistoryFile,
  mendHistories,
  readHistories,
} from '../../../src/receive/start/history-files.js';
import { readServerState, type ServerState } from '../../../src/server/server-state.js';
import { parseTimelineHistory } from '../../../src/wal/timeline.js';

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

/** A server on timeline 2. */
const state = (historyFile: Buffer): ServerState => ({
  ...{ systemId: 7n, timeline: 2, flushLsn: 0x4000000n as never, segmentSize: 1 << 20 },
  ...{ fileMode: 0o600, historyFile },
  history: parseTimelineHistory(2, historyFile.toString()),
});
const stored = () => join(dir, '00000002.history');
const check = async (followed: boolean) => {
  const histories = await readHistories(dir, state(GOOD), [2, 3], nodeFileSystem);
  return checkHistories(histories, state(GOOD), { directory: dir, followed: () => followed });
};

it('one number with different content is refused; what nobody received can be moved away', async () => {
  writeFileSync(stored(), FLIPPED);
  const refused = { code: 'WK_TIMELINE_CONFLICT', path: stored() };
  await expect(check(true)).rejects.toMatchObject({
    ...refused,
    hint: expect.stringContaining('new directory'),
  });
  await expect(check(false)).rejects.toMatchObject({
    ...refused,
    hint: expect.stringContaining('move its files (00000002*)'),
  });
});

it('a damaged one is no contradiction, and is mended where the server has a good one', async () => {
  writeFileSync(stored(), '');
  writeFileSync(join(dir, '00000003.history'), '');
  // Of timeline 3 this server knows nothing.
  expect(await check(true)).toEqual([2]);
  const told: string[] = [];
  const mend = (timelineHistory: () => Promise<unknown>) =>
    mendHistories([2], {
      ...{ directory: dir, server: state(GOOD), sync: true, fs: nodeFileSystem },
      connection: { timelineHistory } as unknown as ReplicationConnection,
      warn: (code, message) => told.push(`${code} ${message}`),
    });
  await mend(() => Promise.reject(new ServerError('no file', { sqlstate: '58P01' })));
  expect(told.pop()).toMatch(/WK_STORED_DAMAGE.*the server has none/);
  expect(readFileSync(stored(), 'utf8')).toBe('');
  await mend(async () => ({ fileName: '00000002.history', content: GOOD }));
  expect(told.pop()).toMatch(/WK_STORED_DAMAGE.*replaced/);
  expect(readFileSync(stored())).toEqual(GOOD);
  expect(await check(true)).toEqual([]);
});

it.each([
  ['lost', () => Promise.reject(new ServerError('could not open file', { sqlstate: '58P01' }))],
  ['damaged', async () => ({ fileName: '00000002.history', content: Buffer.alloc(0) })],
])('a server whose own history is %s is known from the stored one', async (_what, answer) => {
  const connection = {
    show: async () => '0700',
    segmentSize: async () => 2 ** 20,
    identifySystem: async () => ({ systemId: 7n, timeline: 2, flushLsn: 0n, database: null }),
    timelineHistory: answer,
  } as unknown as ReplicationConnection;
  const told: string[] = [];
  const read = () =>
    readServerState(connection, {
      read: (timeline) => readStoredHistory(dir, timeline),
      warn: (code) => told.push(code),
    });
  await expect(read()).rejects.toThrow();
  writeFileSync(stored(), '');
  await expect(read()).rejects.toThrow();
  expect(told).toEqual([]);
  writeFileSync(stored(), GOOD);
  expect((await read()).history.ancestors).toMatchObject([{ timeline: 1, end: 0x3000110n }]);
  expect(told).toEqual(['WK_SERVER_HISTORY']);
  await expect(readServerState(connection)).rejects.toThrow();
});
