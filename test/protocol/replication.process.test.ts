import { execFileSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  AuthenticationError,
  ProtocolError,
  ServerError,
  TlsError,
  UsageError,
  WalRemovedError,
} from '../../src/errors.js';
import { parseLsn } from '../../src/lsn.js';
import { serverEndPoint } from '../../src/protocol/channel-binding.js';
import { encodeQuery, encodeStartup } from '../../src/protocol/frontend-message.js';
import * as replication from '../../src/protocol/replication.js';
import { toServerError } from '../../src/protocol/server-error.js';
import {
  encodeStatus,
  postgresClock,
  STATUS_FRAME_LENGTH,
} from '../../src/protocol/status-reply.js';
import { scratchDir } from '../support/scratch.js';

const result = (...rows: (string | null)[][]): replication.QueryResult => ({
  fields: (rows[0] ?? []).map((_, i) => ({ name: `f${i}`, typeOid: 25 })),
  rows: rows.map((row) => row.map((value) => (value === null ? null : Buffer.from(value)))),
  commandTag: 'X',
});

describe('commands', () => {
  test('texts by server version', () => {
    const create = replication.createPhysicalSlotCommand;
    expect(create('a"b', {}, 180000)).toBe('CREATE_REPLICATION_SLOT "a""b" PHYSICAL');
    expect(create('s', { reserveWal: true }, 150000)).toMatch(/ PHYSICAL \(RESERVE_WAL\)$/);
    expect(create('s', { reserveWal: true, temporary: true }, 140011)).toBe(
      'CREATE_REPLICATION_SLOT "s" TEMPORARY PHYSICAL RESERVE_WAL',
    );
    expect(replication.dropSlotCommand('s')).toBe('DROP_REPLICATION_SLOT "s"');
    expect(replication.readReplicationSlotCommand('s', 150000)).toBe('READ_REPLICATION_SLOT "s"');
    expect(() => replication.readReplicationSlotCommand('s', 140000)).toThrow(ServerError);
    const startLsn = parseLsn('A/B000000');
    expect(replication.startReplicationCommand({ startLsn, timeline: 3 })).toBe(
      'START_REPLICATION A/B000000 TIMELINE 3',
    );
    expect(replication.startReplicationCommand({ startLsn, timeline: 3, slot: 's' })).toBe(
      'START_REPLICATION SLOT "s" A/B000000 TIMELINE 3',
    );
    expect(replication.showCommand('wal_segment_size')).toBe('SHOW wal_segment_size');
  });

  test('what cannot be sent is refused', () => {
    expect(() => replication.showCommand('a b')).toThrow(UsageError);
    expect(() => replication.quoteIdentifier('')).toThrow(UsageError);
    expect(() => replication.quoteIdentifier('a\0')).toThrow(UsageError);
    expect(() => replication.timelineHistoryCommand(0)).toThrow(UsageError);
    expect(() => replication.timelineHistoryCommand(1.5)).toThrow(UsageError);
    expect(() => encodeQuery('a\0b')).toThrow(UsageError);
    expect(() => encodeStartup({ user: 'a\0b' })).toThrow(UsageError);
  });

  test('startup message', () => {
    const message = encodeStartup({ user: 'u', database: 'd' });
    expect(message.readUInt32BE(0)).toBe(message.length);
    expect(message.subarray(4).toString('latin1')).toBe('\0\x03\0\0user\0u\0database\0d\0\0');
  });
});

describe('answers', () => {
  test('IDENTIFY_SYSTEM', () => {
    const parse = replication.parseIdentifySystem;
    expect(parse(result(['18446744073709551615', '4294967295', '1/02000028', null]))).toEqual({
      systemId: 2n ** 64n - 1n,
      timeline: 4294967295,
      flushLsn: 0x102000028n,
      database: null,
    });
    expect(parse(result(['7', '1', '0/0', 'db'])).database).toBe('db');
    expect(() => parse(result(['7', '1', '0/0']))).toThrow(
      'could not identify system: got 1 rows and 3 fields, expected 1 rows and 4 or more fields',
    );
    for (const row of [
      ['x', '1', '0/0', null],
      ['18446744073709551616', '1', '0/0', null],
      ['7', '0', '0/0', null],
      ['7', '4294967296', '0/0', null],
      ['7', '1', '0', null],
      ['7', '1', null, null],
    ]) {
      expect(() => parse(result(row))).toThrow(ProtocolError);
    }
    expect(() => parse(result())).toThrow('got 0 rows');
  });

  test('READ_REPLICATION_SLOT', () => {
    const parse = replication.parseReadReplicationSlot;
    expect(parse(result([null, null, null]), 's')).toBeUndefined();
    expect(parse(result(['physical', null, null]), 's')).toEqual({
      restartLsn: undefined,
      restartTimeline: undefined,
    });
    expect(parse(result(['physical', '0/3000000', '2']), 's')).toEqual({
      restartLsn: 0x3000000n,
      restartTimeline: 2,
    });
    expect(() => parse(result(['logical', null, null]), 's')).toThrow('got type "logical"');
    expect(() => parse(result(['physical', 'x', null]), 's')).toThrow(
      'could not parse restart_lsn',
    );
    expect(() => parse(result(['physical', null, null, null]), 's')).toThrow('4 fields');
  });

  test('slots and SHOW', () => {
    replication.parseCreateSlot(result(['s', '0/0', null, null]), 's');
    expect(() => replication.parseCreateSlot(result(['s']), 's')).toThrow(
      'could not create replication slot "s": got 1 rows and 1 fields, expected 1 rows and 4 fields',
    );
    replication.parseDropSlot(result(), 's');
    expect(() => replication.parseDropSlot(result(['x']), 's')).toThrow('could not drop');
    expect(replication.parseShow(result(['16MB']), 'x')).toBe('16MB');
    expect(() => replication.parseShow(result(), 'x')).toThrow('could not fetch parameter "x"');
  });

  test('TIMELINE_HISTORY keeps the bytes and trusts no name', () => {
    const bytes = Buffer.from([0x31, 0xff, 0x00, 0x0a]);
    const answer = result(['0000000A.history', '']);
    (answer.rows[0] as Buffer[])[1] = bytes;
    const parse = replication.parseTimelineHistory;
    expect(parse(answer, 10)).toEqual({ fileName: '0000000A.history', content: bytes });
    expect(() => parse(answer, 11)).toThrow('unexpected history file name for timeline 11');
    expect(() => parse(result(['../../etc/x', '']), 10)).toThrow(ProtocolError);
    expect(() => parse(result(['0000000A.history']), 10)).toThrow('unexpected response');
  });

  test('end of a stream, in both notations of an LSN', () => {
    const parse = replication.parseStreamEnd;
    const end = { kind: 'timeline', timeline: 2, startLsn: 0x3000000n };
    expect(parse(result(['2', '0/3000000']))).toEqual(end);
    expect(parse(result(['2', '0/03000000']))).toEqual(end);
    expect(parse(result())).toEqual({ kind: 'shutdown' });
    expect(() => parse(result(['2']))).toThrow('unexpected result set after end-of-timeline');
    expect(() => parse(result(['2', 'x']))).toThrow("next timeline's starting point");
  });
});

test('status reply, byte by byte', () => {
  const frame = Buffer.alloc(STATUS_FRAME_LENGTH);
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const clock = postgresClock(Date.UTC(2000, 0, 1, 0, 0, 1));
  expect(clock).toBe(1_000_000);
  encodeStatus(
    view,
    { write: 0xffffffff_00000001n, flush: 2n, apply: 0n, replyRequested: true },
    clock,
  );
  expect(frame.toString('hex')).toBe(
    [
      '64', // CopyData
      '00000026',
      '72', // Standby status update
      'ffffffff00000001',
      '0000000000000002',
      '0000000000000000',
      '00000000000f4240',
      '01',
    ].join(''),
  );
});

describe('server errors', () => {
  const notice = (code: string, message: string, detail?: string) => ({
    severity: 'ERROR',
    code,
    message,
    detail,
    hint: 'do it',
  });

  test('fields are kept', () => {
    const error = toServerError(notice('42704', 'no slot', 'more'), 'context: ') as ServerError;
    expect(error).toBeInstanceOf(ServerError);
    expect(error.message).toBe('context: ERROR:  no slot');
    expect(error).toMatchObject({
      sqlstate: '42704',
      severity: 'ERROR',
      detail: 'more',
      hint: 'do it',
      retryable: false,
    });
  });

  test('a slot that is to be streamed from and is not there', () => {
    const missing = {
      ...notice('42704', 'replication slot "s" does not exist'),
      hint: undefined,
    };
    const streaming = 'could not send replication command "START_REPLICATION": ';
    expect(toServerError(missing, streaming).hint).toContain('walkeep slot create');
    const dropping = 'could not send replication command "DROP_REPLICATION_SLOT s": ';
    expect(toServerError(missing, dropping).hint).toBeUndefined();
  });

  test.each([
    ['58P01', 'requested WAL segment 000000010000000000000001 has already been removed', undefined],
    ['58P01', 'das Segment 000000010000000000000001 wurde entfernt', undefined],
    ['55000', 'can no longer access replication slot "s"', 'This replication slot has been x'],
    ['55000', 'slot is gone', 'because of "wal_removed".'],
    ['55000', 'cannot read from slot', 'This slot has been invalidated because it exceeded it.'],
  ])('removed WAL: %s %s', (code, message, detail) => {
    const error = toServerError(notice(code, message, detail));
    expect(error).toBeInstanceOf(WalRemovedError);
    expect(error.retryable).toBe(false);
  });

  test.each([
    ['08006', true],
    ['40001', true],
    ['53100', true],
    ['53300', true],
    ['55006', true],
    ['57P01', true],
    ['57P02', true],
    ['57P03', true],
    ['58030', true],
    ['0A000', false],
    ['22023', false],
    ['3D000', false],
    ['42501', false],
    ['42704', false],
    ['55000', false],
    ['57P04', false],
    ['58P01', false],
    ['XX000', false],
    [undefined, false],
  ])('%s passes by itself: %s', (code, passes) => {
    const error = toServerError({ ...notice('', 'x'), code } as never);
    expect(error.retryable).toBe(passes);
  });

  test('others are not removed WAL', () => {
    for (const [code, message] of [
      ['55000', 'recovery is in progress'],
      ['58P01', 'could not open file "pg_hba.conf"'],
      ['55006', 'replication slot "s" is active for PID 1'],
    ] as const) {
      expect(toServerError(notice(code, message))).not.toBeInstanceOf(WalRemovedError);
    }
    expect(toServerError(notice('28P01', 'x'))).toBeInstanceOf(AuthenticationError);
    expect(toServerError(notice('28000', 'x'))).toBeInstanceOf(AuthenticationError);
  });
});

describe('tls-server-end-point', () => {
  const dir = scratchDir('cert');
  const certificate = (name: string, ...options: string[]) => {
    const file = join(dir, `${name}.pem`);
    const args = [
      'req',
      '-x509',
      '-nodes',
      '-subj',
      '/CN=x',
      '-out',
      file,
      '-keyout',
      `${file}.key`,
    ];
    execFileSync('openssl', [...args, ...options], { stdio: 'ignore' });
    return new X509Certificate(readFileSync(file)).raw;
  };
  const rsa = ['-newkey', 'rsa:1024'];
  const pss = (hash: string) => [...rsa, `-${hash}`, '-sigopt', 'rsa_padding_mode:pss'];
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

  test.each([
    ['rsa-sha1', [...rsa, '-sha1'], 'sha256'],
    ['rsa-sha224', [...rsa, '-sha224'], 'sha224'],
    ['rsa-sha256', [...rsa, '-sha256'], 'sha256'],
    ['rsa-sha384', [...rsa, '-sha384'], 'sha384'],
    ['rsa-sha512', [...rsa, '-sha512'], 'sha512'],
    ['pss-sha1', pss('sha1'), 'sha256'],
    ['pss-sha256', pss('sha256'), 'sha256'],
    ['pss-sha384', pss('sha384'), 'sha384'],
    ['ec-sha256', [...ec, '-sha256'], 'sha256'],
    ['ec-sha512', [...ec, '-sha512'], 'sha512'],
  ])('%s', (name, options, hash) => {
    const der = certificate(name, ...options);
    expect(serverEndPoint(der)).toEqual(createHash(hash).update(der).digest());
  });

  test('Ed25519 names no hash; damaged certificates are typed errors', () => {
    expect(() => serverEndPoint(certificate('ed', '-newkey', 'ed25519'))).toThrow(TlsError);
    const der = certificate('damaged', ...ec);
    for (let length = 0; length < der.length; length++) {
      try {
        serverEndPoint(der.subarray(0, length));
      } catch (error) {
        expect(error).toBeInstanceOf(TlsError);
      }
    }
  });
});
