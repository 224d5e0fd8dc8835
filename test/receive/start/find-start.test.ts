import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { Ledger } from '../../../src/archive/ledger.js';
import type { ReplicationConnection } from '../../../src/connection/connection.js';
import { type FileSystem, nodeFileSystem } from '../../../src/files/file-system.js';
import type { Lsn } from '../../../src/lsn.js';
import { findStart, type StartOptions } from '../../../src/receive/start/find-start.js';
import { RemovedWal } from '../../../src/receive/start/removed-wal.js';
import type { ServerState } from '../../../src/server/server-state.js';
import { rootHistory } from '../../../src/wal/timeline.js';
import { scratchDir } from '../../support/scratch.js';
import { makeWal } from '../../wal/synthetic.js';

const MB = 1024 * 1024;
const FIRST = '000000010000000000000005';
const SECOND = '000000010000000000000006';
/** Segment 5 and a part of 6, of the cluster 77. */
const wal = makeWal(
  Array.from({ length: 50 }, (_, i) => ({ body: Buffer.alloc(30_000, i + 1) })),
  { start: BigInt(5 * MB) },
).bytes;

let directory: string;
beforeEach(() => {
  directory = scratchDir('start');
});

/** Finds the start against a server, and tells which commands it was sent, and what was warned of. */
async function find(
  { systemId = 77n, fs = nodeFileSystem }: { systemId?: bigint; fs?: FileSystem } = {},
  options: Partial<StartOptions> = {},
) {
  const commands: string[] = [];
  const warnings: string[] = [];
  let slot: object | undefined;
  const connection = {
    serverVersion: 180000,
    readReplicationSlot: async () => slot,
    createPhysicalSlot: async (name: string) => {
      commands.push(`create ${name}`);
      slot = { restartLsn: BigInt(5 * MB), restartTimeline: 1 };
    },
  } as unknown as ReplicationConnection;
  const server: ServerState = {
    ...{ segmentSize: MB, systemId, fileMode: 0o600, timeline: 1 },
    flushLsn: BigInt(7 * MB) as Lsn,
    ...{ history: rootHistory(1), historyFile: undefined },
  };
  const ledger = (await Ledger.open(directory, { create: true, fs })) as Ledger;
  const place = { o: { directory, ...options }, connection, server, ledger, fs };
  const found = await findStart(place, {
    ...{ removed: new RemovedWal(), slotInvalid: false, refused: undefined, fs },
    warn: (_, message) => warnings.push(message),
  })
    .catch((error) => ({ error }))
    .finally(() => ledger.close());
  return { ...found, commands, warnings } as Awaited<ReturnType<typeof findStart>> & {
    error?: unknown;
    commands: string[];
    warnings: string[];
  };
}

it('makes no slot on a server of another cluster', async () => {
  writeFileSync(join(directory, FIRST), wal.subarray(0, MB));
  const wanted = { slot: 'wk', ensureSlot: true };
  const { error, commands } = await find({ systemId: 78n }, wanted);
  expect(error).toMatchObject({ code: 'WK_SYSTEM_IDENTIFIER' });
  expect(commands).toEqual([]);
  expect(await find({}, wanted)).toMatchObject({
    start: { lsn: BigInt(6 * MB), reason: 'adopted' },
    commands: ['create wk'],
  });
});

it('looks again after it gave a segment its name, and says each thing once', async () => {
  writeFileSync(join(directory, `${FIRST}.partial`), wal.subarray(0, MB));
  const rest = Buffer.concat([wal.subarray(MB)], MB);
  writeFileSync(join(directory, `${SECOND}.partial`), rest);
  writeFileSync(join(directory, '000000010000000000000007'), 'short');
  const { start, warnings } = await find();
  expect(start).toMatchObject({ lsn: BigInt(6 * MB), reason: 'local' });
  expect(existsSync(join(directory, FIRST))).toBe(true);
  expect(warnings).toEqual([expect.stringContaining('has incorrect size 5')]);
});

it('looks again where another program takes complete files away meanwhile', async () => {
  const away = scratchDir('away');
  writeFileSync(join(directory, FIRST), wal.subarray(0, MB));
  writeFileSync(join(directory, SECOND), Buffer.concat([wal.subarray(MB)], MB));
  const fs: FileSystem = {
    ...nodeFileSystem,
    readdir: async (path) => {
      const entries = await nodeFileSystem.readdir(path);
      const taken = readdirSync(path).filter((n) => !n.startsWith('.'));
      const [newest] = taken.sort().reverse();
      if (newest !== undefined) renameSync(join(path, newest), join(away, newest));
      return entries;
    },
  };
  expect((await find({ fs })).start).toMatchObject({ reason: 'first start' });
  expect(readdirSync(away)).toEqual([FIRST, SECOND]);
});

it('does not look for ever', async () => {
  writeFileSync(join(directory, FIRST), wal.subarray(0, MB));
  let looks = 0;
  const fs: FileSystem = {
    ...nodeFileSystem,
    open: async (path, flags, mode) => {
      if (!path.endsWith(FIRST)) return nodeFileSystem.open(path, flags, mode);
      looks += 1;
      throw Object.assign(new Error('gone'), { code: 'ENOENT' });
    },
  };
  expect((await find({ fs })).error).toMatchObject({ code: 'WK_STORAGE' });
  expect(looks).toBe(100);
});
