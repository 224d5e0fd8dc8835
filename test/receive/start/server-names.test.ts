import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ReplicationConnection } from '../../../src/connection/connection.js';
import { nodeFileSystem } from '../../../src/files/file-system.js';
import { parseLsn } from '../../../src/lsn.js';
import {
  createPhysicalSlotCommand,
  dropSlotCommand,
  readReplicationSlotCommand,
  startReplicationCommand,
} from '../../../src/protocol/replication.js';
import { ensureHistoryFile } from '../../../src/receive/start/history-files.js';
import { scratchDir } from '../../support/scratch.js';

const CONTENT = Buffer.from('1\t0/3000000\tno recovery target specified\n');

/** A server that calls the file as it likes. */
const server = (fileName: string) =>
  ({
    timelineHistory: async () => ({ fileName, content: CONTENT }),
  }) as unknown as ReplicationConnection;

const store = (directory: string, fileName: string) =>
  ensureHistoryFile(server(fileName), directory, 2, {
    mode: 0o600,
    sync: true,
    fs: nodeFileSystem,
  });

describe('the name of a history file, as the server sends it', () => {
  it('is the one that it must be', async () => {
    const directory = scratchDir('history');
    await store(directory, '00000002.history');
    expect(readdirSync(directory)).toEqual(['00000002.history']);
    expect(readFileSync(join(directory, '00000002.history'))).toEqual(CONTENT);
  });

  it.each([
    '../00000002.history',
    '../../../../../../tmp/00000002.history',
    '/tmp/00000002.history',
    'sub/00000002.history',
    './00000002.history',
    '00000002.history\0',
    '00000002.history/',
    '00000003.history',
    '00000002.HISTORY',
    '.walkeep-ledger',
    '000000020000000000000001',
    '\x1b[2J',
    '',
    '..',
  ])('%j is refused, and nothing is written', async (name) => {
    const parent = scratchDir('history');
    const directory = join(parent, 'a');
    mkdirSync(directory);
    await expect(store(directory, name)).rejects.toMatchObject({ code: 'WK_PROTOCOL' });
    expect(readdirSync(directory)).toEqual([]);
    expect(readdirSync(parent)).toEqual(['a']);
    expect(existsSync('/tmp/00000002.history')).toBe(false);
  });
});

describe('the name of a slot', () => {
  it.each(['x"; DROP_REPLICATION_SLOT "y', 'a"b""c', '"', "x' y", 'x\n y', '../x', '\u001b[2J'])(
    '%j stays inside its quotes',
    (name) => {
      const quoted = `"${name.replaceAll('"', '""')}"`;
      const startLsn = parseLsn('0/3000000');
      const commands = [
        createPhysicalSlotCommand(name, { reserveWal: true }, 180000),
        createPhysicalSlotCommand(name, { reserveWal: true }, 140000),
        dropSlotCommand(name),
        readReplicationSlotCommand(name, 180000),
        startReplicationCommand({ slot: name, startLsn, timeline: 1 }),
      ];
      for (const command of commands) {
        expect(command).toContain(quoted);
        expect(command.replace(quoted, 'NAME')).toMatch(/^[A-Z_]+ (SLOT )?NAME[ A-Z0-9/()_]*$/);
      }
    },
  );

  it.each(['', 'a\0b'])('%j is refused', (name) => {
    expect(() => dropSlotCommand(name)).toThrow('invalid name of a replication slot');
  });
});
