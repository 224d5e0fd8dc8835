import { afterEach, describe, expect, it } from 'vitest';
import { parseManifest } from '../../src/base/manifest.js';
import { TarReader } from '../../src/base/tar.js';
import type { BackupArchive, BaseBackupHandler } from '../../src/connection/base-backup.js';
import { connect } from '../../src/connection/connect.js';
import { ConnectionError, ProtocolError, ServerError, UsageError } from '../../src/errors.js';
import { parseLsn } from '../../src/lsn.js';
import type {
  BackupPosition,
  BackupTablespace,
  BaseBackupOptions,
} from '../../src/protocol/base-backup.js';
import * as backend from '../support/backend-messages.js';
import { scriptedBackup } from '../support/backup-script.js';
import { type Script, ScriptedServer } from '../support/scripted-server.js';
import { FakeWire } from './fake-wire.js';
import { rejection, settingsFor } from './fixtures.js';

const OPTIONS: BaseBackupOptions = { label: 'x', checkpoint: 'fast', manifest: 'yes' };

/** What was called, pieces of one kind joined. */
class Calls implements BaseBackupHandler {
  readonly calls: string[] = [];
  protected pieces: { kind: string; bytes: Buffer[] } | undefined;

  onStart(start: BackupPosition, tablespaces: readonly BackupTablespace[]): void {
    this.add(`start ${start.lsn} ${start.timeline} ${JSON.stringify(tablespaces)}`);
  }
  onArchive(archive: BackupArchive): void {
    this.add(`archive ${JSON.stringify(archive)}`);
  }
  onData(chunk: Uint8Array): void {
    this.piece('data', chunk);
  }
  onManifest(chunk: Uint8Array): void {
    this.piece('manifest', chunk);
  }
  onProgress(bytes: number): void {
    this.add(`progress ${bytes}`);
  }
  end(): string[] {
    if (this.pieces) {
      this.calls.push(`${this.pieces.kind} ${Buffer.concat(this.pieces.bytes).toString()}`);
    }
    this.pieces = undefined;
    return this.calls;
  }
  protected add(call: string): void {
    this.end();
    this.calls.push(call);
  }
  protected piece(kind: string, chunk: Uint8Array): void {
    if (chunk.length === 0) throw new Error('an empty piece');
    if (this.pieces?.kind !== kind) {
      this.end();
      this.pieces = { kind, bytes: [] };
    }
    this.pieces?.bytes.push(Buffer.from(chunk));
  }
}

const position = (lsn: string, timeline: string) =>
  backend.rowsOf(['recptr', 'tli'], [[lsn, timeline]]);
const COLUMNS = ['spcoid', 'spclocation', 'size'];
const TABLESPACES = backend.rowsOf(COLUMNS, [
  ['16388', '/srv/t', '7'],
  [null, null, '20'],
]);
const START = Buffer.concat([position('0/2000028', '1'), TABLESPACES]);
const END = Buffer.concat([
  position('0/2000100', '1'),
  backend.commandComplete('BASE_BACKUP'),
  backend.readyForQuery(),
]);
const text = (s: string) => Buffer.from(s);

/** As 15 and newer send it. */
const FRAMED = Buffer.concat([
  START,
  backend.copyOut(),
  backend.newArchive('16388.tar', '/srv/t'),
  backend.archiveData(text('first ')),
  backend.noticeResponse('inside'),
  backend.archiveData(text('tar')),
  backend.archiveData(Buffer.alloc(0)),
  backend.backupProgress(9n),
  backend.newArchive('base.tar'),
  backend.archiveData(text('base')),
  backend.backupProgress(13n),
  backend.newManifest(),
  backend.archiveData(text('mani')),
  backend.archiveData(text('fest')),
  backend.copyDone(),
  END,
]);
/** As 14 sends it. */
const SINGLE = Buffer.concat([
  START,
  backend.copyOut(),
  backend.copyData(text('first ')),
  backend.copyData(text('tar')),
  backend.copyDone(),
  backend.noticeResponse('between'),
  backend.copyOut(),
  backend.copyData(text('base')),
  backend.copyDone(),
  backend.copyOut(),
  backend.copyData(text('mani')),
  backend.copyData(text('fest')),
  backend.copyDone(),
  END,
]);

const ARCHIVES = [
  '{"name":"16388.tar","oid":16388,"location":"/srv/t"}',
  '{"name":"base.tar"}',
] as const;
const STARTED = `start ${0x2000028} 1 [{"oid":16388,"location":"/srv/t","size":7168},{"size":20480}]`;
const CALLS_SINGLE = [
  STARTED,
  `archive ${ARCHIVES[0]}`,
  'data first tar',
  `archive ${ARCHIVES[1]}`,
  'data base',
  'manifest manifest',
];
const CALLS_FRAMED = [
  ...CALLS_SINGLE.slice(0, 3),
  'progress 9',
  ...CALLS_SINGLE.slice(3, 5),
  'progress 13',
  'manifest manifest',
];
const WHOLE = { end: { lsn: parseLsn('0/2000100'), timeline: 1 } };

const PROTOCOLS = [
  ['14.23', SINGLE, CALLS_SINGLE],
  ['18.4', FRAMED, CALLS_FRAMED],
] as const;

function begin(version: string, handler: BaseBackupHandler = new Calls(), options = OPTIONS) {
  const notices: string[] = [];
  const { wire, connection } = FakeWire.connect(version, ({ message }) => notices.push(message));
  const stream = connection.baseBackup(options, handler);
  return { wire, connection, stream, notices };
}

/** A backup whose messages are wrong: how it fails. */
async function failure(version: string, ...parts: Uint8Array[]) {
  const { wire, connection, stream } = begin(version);
  wire.push(...parts);
  const error = await rejection(stream.done);
  expect(wire.destroyed).toBe(true);
  expect(connection.closed).toBe(true);
  return error;
}

describe.each(PROTOCOLS)('a backup of %s', (version, bytes, calls) => {
  const take = async (pieces: Iterable<Buffer>) => {
    const handler = new Calls();
    const { wire, connection, stream, notices } = begin(version, handler);
    for (const piece of pieces) wire.push(piece);
    expect(await stream.done).toEqual(WHOLE);
    expect(handler.end()).toEqual(calls);
    expect(notices).toHaveLength(1);
    expect(connection.commandSince).toBeUndefined();
    return connection;
  };

  it('is the same however its messages are split', async () => {
    await take([bytes]);
    for (let at = 1; at < bytes.length; at++)
      await take([bytes.subarray(0, at), bytes.subarray(at)]);
    for (const size of [1, 2, 3, 5, 8, 13, 64]) {
      const pieces: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
      await take(pieces);
    }
  });

  it('leaves the connection to the next command', async () => {
    const { wire, connection, stream } = begin(version);
    await expect(connection.identifySystem()).rejects.toThrow(UsageError);
    wire.push(bytes);
    await stream.done;
    const shown = connection.show('x');
    wire.push(backend.resultSet({ x: '1' }));
    expect(await shown).toBe('1');
  });

  it('fails wherever the connection breaks', async () => {
    for (let at = 0; at < bytes.length; at++) {
      const { wire, connection, stream } = begin(version);
      wire.push(bytes.subarray(0, at));
      wire.lose(new ConnectionError('lost'));
      await expect(stream.done).rejects.toThrow('lost');
      expect(connection.closed).toBe(true);
    }
  });

  it('fails with the error of the server wherever it comes, and the session goes on', async () => {
    const error = backend.errorResponse('58030', 'could not read', { D: 'why' });
    for (const at of boundaries(bytes)) {
      const { wire, connection, stream } = begin(version);
      wire.push(bytes.subarray(0, at), error);
      wire.push(backend.readyForQuery());
      const failed = await rejection<ServerError>(stream.done);
      expect(failed, `${at}`).toBeInstanceOf(ServerError);
      expect(failed).toMatchObject({ sqlstate: '58030', detail: 'why' });
      expect(failed.message).toMatch(
        /^(could not initiate base backup|base backup failed): ERROR: {2}could not read$/,
      );
      expect(connection.closed).toBe(false);
    }
  });

  it('is not complete before ReadyForQuery', async () => {
    const { wire, stream } = begin(version);
    wire.push(bytes.subarray(0, bytes.length - 6));
    const race = await Promise.race([stream.done, new Promise((r) => setImmediate(r, 'open'))]);
    expect(race).toBe('open');
    const damage = backend.errorResponse('XX001', 'checksum verification failure');
    wire.push(damage, backend.readyForQuery());
    await expect(stream.done).rejects.toMatchObject({ sqlstate: 'XX001' });
  });

  it('keeps what a FATAL error said when the connection ends behind it', async () => {
    const { wire, stream } = begin(version);
    wire.push(START, backend.errorResponse('57P01', 'shutting down', {}, 'FATAL'));
    wire.lose(new ConnectionError('lost'));
    await expect(stream.done).rejects.toMatchObject({ sqlstate: '57P01', retryable: true });
  });

  it('takes a signal, and leaves alone what is over', async () => {
    const reason = new Error('enough');
    const { wire, connection } = FakeWire.connect(version);
    await expect(
      connection.baseBackup(OPTIONS, new Calls(), AbortSignal.abort(reason)).done,
    ).rejects.toBe(reason);
    expect(wire.written).toEqual([]);
    const whole = new AbortController();
    const first = connection.baseBackup(OPTIONS, new Calls(), whole.signal);
    wire.push(bytes);
    await first.done;
    whole.abort();
    expect(connection.closed).toBe(false);
    const controller = new AbortController();
    const second = connection.baseBackup(OPTIONS, new Calls(), controller.signal);
    wire.push(bytes.subarray(0, 300));
    controller.abort(reason);
    await expect(second.done).rejects.toBe(reason);
    expect(wire.destroyed).toBe(true);
  });

  it.each(['onStart', 'onArchive', 'onData', 'onManifest'] as const)(
    'ends with what %s throws',
    async (method) => {
      const thrown = new TypeError('of the handler');
      const handler = new Calls();
      handler[method] = () => {
        throw thrown;
      };
      const { wire, connection, stream } = begin(version, handler);
      wire.push(bytes);
      await expect(stream.done).rejects.toBe(thrown);
      expect(wire.destroyed).toBe(true);
      expect(connection.closed).toBe(true);
    },
  );

  it('delivers nothing more once a handler has ended the connection', async () => {
    const handler = new Calls();
    const { wire, connection, stream } = begin(version, handler);
    handler.onData = () => {
      handler.calls.push('data');
      connection.destroy();
    };
    wire.push(bytes);
    await expect(stream.done).rejects.toThrow('the connection was closed');
    expect(handler.calls.filter((call) => call === 'data')).toHaveLength(1);
  });

  it('is never left paused', async () => {
    class Pausing extends Calls {
      stream: { pause(): void } | undefined;
      override onManifest(): void {
        this.stream?.pause();
      }
    }
    for (const ending of [bytes, Buffer.concat([bytes.subarray(0, -END.length), failing()])]) {
      const handler = new Pausing();
      const { wire, stream } = begin(version, handler);
      handler.stream = stream;
      stream.pause();
      expect(wire.paused).toBe(false);
      const at = ending.indexOf('fest') + 4;
      wire.push(ending.subarray(0, at));
      expect(wire.paused).toBe(true);
      stream.resume();
      expect(wire.paused).toBe(false);
      stream.pause();
      wire.push(ending.subarray(at));
      await stream.done.catch(() => {});
      expect(wire.paused).toBe(false);
      stream.pause();
      expect(wire.paused).toBe(false);
    }
  });
});

function failing(): Buffer {
  return Buffer.concat([backend.errorResponse('XX001', 'damaged'), backend.readyForQuery()]);
}

/** Where messages end, before the end of the backup. */
function boundaries(bytes: Buffer): number[] {
  const ends = [0];
  for (let at = 0; at < bytes.length; at += 1 + bytes.readUInt32BE(at + 1)) ends.push(at);
  return ends;
}

describe('what is no base backup is refused', () => {
  const { newArchive, archiveData, newManifest, copyData, copyOut, copyDone, message } = backend;
  const first = newArchive('16388.tar', '/srv/t');
  const base = newArchive('base.tar');
  const open = Buffer.concat([START, copyOut()]);

  it.each<[string, Uint8Array[], RegExp]>([
    ['an unknown kind', [open, first, copyData(text('x1'))], /unexpected message "x" in a base/],
    ['an empty message', [open, first, copyData(Buffer.alloc(0))], /empty message/],
    ['data before an archive', [open, archiveData(text('x'))], /before the first archive/],
    ['the manifest before the archives', [open, newManifest()], /unexpected manifest/],
    ['the manifest too early', [open, first, newManifest()], /unexpected manifest/],
    ['two manifests', [open, first, base, newManifest(), newManifest()], /unexpected manifest/],
    ['a longer manifest message', [open, first, base, copyData(text('mx'))], /extraneous/],
    [
      'an archive behind the manifest',
      [open, first, base, newManifest(), base],
      /unexpected archive/,
    ],
    ['the archives in another order', [open, base], /unexpected archive "base.tar"/],
    ['one archive twice', [open, first, first], /unexpected archive/],
    ['an archive too many', [open, first, base, newArchive('data.tar')], /unexpected archive/],
    ['a path for a name', [open, newArchive('../../x.tar', '/srv/t')], /unexpected archive/],
    ['a slash in a name', [open, newArchive('a/16388.tar', '/srv/t')], /unexpected archive/],
    ['another location', [open, newArchive('16388.tar', '/etc')], /unexpected archive/],
    ['a compressed one', [open, newArchive('16388.tar.gz', '/srv/t')], /unexpected archive/],
    ['one string', [open, copyData(text('n16388.tar\0'))], /two strings/],
    ['three strings', [open, copyData(text('n16388.tar\0/srv/t\0x\0'))], /two strings/],
    ['strings without an end', [open, copyData(text('n16388.tar\0/srv/t'))], /two strings/],
    ['a name without an end', [open, copyData(Buffer.alloc(5000, 'n'))], /is too long/],
    ['a short report', [open, first, copyData(text('p123'))], /not 8 bytes/],
    ['a negative report', [open, first, backend.backupProgress(-1n)], /-1 bytes/],
    ['an oversized message', [open, message('d', text('d'), 65 * 1024 * 1024)], /invalid length/],
    ['an early end', [open, first, copyDone()], /ended before all/],
    ['an end without a manifest', [open, first, base, copyDone()], /ended before all/],
    ['a second COPY', [open, first, base, newManifest(), copyDone(), copyOut()], /unexpected COPY/],
    ['a COPY in a COPY', [open, copyOut()], /unexpected message copyOutResponse/],
    ['rows in a COPY', [open, first, START], /unexpected message rowDescription/],
    ['no data', [START, END], /unexpected message rowDescription/],
    ['data outside COPY', [START, archiveData(text('x'))], /unexpected CopyData/],
    ['the end of a COPY that was none', [START, copyDone()], /unexpected message copyDone/],
    ['a ready server in the middle', [open, first, backend.readyForQuery()], /readyForQuery/],
    ['a ready server at once', [backend.readyForQuery()], /unexpected message readyForQuery/],
    ['COPY BOTH', [START, backend.copyBoth()], /unexpected message copyBothResponse/],
    ['a COPY before the start', [copyOut()], /unexpected message copyOutResponse/],
    ['no tablespaces', [position('0/1', '1'), position('0/1', '1')], /has 2 columns/],
    ['no end', [FRAMED.subarray(0, -END.length), backend.readyForQuery()], /readyForQuery/],
    [
      'an end of two rows',
      [
        FRAMED.subarray(0, -END.length),
        backend.rowsOf(
          ['a', 'b'],
          [
            ['0/1', '1'],
            ['0/1', '1'],
          ],
        ),
      ],
      /read the end of the backup/,
    ],
    ['rows behind the end', [FRAMED.subarray(0, -6), START], /unexpected message rowDescription/],
  ])('%s', async (_, parts, message) => {
    const error = await failure('18.4', ...parts);
    expect(error).toBeInstanceOf(ProtocolError);
    expect(error.message).toMatch(message);
  });

  it.each<[string, Uint8Array[], RegExp]>([
    [
      'a COPY too few',
      [open, copyDone(), copyOut(), copyDone(), END],
      /unexpected message rowDesc/,
    ],
    [
      'a COPY too many',
      [SINGLE.subarray(0, -END.length), copyOut()],
      /unexpected COPY in a base backup/,
    ],
  ])('%s, of PostgreSQL 14', async (_, parts, message) => {
    expect((await failure('14.23', ...parts)).message).toMatch(message);
  });

  it('a manifest that nobody asked for', async () => {
    for (const [version, bytes] of PROTOCOLS) {
      const { wire, stream } = begin(version, new Calls(), { label: 'x', checkpoint: 'fast' });
      wire.push(bytes);
      await expect(stream.done).rejects.toThrow(/unexpected (manifest|COPY)/);
    }
  });
});

it('a command that is refused here leaves the connection as it is', async () => {
  const { wire, connection, stream } = begin('14.23', new Calls(), {
    ...OPTIONS,
    incremental: true,
  });
  await expect(stream.done).rejects.toThrow(UsageError);
  expect(connection.closed).toBe(false);
  expect(wire.written).toEqual([]);
});

it('an archive that the server has compressed keeps its name', async () => {
  const handler = new Calls();
  const { wire, stream } = begin('15.13', handler, {
    ...OPTIONS,
    manifest: 'no',
    compression: { method: 'zstd' },
  });
  wire.push(
    START,
    backend.copyOut(),
    backend.newArchive('16388.tar.zst', '/srv/t'),
    backend.newArchive('base.tar.zst'),
    backend.copyDone(),
    END,
  );
  expect(await stream.done).toEqual(WHOLE);
  expect(handler.end().slice(1)).toEqual(ARCHIVES.map((archive) => `archive ${archive}`));
});

/** The tars by their names, read to their ends, and the manifest. */
class Read implements BaseBackupHandler {
  tablespaces: readonly BackupTablespace[] = [];
  readonly archives: BackupArchive[] = [];
  readonly members: Record<string, string[]> = {};
  #tar: TarReader | undefined;
  #manifest: Buffer[] = [];

  onStart(_start: BackupPosition, tablespaces: readonly BackupTablespace[]): void {
    this.tablespaces = tablespaces;
  }
  onArchive(archive: BackupArchive): void {
    this.#tar?.end();
    this.archives.push(archive);
    const names: string[] = [];
    this.members[archive.name] = names;
    this.#tar = new TarReader({
      member: ({ name }) => void names.push(name),
      content() {},
      done() {},
    });
  }
  onData(chunk: Uint8Array): void {
    this.#tar?.feed(chunk);
  }
  onManifest(chunk: Uint8Array): void {
    this.#manifest.push(Buffer.from(chunk));
  }
  manifest(repeated: 'refused' | 'allowed' = 'refused') {
    this.#tar?.end();
    return parseManifest(Buffer.concat(this.#manifest), 'backup_manifest', repeated);
  }
}

const LOCAL = {
  backup_label: 'label',
  'pg_wal/': '',
  PG_VERSION: '15\n',
  'polar_settings.conf': '',
};
const SHARED = { PG_VERSION: '15\n\n', 'base/1/1259': 'x'.repeat(700), 'global/pg_control': 'c' };

it.each([14, 15, 18])('a scripted server of %i gives a backup that can be read', async (major) => {
  const handler = new Read();
  const { wire, stream } = begin(`${major}.1`, handler);
  const tars = [{ oid: 16388, location: '/srv/t', files: { 'PG_14/x': 'x' } }, { files: SHARED }];
  wire.push(scriptedBackup({ major, tars, chunk: 100 }));
  expect(await stream.done).toEqual(WHOLE);
  expect(handler.members).toEqual({
    '16388.tar': ['PG_14/x'],
    'base.tar': Object.keys(SHARED),
  });
  expect(handler.manifest().files).toHaveLength(4);
});

it('PolarDB has a second data directory', async () => {
  const handler = new Read();
  const { wire, stream } = begin('15.13', handler);
  // With WAL its first tar has no end, and two files have one path in the manifest.
  const tars = [
    { oid: 16388, location: '/srv/t', files: { 'PG_15/x': 'x' } },
    { files: LOCAL, ending: false },
    { shared: true, files: SHARED },
  ];
  wire.push(scriptedBackup({ major: 15, polar: true, tars }));
  expect(await stream.done).toEqual(WHOLE);
  expect(handler.tablespaces.map(({ polar }) => polar)).toEqual(['local', 'local', 'shared']);
  expect(handler.archives).toEqual([
    { name: '16388.tar', oid: 16388, location: '/srv/t', polar: 'local' },
    { name: 'base.tar', polar: 'local' },
    { name: 'data.tar', polar: 'shared' },
  ]);
  expect(handler.members['data.tar']?.at(-1)).toBe('global/pg_control');
  expect(() => handler.manifest()).toThrow('twice');
  const versions = handler.manifest('allowed').files.filter(({ path }) => path === 'PG_VERSION');
  expect(versions.map(({ size }) => size)).toEqual([3, 4]);
});

it('PolarDB without shared storage has one', async () => {
  const handler = new Read();
  const { wire, stream } = begin('15.13', handler);
  wire.push(scriptedBackup({ major: 15, polar: true, tars: [{ files: SHARED }] }));
  expect(await stream.done).toEqual(WHOLE);
  expect(handler.archives).toEqual([{ name: 'base.tar', polar: 'local' }]);
});

describe('over a socket', () => {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0)) await cleanup();
  });
  async function session(script: Script) {
    const server = await ScriptedServer.listen(script);
    cleanups.push(() => server.close());
    const connection = await connect(settingsFor('127.0.0.1', server.port));
    cleanups.push(async () => connection.destroy());
    return { server, connection };
  }

  it('the server waits while reading is paused', async () => {
    const SIZE = 64 * 1024 * 1024;
    let written = 0;
    const { connection } = await session(async (c) => {
      await c.accept();
      await c.nextQuery();
      c.send(START, backend.copyOut(), backend.newArchive('16388.tar', '/srv/t'));
      const data = backend.archiveData(Buffer.alloc(32768));
      while (written < SIZE) {
        written += 32768;
        if (!c.socket.write(data)) {
          await new Promise<void>((resolve) => c.socket.once('drain', resolve));
        }
      }
      c.send(backend.newArchive('base.tar'), backend.newManifest(), backend.copyDone(), END);
    });
    let length = 0;
    let wake = () => {};
    const paused = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const handler = new Calls();
    handler.onData = (chunk) => {
      if (length === 0) {
        stream.pause();
        wake();
      }
      length += chunk.length;
    };
    const stream = connection.baseBackup(OPTIONS, handler);
    await paused;
    // Its socket takes some, and then nothing: all turns of the loop do not change that.
    let before = -1;
    for (let same = 0; same < 50; same = before === written ? same + 1 : 0) {
      before = written;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    expect(written).toBeLessThan(SIZE);
    expect(length).toBeLessThan(1024 * 1024);
    stream.resume();
    expect(await stream.done).toEqual(WHOLE);
    expect(length).toBe(SIZE);
  });

  it('a server that goes ends it', async () => {
    const { connection } = await session(async (c) => {
      await c.accept();
      await c.nextQuery();
      c.send(FRAMED.subarray(0, FRAMED.length - 10));
      c.reset();
    });
    const error = await rejection(connection.baseBackup(OPTIONS, new Calls()).done);
    expect(error).toBeInstanceOf(ConnectionError);
  });
});
