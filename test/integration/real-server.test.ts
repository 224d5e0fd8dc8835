import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect } from '../../src/connection/connect.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import type { ConnectionSettings } from '../../src/connection/conninfo/settings.js';
import type { WalStream } from '../../src/connection/wal-stream.js';
import { AuthenticationError, ConnectionError, ServerError, TlsError } from '../../src/errors.js';
import { formatLsn, parseLsn } from '../../src/lsn.js';
import { Recorder, rejection, settingsFor } from '../connection/fixtures.js';
import { randomNumbers } from '../support/archives.js';
import { CertificateAuthority } from '../support/certificates.js';
import { PASSWORD, PostgresServer } from '../support/postgres.js';
import { scratchDir } from '../support/scratch.js';

let server: PostgresServer;
const open = (more: Partial<ConnectionSettings> = {}, host = 'localhost') =>
  connect(settingsFor(host, server.port, { password: PASSWORD, ...more }));

beforeAll(async () => {
  server = await PostgresServer.create({
    major: 18,
    tls: true,
    auth: 'scram-sha-256',
    hba: [
      'host all md5user 127.0.0.1/32 md5',
      'host replication md5user 127.0.0.1/32 md5',
      'host replication clearuser 127.0.0.1/32 password',
      'host replication trusted 127.0.0.1/32 trust',
      'hostnossl replication tlsonly 127.0.0.1/32 reject',
      'hostssl replication plainonly 127.0.0.1/32 reject',
      'hostssl replication certuser 127.0.0.1/32 cert',
      'local replication all scram-sha-256',
      'host all postgres 127.0.0.1/32 scram-sha-256',
      'host replication all 127.0.0.1/32 scram-sha-256',
    ],
  });
  await server.sql("SET password_encryption = 'md5'; CREATE USER md5user REPLICATION PASSWORD 'm'");
  for (const user of ['clearuser', 'trusted', 'tlsonly', 'plainonly', 'certuser']) {
    await server.sql(`CREATE USER ${user} REPLICATION PASSWORD '${PASSWORD}'`);
  }
  await server.sql(`CREATE USER norights PASSWORD '${PASSWORD}'`);
  await server.sql(`CREATE USER "unicode" REPLICATION PASSWORD E'\\u2168 p\\u00AD\\u00E4ss'`);
}, 120_000);
afterAll(() => server?.destroy());

describe('authentication', () => {
  test('SCRAM without TLS', async () => {
    const connection = await open();
    expect(connection.tls).toBe(false);
    expect(Math.trunc(connection.serverVersion / 10000)).toBe(18);
    expect(connection.parameters.get('in_hot_standby')).toBe('off');
    await connection.close();
    expect(connection.closed).toBe(true);
  });

  test('SCRAM with a password that SASLprep changes', async () => {
    const connection = await open({ user: 'unicode', password: 'IX p\u00E4ss' });
    await connection.close();
  });

  test('SCRAM-PLUS binds to the TLS channel', async () => {
    const connection = await open({ sslMode: 'require', channelBinding: 'require' });
    expect(connection.tls).toBe(true);
    await connection.close();
  });

  test('SCRAM over TLS without channel binding', async () => {
    const connection = await open({ sslMode: 'require', channelBinding: 'disable' });
    await connection.close();
  });

  test('md5, cleartext and trust', async () => {
    for (const user of ['md5user', 'clearuser', 'trusted']) {
      const connection = await open({ user, ...(user === 'md5user' ? { password: 'm' } : {}) });
      await connection.close();
    }
  });

  test('a wrong password is refused, once for each channel that was tried', async () => {
    const error = await rejection(open({ password: 'wrong' }));
    expect(error).toBeInstanceOf(AuthenticationError);
    expect(error.message).toBe(
      `connection to server at "localhost" (127.0.0.1), port ${server.port} failed: FATAL:  password authentication failed for user "postgres"`,
    );
    const over = await rejection(open({ password: 'wrong', sslMode: 'prefer' }));
    expect(over).toBeInstanceOf(AuthenticationError);
  });

  test('a missing password is told apart', async () => {
    for (const user of ['postgres', 'md5user', 'clearuser']) {
      const error = await rejection<AuthenticationError>(open({ password: '', user }));
      expect(error.needsPassword).toBe(true);
      expect(error.message).toMatch(/failed: fe_sendauth: no password supplied$/);
    }
  });

  test('SCRAM with passwords of every kind of character, as the server prepares them', async () => {
    // Scripts old and new (Unicode 3.2 ended in 2002), both directions, joiners, spaces, signs.
    const ranges: [number, number][] = [
      ...([
        [0x20, 0x7e],
        [0x80, 0x17f],
        [0x300, 0x36f],
        [0x370, 0x52f],
        [0x530, 0x77f],
      ] as const),
      ...([
        [0x7c0, 0x8ff],
        [0x1100, 0x11ff],
        [0x1ab0, 0x1cff],
        [0x1e00, 0x1eff],
      ] as const),
      ...([
        [0x2000, 0x206f],
        [0x2070, 0x2bff],
        [0x2c00, 0x2e7f],
        [0x2f00, 0x30ff],
      ] as const),
      ...([
        [0xa640, 0xabff],
        [0xac00, 0xac40],
        [0xe000, 0xe010],
        [0xf900, 0xfaff],
        [0xfe00, 0xfe6f],
        [0xff00, 0xffff],
      ] as const),
      ...([
        [0x10000, 0x100ff],
        [0x10800, 0x108ff],
        [0x1d100, 0x1d7ff],
        [0x1f300, 0x1f9ff],
      ] as const),
      ...([
        [0x20000, 0x20010],
        [0x2f800, 0x2f81f],
        [0xe0001, 0xe007f],
      ] as const),
    ].map(([from, to]) => [from, to]);
    const random = randomNumbers(7);
    const character = () => {
      const [from, to] = ranges[Math.floor(random() * ranges.length)] as [number, number];
      return String.fromCodePoint(from + Math.floor(random() * (to - from + 1)));
    };
    const passwords = Array.from({ length: 250 }, (_, i) =>
      // Every other is of one or two characters: a single prohibited one decides about all.
      Array.from({ length: 1 + Math.floor(random() * (i % 2 ? 2 : 6)) }, character).join(''),
    );
    const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`;
    await server.sql(
      passwords.map((p, i) => `CREATE USER u${i} REPLICATION PASSWORD ${quoted(p)}`).join(';'),
    );
    const refused: string[] = [];
    for (const [i, password] of passwords.entries()) {
      const connection = await open({ user: `u${i}`, password }).catch(() => undefined);
      if (connection) await connection.close();
      else
        refused.push(
          password.replace(/[^\x21-\x7e]/gu, (c) => `<${c.codePointAt(0)?.toString(16)}>`),
        );
    }
    expect(refused).toEqual([]);
  });

  test('the password file is asked with the target', async () => {
    const { password: _, ...settings } = settingsFor('127.0.0.1', server.port);
    const connection = await connect({
      ...settings,
      passwordFromFile: (t) => (t.port === server.port ? PASSWORD : undefined),
    });
    await connection.close();
  });

  test('require_auth and channel_binding refuse weaker requests', async () => {
    const cases: [Partial<ConnectionSettings>, RegExp][] = [
      [
        { user: 'clearuser', requireAuth: { methods: ['scram-sha-256'], negated: false } },
        /requirement "scram-sha-256" failed: server requested a cleartext password/,
      ],
      [
        { user: 'md5user', requireAuth: { methods: ['md5', 'password'], negated: true } },
        /requirement "!md5,!password" failed: server requested a hashed password/,
      ],
      [
        { user: 'trusted', requireAuth: { methods: ['none'], negated: true } },
        /server did not complete authentication/,
      ],
      [{ channelBinding: 'require' }, /channel binding required, but SSL not in use/],
      [{ user: 'clearuser', channelBinding: 'require' }, /channel binding required but not supp/],
      [{ user: 'trusted', channelBinding: 'require' }, /without channel binding/],
    ];
    for (const [more, message] of cases) {
      const error = await rejection(open(more));
      expect(error).toBeInstanceOf(AuthenticationError);
      expect(error.message).toMatch(message);
    }
    const scram = { methods: ['scram-sha-256'], negated: false } as const;
    await (await open({ requireAuth: scram })).close();
  });

  test('no replication right', async () => {
    const error = await rejection<ServerError>(open({ user: 'norights' }));
    expect(error).toBeInstanceOf(ServerError);
    expect(error.sqlstate).toBe('42501');
    expect(error.message).toContain('permission denied to start WAL sender');
  });
});

describe('TLS', () => {
  test('verify-full by name and by address', async () => {
    const sslRootCert = server.ca?.cert as string;
    for (const host of ['localhost', '127.0.0.1']) {
      const connection = await open({ sslMode: 'verify-full', sslRootCert }, host);
      expect(connection.tls).toBe(true);
      await connection.close();
    }
  });

  test('verify-full refuses another name, verify-ca does not', async () => {
    const more = {
      targets: [{ host: 'elsewhere.example', hostaddr: '127.0.0.1', port: server.port }],
      sslRootCert: server.ca?.cert as string,
    };
    const error = await rejection(open({ ...more, sslMode: 'verify-full' }));
    expect(error).toBeInstanceOf(TlsError);
    expect(error.message).toContain('does not match host name "elsewhere.example"');
    await (await open({ ...more, sslMode: 'verify-ca' })).close();
  });

  test('another authority is refused as soon as a root certificate is given', async () => {
    const dir = scratchDir('ca');
    const other = await CertificateAuthority.create(dir);
    for (const sslMode of ['verify-full', 'verify-ca', 'require'] as const) {
      const error = await rejection(open({ sslMode, sslRootCert: other.cert }));
      expect(error).toBeInstanceOf(TlsError);
      expect(error.message).toMatch(/SSL error: certificate verify failed$/);
    }
    const missing = await rejection(open({ sslMode: 'verify-ca' }));
    expect(missing.message).toContain('root certificate file "/nonexistent/root.crt" does not');
  });

  test('direct negotiation needs no SSLRequest', async () => {
    const connection = await open({ sslMode: 'require', sslNegotiation: 'direct' });
    expect(connection.tls).toBe(true);
    await connection.close();
  });

  test('prefer and allow end on the channel that the server accepts', async () => {
    const tls = async (more: Partial<ConnectionSettings>) => {
      const connection = await open(more);
      await connection.close();
      return connection.tls;
    };
    expect(await tls({ sslMode: 'prefer' })).toBe(true);
    expect(await tls({ sslMode: 'prefer', user: 'plainonly' })).toBe(false);
    expect(await tls({ sslMode: 'allow' })).toBe(false);
    expect(await tls({ sslMode: 'allow', user: 'tlsonly' })).toBe(true);
  });

  test('client certificates', async () => {
    const pair = await server.ca?.issue('certuser');
    const more = { user: 'certuser', sslMode: 'require' } as const;
    const cert = { sslCert: pair?.cert as string, sslKey: pair?.key as string };
    await (await open({ ...more, ...cert, sslCertMode: 'require' })).close();
    const without = await rejection(open({ ...more, ...cert, sslCertMode: 'disable' }));
    expect(without).toBeInstanceOf(AuthenticationError);
  });

  test('protocol versions outside the range of the server are refused', async () => {
    for (const [sslMinVersion, sslMaxVersion] of [
      ['TLSv1.2', 'TLSv1.2'],
      ['TLSv1.3', 'TLSv1.3'],
    ] as const) {
      await (await open({ sslMode: 'require', sslMinVersion, sslMaxVersion })).close();
    }
    await server.configure({ ssl_max_protocol_version: 'TLSv1.2' });
    try {
      const range = { sslMode: 'require', sslMinVersion: 'TLSv1.3' } as const;
      expect(await rejection(open(range))).toBeInstanceOf(TlsError);
      await (await open({ sslMode: 'require' })).close();
    } finally {
      await server.configure({ ssl_max_protocol_version: undefined });
    }
  });
});

describe('addresses', () => {
  test('a unix socket, also where sslmode asks for TLS', async () => {
    const connection = await open({ sslMode: 'require' }, server.socketDir);
    expect(connection.tls).toBe(false);
    await connection.close();
  });

  test('a missing socket and a closed port, in the words of libpq', async () => {
    const socket = await rejection<ConnectionError>(connect(settingsFor('/nonexistent', 5432)));
    expect(socket.message).toBe(
      'connection to server on socket "/nonexistent/.s.PGSQL.5432" failed: No such file or directory',
    );
    expect(socket.hint).toContain('running locally');
    const port = await rejection<ConnectionError>(connect(settingsFor('127.0.0.1', 1)));
    expect(port).toBeInstanceOf(ConnectionError);
    expect(port.message).toBe(
      'connection to server at "127.0.0.1", port 1 failed: Connection refused',
    );
    expect(port.hint).toContain('accepting TCP/IP connections');
  });

  test('the next target is tried, and the session must be as wanted', async () => {
    const targets = [
      { host: '127.0.0.1', port: 1 },
      { host: '127.0.0.1', port: server.port },
    ];
    for (const targetSessionAttrs of ['any', 'read-write', 'primary', 'prefer-standby'] as const) {
      const connection = await open({ targets, targetSessionAttrs });
      expect(connection.target).toEqual(targets[1]);
      await connection.close();
    }
    const error = await rejection(open({ targets, targetSessionAttrs: 'standby' }));
    expect(error).toBeInstanceOf(ConnectionError);
    expect(error.message).toMatch(/Connection refused\n.*server is not in hot standby mode$/);
  });
});

describe('commands', () => {
  let connection: ReplicationConnection;
  beforeAll(async () => {
    connection = await open();
  });
  afterAll(() => connection.close());

  test('IDENTIFY_SYSTEM and SHOW', async () => {
    const system = await connection.identifySystem();
    expect(String(system.systemId)).toBe(await server.systemIdentifier());
    expect(system).toMatchObject({ timeline: 1, database: null });
    expect(system.flushLsn).toBeGreaterThan(0n);
    expect(await connection.show('wal_segment_size')).toBe('1MB');
    await expect(connection.show('x; DROP')).rejects.toThrow('invalid parameter name');
  });

  test('slots', async () => {
    expect(await connection.readReplicationSlot('none')).toBeUndefined();
    await connection.createPhysicalSlot('plain');
    expect(await connection.readReplicationSlot('plain')).toEqual({
      restartLsn: undefined,
      restartTimeline: undefined,
    });
    await connection.createPhysicalSlot('reserved', { reserveWal: true });
    const slot = await connection.readReplicationSlot('reserved');
    expect(slot?.restartLsn).toBeGreaterThan(0n);
    expect(slot?.restartTimeline).toBe(1);
    const twice = await rejection<ServerError>(connection.createPhysicalSlot('plain'));
    expect(twice.sqlstate).toBe('42710');
    expect(twice.message).toBe(
      'could not send replication command "CREATE_REPLICATION_SLOT "plain" PHYSICAL": ERROR:  replication slot "plain" already exists',
    );
    await connection.dropSlot('plain');
    await connection.dropSlot('reserved');
    await connection.createPhysicalSlot('short', { reserveWal: true, temporary: true });
  });

  test('an error leaves the connection usable, a second command at once is refused', async () => {
    await expect(connection.timelineHistory(77)).rejects.toBeInstanceOf(ServerError);
    const first = connection.show('port');
    await expect(connection.show('port')).rejects.toThrow('another command is in progress');
    expect(await first).toBe(String(server.port));
  });

  test('SQL in a database session', async () => {
    const sql = await connect(
      settingsFor('localhost', server.port, { password: PASSWORD, database: 'postgres' }),
      { replication: 'off' },
    );
    const result = await sql.query("SELECT 1 AS one, NULL AS none, '\u00E4' AS text");
    expect(result.fields.map((f) => f.name)).toEqual(['one', 'none', 'text']);
    expect(result.rows).toEqual([[Buffer.from('1'), null, Buffer.from('\u00E4')]]);
    expect(result.commandTag).toBe('SELECT 1');
    const aborted = new AbortController();
    const sleeping = sql.query('SELECT pg_sleep(100)', aborted.signal);
    aborted.abort();
    await expect(sleeping).rejects.toMatchObject({ name: 'AbortError' });
    expect(sql.closed).toBe(true);
  });
});

describe('streaming', () => {
  const channels: [string, Partial<ConnectionSettings>, boolean][] = [
    ['TCP', {}, false],
    ['TLS', { sslMode: 'require' }, false],
    ['a unix socket', {}, true],
  ];
  test.each(channels)('over %s', async (_name, more, unix) => {
    const connection = await open(more, unix ? server.socketDir : 'localhost');
    const { timeline } = await connection.identifySystem();
    const startLsn = await server.currentLsn();
    const recorder = new Recorder();
    const stream = (await connection.startReplication(
      { startLsn, timeline },
      recorder,
    )) as WalStream;
    await server.sql("SELECT pg_logical_emit_message(true, 'walkeep', repeat('x', 300000))");
    const end = await server.currentLsn();
    await recorder.until(() => recorder.length >= end - startLsn);
    expect(recorder.startLsn).toBe(startLsn);
    expect(recorder.bytes.includes('x'.repeat(2000))).toBe(true);
    stream.sendStatus({ write: end, flush: end, apply: 0n, replyRequested: true });
    const seen = recorder.keepalives;
    await recorder.until(() => recorder.keepalives > seen);
    const [row] = await server.sql('SELECT flush_lsn::text AS flush FROM pg_stat_replication');
    expect(row?.flush).toBe(formatLsn(end));

    stream.pause();
    await server.sql("SELECT pg_logical_emit_message(true, 'walkeep', repeat('y', 3000000))");
    const paused = recorder.length;
    expect(paused).toBeLessThan(3_000_000);
    stream.resume();
    const later = await server.currentLsn();
    await recorder.until(() => recorder.length >= later - startLsn);

    expect(await stream.finish()).toEqual({ kind: 'shutdown' });
    expect(recorder.serverDone).toBe(false);
    expect(recorder.failure).toBeUndefined();
    // The connection is free for the next command.
    expect((await connection.identifySystem()).timeline).toBe(1);
    await connection.close();
  });

  test('removed WAL is its own error, and the connection stays', async () => {
    const connection = await open();
    const recorder = new Recorder();
    const started = connection.startReplication(
      { startLsn: parseLsn('0/100000'), timeline: 1 },
      recorder,
    );
    // PostgreSQL notices only after CopyBothResponse.
    await started;
    await recorder.until(() => recorder.failure !== undefined);
    expect(recorder.failure).toMatchObject({ code: 'WK_WAL_REMOVED', retryable: false });
    expect(recorder.failures).toBe(1);
    await connection.close();
  });

  test('a position ahead of the server, and an unknown slot', async () => {
    const connection = await open();
    const recorder = new Recorder();
    const startLsn = parseLsn('70/0');
    await connection.startReplication({ startLsn, timeline: 1 }, recorder);
    await recorder.until(() => recorder.failure !== undefined);
    expect(recorder.failure).toBeInstanceOf(ServerError);
    expect(recorder.failure?.message).toMatch(
      /^unexpected termination.*ERROR: {2}requested starting/,
    );
    expect((await connection.identifySystem()).timeline).toBe(1);
    const error = await rejection<ServerError>(
      connection.startReplication({ startLsn, timeline: 1, slot: 'none' }, new Recorder()),
    );
    expect(error.sqlstate).toBe('42704');
    expect((await connection.identifySystem()).timeline).toBe(1);
    await connection.close();
  });

  test('a server that shuts down ends the stream, one that crashes breaks it', async () => {
    const own = await PostgresServer.create({ major: 18 });
    try {
      const stream = async () => {
        const connection = await connect(settingsFor('127.0.0.1', own.port));
        const recorder = new Recorder();
        const startLsn = await own.currentLsn();
        const wal = (await connection.startReplication(
          { startLsn, timeline: 1 },
          recorder,
        )) as WalStream;
        return { connection, recorder, wal, startLsn };
      };
      const first = await stream();
      const { recorder, wal, startLsn } = first;
      const report = (): void => {
        const flush = startLsn + BigInt(recorder.length);
        wal.sendStatus({ write: flush, flush, apply: 0n });
      };
      const onReadEnd = recorder.onReadEnd.bind(recorder);
      recorder.onReadEnd = () => {
        report();
        onReadEnd();
      };
      // A walsender that does not stream yet is terminated instead of being waited for.
      const now = startLsn + BigInt(recorder.length);
      wal.sendStatus({ write: now, flush: now, apply: 0n, replyRequested: true });
      await recorder.until(() => recorder.keepalives > 0);
      const stopped = own.stop('fast');
      await recorder.until(() => recorder.serverDone || recorder.failure !== undefined);
      expect(recorder.failure).toBeUndefined();
      expect(await wal.finish()).toEqual({ kind: 'shutdown' });
      await first.connection.close();
      await stopped;

      await own.start();
      const second = await stream();
      await own.kill9();
      await second.recorder.until(() => second.recorder.failure !== undefined);
      expect(second.recorder.failure).toBeInstanceOf(ConnectionError);
      expect(second.recorder.failures).toBe(1);
      await expect(second.wal.finish()).rejects.toBe(second.recorder.failure);
    } finally {
      await own.destroy();
    }
  });
});

test('PostgreSQL 14: the older slot syntax, and session attributes of a standby', async () => {
  const primary = await PostgresServer.create({ major: 14 });
  let standby: PostgresServer | undefined;
  try {
    const connection = await connect(
      settingsFor('127.0.0.1', primary.port, {
        sslMode: 'prefer',
        targetSessionAttrs: 'read-write',
      }),
    );
    expect(connection.tls).toBe(false);
    expect(Math.trunc(connection.serverVersion / 10000)).toBe(14);
    await connection.createPhysicalSlot('x', { reserveWal: true, temporary: true });
    const error = await rejection<ServerError>(connection.readReplicationSlot('x'));
    expect(error.sqlstate).toBe('0A000');
    await connection.close();

    standby = await primary.createStandby();
    const { port } = standby;
    for (const targetSessionAttrs of ['standby', 'read-only', 'prefer-standby'] as const) {
      await (await connect(settingsFor('127.0.0.1', port, { targetSessionAttrs }))).close();
    }
    for (const targetSessionAttrs of ['primary', 'read-write'] as const) {
      const refused = rejection(connect(settingsFor('127.0.0.1', port, { targetSessionAttrs })));
      expect(await refused).toBeInstanceOf(ConnectionError);
    }
  } finally {
    await standby?.destroy();
    await primary.destroy();
  }
}, 120_000);
