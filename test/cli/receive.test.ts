import { EventEmitter } from 'node:events';
import { tmpdir } from 'node:os';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { ConnectionSettings } from '../../src/connection/conninfo/settings.js';
import {
  AuthenticationError,
  ConnectionError,
  GapError,
  ServerError,
  WalRemovedError,
} from '../../src/errors.js';
import { toLsn } from '../../src/lsn.js';
import type { ReceiverEvents, WalReceiverOptions } from '../../src/receive/options.js';
import { run } from './run.js';

type Receiver = EventEmitter<ReceiverEvents>;
const CONNECTED: ReceiverEvents['connect'][0] = {
  host: 'h',
  port: 5432,
  serverVersion: 180000,
  systemId: 1n,
  timeline: 1,
  flushLsn: toLsn(1n),
};

const { seen, behaviour, slots, promptPassword, canPrompt } = vi.hoisted(() => ({
  seen: {} as {
    options?: WalReceiverOptions;
    resolved?: Record<string, unknown>[];
    connected?: ConnectionSettings[];
  },
  behaviour: {} as {
    run?: (receiver: Receiver, signal: AbortSignal) => Promise<void>;
    connect?: (settings: ConnectionSettings) => void;
    database?: string | null;
  },
  slots: { createPhysicalSlot: vi.fn(), dropSlot: vi.fn(), close: vi.fn() },
  promptPassword: vi.fn(async (_signal?: AbortSignal) => 'typed'),
  canPrompt: vi.fn(() => true),
}));

vi.mock('../../src/cli/prompt.js', () => ({ promptPassword, canPrompt }));
vi.mock('../../src/connection/conninfo/resolve.js', () => ({
  resolveSettings: async (input: Record<string, unknown>) => {
    seen.resolved = [...(seen.resolved ?? []), input];
    return { ...input, warnings: ['gssencmode is ignored'] };
  },
}));
vi.mock('../../src/connection/connect.js', () => ({
  connect: async (settings: ConnectionSettings) => {
    seen.connected = [...(seen.connected ?? []), settings];
    behaviour.connect?.(settings);
    return { ...slots, identifySystem: async () => ({ database: behaviour.database ?? null }) };
  },
}));
vi.mock('../../src/receive/receiver.js', () => ({
  WalReceiver: class extends EventEmitter<ReceiverEvents> {
    constructor(options: WalReceiverOptions) {
      super();
      seen.options = options;
    }
    async run(signal: AbortSignal) {
      await behaviour.run?.(this, signal);
      return toLsn(1n);
    }
  },
}));

const directory = tmpdir();
const WARNING = (program: string) => `${program}: warning: gssencmode is ignored\n`;

beforeEach(() => {
  vi.clearAllMocks();
  canPrompt.mockReturnValue(true);
  for (const object of [seen, behaviour] as Record<string, unknown>[]) {
    for (const key of Object.keys(object)) delete object[key];
  }
});

describe('options for the receiver', () => {
  it('are upstream’s under its name', async () => {
    const { code, stderr } = await run('pg_receivewal', '-D', directory, '-h', 'db', '-d', 'a=b');
    expect({ code, stderr }).toEqual({ code: 0, stderr: WARNING('pg_receivewal') });
    expect(seen.resolved).toEqual([
      { conninfo: 'a=b', host: 'db', fallbackApplicationName: 'pg_receivewal' },
    ]);
    expect(seen.options).toMatchObject({
      directory,
      synchronous: false,
      sync: true,
      statusInterval: 10_000,
      reconnect: true,
      retryFirstConnection: false,
      retryDelay: 5000,
      refuseGaps: false,
      acceptGap: false,
      compression: { method: 'none' },
    });
    expect(seen.options).not.toHaveProperty('receiveTimeout');
    expect(seen.options).not.toHaveProperty('slot');
  });

  it('are walkeep’s own under its name', async () => {
    const given = '-Ss -E0/7000000 -s0 -Zlz4 --synchronous --ensure-slot --accept-gap';
    const argv = [...given.split(' '), '--receive-timeout=7', '-p', '1', '-U', 'u'];
    expect((await run('walkeep', 'receive', '-D', directory, ...argv)).code).toBe(0);
    expect(seen.resolved).toEqual([{ port: '1', user: 'u', fallbackApplicationName: 'walkeep' }]);
    expect(seen.options).toMatchObject({
      slot: 's',
      endLsn: 0x7000000n,
      statusInterval: 0,
      compression: { method: 'lz4' },
      synchronous: true,
      ensureSlot: true,
      acceptGap: true,
      receiveTimeout: 7000,
      retryFirstConnection: true,
      refuseGaps: true,
    });
    expect(seen.options).not.toHaveProperty('retryDelay');
  });

  it('name other archives of the cluster, and what opens them', async () => {
    const places = ['--backfill=/b', '--backfill=ssh://c.example/wal'];
    await run('walkeep', 'receive', '-D', directory, ...places, '--identity=/key');
    expect(seen.options).toMatchObject({
      backfill: { places: ['/b', 'ssh://c.example/wal'], keys: { identityFiles: ['/key'] } },
    });
    await run('walkeep', 'receive', '-D', directory);
    expect(seen.options).not.toHaveProperty('backfill');
    const { code, stderr } = await run('walkeep', 'receive', '-D', directory, '--identity=/key');
    expect(code).toBe(1);
    expect(stderr).toMatch(/error: --identity and --identity-command need a place with --backfill/);
    const wrong = await run('walkeep', 'receive', '-D', directory, '--backfill=ftp://b/wal');
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toMatch(/ftp/);
  });

  it('-n turns every retry off', async () => {
    await run('walkeep', 'receive', '-nD', directory);
    expect(seen.options).toMatchObject({ reconnect: false, retryFirstConnection: false });
  });
});

describe('the end of a run', () => {
  it('-n after a lost connection: the error once, then disconnected', async () => {
    behaviour.run = async (receiver) => {
      receiver.emit('connect', CONNECTED);
      const error = new ConnectionError('server closed the connection unexpectedly');
      receiver.emit('disconnect', { error, retryIn: undefined });
      throw error;
    };
    const { code, stderr } = await run('pg_receivewal', '-nD', directory);
    expect(code).toBe(1);
    expect(stderr).toBe(
      `${WARNING('pg_receivewal')}pg_receivewal: error: server closed the connection unexpectedly\n` +
        'pg_receivewal: error: disconnected\n',
    );
  });

  it.each<[string, boolean, Error, boolean]>([
    ['a first connection that failed', false, new ConnectionError('x'), false],
    ['removed WAL', true, new WalRemovedError('x'), true],
    ['a refused gap', true, new GapError('x'), false],
    ['a bug', true, new TypeError('x'), false],
  ])('-n after %s', async (_, connected, error, disconnected) => {
    behaviour.run = async (receiver) => {
      if (connected) receiver.emit('connect', CONNECTED);
      throw error;
    };
    const { code, stderr } = await run('pg_receivewal', '-nD', directory);
    expect(code).toBe(1);
    expect(stderr).toContain('pg_receivewal: error: x\n');
    expect(stderr.includes('error: disconnected')).toBe(disconnected);
  });

  it('a stop signal ends it with 0 and its handlers go', async () => {
    const before = process.listenerCount('SIGTERM');
    behaviour.run = (receiver, signal) =>
      new Promise((resolve) => {
        signal.addEventListener('abort', () => {
          receiver.emit('stop', { lsn: toLsn(1n), timeline: 1, reason: 'signal' });
          resolve();
        });
        process.emit('SIGTERM', 'SIGTERM');
      });
    const { code, stderr } = await run('pg_receivewal', '-vD', directory);
    expect(code).toBe(0);
    expect(stderr).toContain('pg_receivewal: received interrupt signal, exiting\n');
    expect(process.listenerCount('SIGTERM')).toBe(before);
  });
});

describe('passwords', () => {
  it('-W asks before anything else', async () => {
    await run('pg_receivewal', '-WD', directory);
    expect(promptPassword).toHaveBeenCalledTimes(1);
    expect(seen.options?.connection).toMatchObject({ password: 'typed' });
    expect(seen.options).not.toHaveProperty('promptPassword');
  });

  it('-w never asks', async () => {
    await run('pg_receivewal', '-wD', directory);
    expect(seen.options).not.toHaveProperty('promptPassword');
  });

  it('otherwise asks when the server does, if there is anybody to ask', async () => {
    await run('pg_receivewal', '-D', directory);
    expect(await seen.options?.promptPassword?.()).toBe('typed');
    canPrompt.mockReturnValue(false);
    await run('pg_receivewal', '-D', directory);
    expect(seen.options).not.toHaveProperty('promptPassword');
  });

  it('for a slot action too', async () => {
    behaviour.connect = ({ password }) => {
      if (password === undefined) throw new AuthenticationError('who?', { needsPassword: true });
    };
    expect((await run('pg_receivewal', '--drop-slot', '-Ss')).code).toBe(0);
    expect(seen.connected?.at(-1)).toMatchObject({ password: 'typed' });
    expect((await run('pg_receivewal', '--drop-slot', '-Ss', '-w')).stderr).toContain('who?');
  });
});

describe('slot actions', () => {
  const exists = new ServerError('ERROR:  slot exists', { sqlstate: '42710' });

  it('creates without reserving WAL', async () => {
    const { code, stderr } = await run('pg_receivewal', '--create-slot', '-vSs');
    expect(code).toBe(0);
    expect(stderr).toContain('pg_receivewal: creating replication slot "s"\n');
    expect(slots.createPhysicalSlot).toHaveBeenCalledWith('s', { reserveWal: false });
    expect(slots.close).toHaveBeenCalledTimes(1);
  });

  it('drops', async () => {
    const { code, stderr } = await run('walkeep', 'receive', '--drop-slot', '-vSs');
    expect(code).toBe(0);
    expect(stderr).toContain('walkeep: dropping replication slot "s"\n');
    expect(slots.dropSlot).toHaveBeenCalledWith('s');
  });

  it.each<[string[], Error, number]>([
    [['--create-slot'], exists, 1],
    [['--create-slot', '--if-not-exists'], exists, 0],
    [['--create-slot', '--if-not-exists'], new ServerError('x', { sqlstate: '53400' }), 1],
  ])('%j against %s exits %d', async (argv, error, expected) => {
    slots.createPhysicalSlot.mockRejectedValueOnce(error);
    expect((await run('pg_receivewal', ...argv, '-Ss')).code).toBe(expected);
    expect(slots.close).toHaveBeenCalledTimes(1);
  });

  it('refuses a connection to a database', async () => {
    behaviour.database = 'postgres';
    const { code, stderr } = await run('pg_receivewal', '--create-slot', '-Ss');
    expect(code).toBe(1);
    expect(stderr).toContain(
      'error: replication connection using slot "s" is unexpectedly database specific\n',
    );
    expect(slots.createPhysicalSlot).not.toHaveBeenCalled();
  });
});
