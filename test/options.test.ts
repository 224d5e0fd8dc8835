import { describe, expect, test } from 'vitest';
import { runCheck } from '../src/check/check.js';
import { cleanupArchive, planCleanup } from '../src/cleanup/cleanup.js';
import { fetchFile } from '../src/fetch/fetch.js';
import { findEvents, findMoment } from '../src/find/find.js';
import {
  connect,
  resolveSettings,
  streamWal,
  UsageError,
  WalDecoder,
  WalReceiver,
} from '../src/index.js';
import { createPhysicalSlotCommand, startReplicationCommand } from '../src/protocol/replication.js';
import { pushFile } from '../src/push/push.js';
import { verifyArchive } from '../src/verify/verify.js';

/** What programs without TypeScript may hand over. */
// biome-ignore lint/suspicious/noExplicitAny: that is what is tested
type Any = any;
const receiver = (options: Any) =>
  new WalReceiver({ connection: 'host=x', directory: '/x', ...options });
const sink: Any = { write: () => {}, flush: () => {} };
const stream = (options: Any, to: Any = sink) => streamWal({ connection: '', ...options }, to);

async function refused(what: () => unknown): Promise<UsageError> {
  const error = await Promise.resolve()
    .then(what)
    .then(
      () => undefined,
      (e) => e,
    );
  expect(error).toBeInstanceOf(UsageError);
  return error as UsageError;
}

describe('WalReceiver', () => {
  test.each([
    [{ verify: 'nonsense' }, 'verify', '"strict" or "warn" or "off", not "nonsense"'],
    [{ directory: '' }, 'directory', 'a string that is not empty, not ""'],
    [{ directory: 7 }, 'directory', 'a string that is not empty, not 7'],
    [{ connection: null }, 'connection', 'a string, or an object, not null'],
    [{ synchronous: 'yes' }, 'synchronous', 'true or false, not "yes"'],
    [{ statusInterval: Number.NaN }, 'statusInterval', 'milliseconds, not negative, not NaN'],
    [{ receiveTimeout: -1 }, 'receiveTimeout', 'not negative, not -1'],
    [{ retryDelay: Number.POSITIVE_INFINITY }, 'retryDelay', 'not Infinity'],
    [{ endLsn: 5 }, 'endLsn', 'an LSN as a bigint (parseLsn makes one), not 5'],
    [{ endLsn: 1n << 64n }, 'endLsn', 'not 18446744073709551616n'],
    [{ writeReport: 'flush' }, 'writeReport', 'not "flush"'],
    [{ apply: true }, 'apply', 'not true'],
    [{ compression: 'gzip' }, 'compression', 'an object, not "gzip"'],
    [{ compression: { method: 'zstd' } }, 'method', '"none" or "gzip" or "lz4"'],
    [{ promptPassword: 'x' }, 'promptPassword', 'a function'],
  ])('%o', async (options, name, expected) => {
    const error = await refused(() => receiver(options));
    expect(error.message).toContain(`option "${name}" must be `);
    expect(error.message).toContain(expected);
    expect(error).toMatchObject({ code: 'WK_USAGE', retryable: false });
  });

  test.each([
    [{ verfy: 'off' }, 'verfy', 'verify'],
    [{ sycnhronous: true }, 'sycnhronous', 'synchronous'],
    [{ endLSN: 1n }, 'endLSN', 'endLsn'],
    [{ compression: { method: 'gzip', levl: 1 } }, 'levl', 'level'],
  ])('%o', async (options, name, meant) => {
    const error = await refused(() => receiver(options));
    expect(error.message).toContain(`unknown option "${name}"`);
    expect(error.hint).toBe(`Did you mean "${meant}"?`);
  });

  test('unknown altogether, missing, and no object', async () => {
    const unknown = await refused(() => receiver({ colour: 'red' }));
    expect(unknown.message).toBe('WalReceiver: unknown option "colour"');
    expect(unknown.hint).toBeUndefined();
    const missing = await refused(() => new WalReceiver({ connection: '' } as Any));
    expect(missing.message).toBe('WalReceiver: option "directory" is missing');
    await refused(() => new WalReceiver('host=x' as Any));
    await refused(() => receiver({ compression: { method: 'gzip', level: 12 } }));
  });

  test('what is undefined is left out', () => {
    expect(() => receiver({ verify: undefined, slot: undefined })).not.toThrow();
    expect(() => receiver({ compression: { method: 'lz4', level: 12 } })).not.toThrow();
  });
});

test.each<[string, () => unknown, string]>([
  ['streamWal', () => stream({ verify: 'warn' }), 'verify'],
  ['streamWal', () => stream({ startLSN: 1n }), 'startLSN'],
  ['streamWal', () => stream({ timeline: 0 }), 'timeline'],
  ['streamWal, sink', () => stream({}, { write: () => {} }), 'flush'],
  ['connect', () => connect('host=x' as Any), 'object'],
  ['connect', () => connect({} as Any), 'targets'],
  ['resolveSettings', () => resolveSettings({ conninfo: '' } as Any), 'fallbackApplicationName'],
  ['WalDecoder', () => new WalDecoder({ startLsn: 0n, segmentSize: 1 } as Any), 'segmentSize'],
  ['verify', () => verifyArchive('/x', { quik: true } as Any), 'quik'],
  ['find', () => findEvents('/x', { since: 1 } as Any, () => true), 'since'],
  ['find', () => findMoment('/x', 0n as Any, { timeline: '1' } as Any), 'timeline'],
  ['fetch', () => fetchFile({ places: ['/x'], name: 'x' } as Any), 'target'],
  ['push', () => pushFile('/x', '/y', { verify: 'off' } as Any), 'verify'],
  ['cleanup', () => planCleanup('/x', 'x', { dryRun: true } as Any).then(cleanupArchive), 'dryRun'],
  ['check', () => runCheck({ directory: '/x', applicationName: 'x' } as Any), 'connect'],
  [
    'createPhysicalSlot',
    () => createPhysicalSlotCommand('s', { reserve: true } as Any, 18),
    'reserve',
  ],
  ['startReplication', () => startReplicationCommand({ startLsn: 1n } as Any), 'timeline'],
])('%s: %s', async (of, call, name) => {
  const { message } = await refused(call);
  expect(message.startsWith(`${of}: `)).toBe(true);
  expect(message).toContain(name);
});

test('an sslmode that is none is refused, not weakened', async () => {
  const settings = await resolveSettings({ conninfo: 'host=x', fallbackApplicationName: 'x' });
  for (const change of [{ sslMode: 'verify_full' }, { sslmode: 'verify-full' }]) {
    const { message } = await refused(() => connect({ ...settings, ...change } as Any));
    expect(message).toMatch(/sslmode/i);
  }
});

test('a password is not shown', async () => {
  const given = { fallbackApplicationName: 'x', password: 4711 } as Any;
  const { message } = await refused(() => resolveSettings(given));
  expect(message).toBe('resolveSettings: option "password" must be a string, not number');
});
