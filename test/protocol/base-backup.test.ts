import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProtocolError, UsageError } from '../../src/errors.js';
import { parseLsn } from '../../src/lsn.js';
import {
  archiveName,
  type BaseBackupOptions,
  baseBackupCommand,
  parseBackupPosition,
  parseBackupTablespaces,
} from '../../src/protocol/base-backup.js';
import type { QueryResult } from '../../src/protocol/replication.js';

const PLAIN: BaseBackupOptions = { label: 'x', checkpoint: 'fast' };
const FULL: BaseBackupOptions = {
  label: "it's \\ ü",
  checkpoint: 'fast',
  progress: true,
  wal: true,
  noWait: true,
  maxRate: 32,
  tablespaceMap: true,
  verifyChecksums: false,
  manifest: 'force-encode',
  manifestChecksums: 'SHA256',
};

describe('the command', () => {
  it('has keywords for PostgreSQL 14', () => {
    expect(baseBackupCommand(PLAIN, 140023)).toBe("BASE_BACKUP LABEL 'x' FAST");
    expect(baseBackupCommand({ label: '', checkpoint: 'spread' }, 140000)).toBe(
      "BASE_BACKUP LABEL ''",
    );
    expect(baseBackupCommand(FULL, 140023)).toBe(
      "BASE_BACKUP LABEL 'it''s \\ ü' PROGRESS FAST WAL NOWAIT MAX_RATE 32 TABLESPACE_MAP" +
        " NOVERIFY_CHECKSUMS MANIFEST 'force-encode' MANIFEST_CHECKSUMS 'SHA256'",
    );
  });

  it.each([150000, 160013, 170010, 180004])('has options in parentheses for %i', (version) => {
    expect(baseBackupCommand(PLAIN, version)).toBe(
      "BASE_BACKUP (LABEL 'x', CHECKPOINT 'fast', TARGET 'client')",
    );
    expect(baseBackupCommand(FULL, version)).toBe(
      "BASE_BACKUP (LABEL 'it''s \\ ü', PROGRESS, CHECKPOINT 'fast', WAL, WAIT 0, MAX_RATE 32," +
        " TABLESPACE_MAP, VERIFY_CHECKSUMS 0, MANIFEST 'force-encode'," +
        " MANIFEST_CHECKSUMS 'SHA256', TARGET 'client')",
    );
    const zstd = { method: 'zstd', level: 3, workers: 2 } as const;
    expect(baseBackupCommand({ ...PLAIN, compression: zstd }, version)).toBe(
      "BASE_BACKUP (LABEL 'x', CHECKPOINT 'fast', TARGET 'client', COMPRESSION 'zstd'," +
        " COMPRESSION_DETAIL 'level=3,workers=2')",
    );
    expect(baseBackupCommand({ ...PLAIN, compression: { method: 'lz4' } }, version)).toMatch(
      /COMPRESSION 'lz4'\)$/,
    );
  });

  it('can ask for an incremental backup from 17 on', () => {
    const incremental = { ...PLAIN, incremental: true };
    expect(baseBackupCommand(incremental, 170000)).toBe(
      "BASE_BACKUP (LABEL 'x', CHECKPOINT 'fast', INCREMENTAL, TARGET 'client')",
    );
    expect(() => baseBackupCommand(incremental, 160013)).toThrow('needs PostgreSQL 17 or newer');
  });

  it('says yes to what is left at its default', () => {
    expect(baseBackupCommand({ ...PLAIN, verifyChecksums: true, wal: false }, 180000)).toBe(
      baseBackupCommand(PLAIN, 180000),
    );
  });

  it.each<[string, object, number]>([
    ['server compression of 14', { compression: { method: 'gzip' } }, 140000],
    ['a server before 14', {}, 130000],
    ['a server that does not say', {}, 0],
    ['sums without a manifest', { manifestChecksums: 'SHA256' }, 180000],
    ['sums of no manifest', { manifest: 'no', manifestChecksums: 'NONE' }, 180000],
    ['a low rate', { maxRate: 31 }, 180000],
    ['a high rate', { maxRate: 1048577 }, 180000],
    ['a label of two lines', { label: 'x\nSTART TIMELINE: 2' }, 180000],
    ['a label with a zero byte', { label: 'x\0' }, 180000],
    ['a long label', { label: 'ü'.repeat(513) }, 180000],
    ['an unknown checkpoint', { checkpoint: 'slow' }, 180000],
    ['an unknown manifest', { manifest: 'maybe' }, 180000],
    ['an unknown method', { compression: { method: "x'" } }, 180000],
    ['workers of gzip', { compression: { method: 'gzip', workers: 2 } }, 180000],
    ['half a level', { compression: { method: 'zstd', level: 1.5 } }, 180000],
    ['an unknown option', { compresion: true }, 180000],
  ])('refuses %s', (_, wrong, version) => {
    expect(() => baseBackupCommand({ ...PLAIN, ...wrong }, version)).toThrow(UsageError);
  });

  it('keeps any label within its quotes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (label) => {
        let sql: string;
        try {
          sql = baseBackupCommand({ label, checkpoint: 'fast' }, 180000);
        } catch (e) {
          return e instanceof UsageError && /[\0\r\n]/.test(label);
        }
        const quoted = /^BASE_BACKUP \(LABEL '((?:[^']|'')*)', CHECKPOINT/.exec(sql)?.[1];
        return quoted?.replaceAll("''", "'") === label;
      }),
    );
  });
});

function result(columns: number, ...rows: (string | null)[][]): QueryResult {
  return {
    fields: Array.from({ length: columns }, (_, i) => ({ name: `c${i}`, typeOid: 25 })),
    rows: rows.map((row) => row.map((value) => (value === null ? null : Buffer.from(value)))),
    commandTag: 'SELECT',
  };
}

describe('a position', () => {
  it('is an LSN and a timeline', () => {
    expect(parseBackupPosition(result(2, ['A/2000028', '4294967295']), 'start')).toEqual({
      lsn: parseLsn('A/2000028'),
      timeline: 0xffff_ffff,
    });
  });

  it.each([
    [result(2)],
    [result(2, ['0/1', '1'], ['0/1', '1'])],
    [result(1, ['0/1'])],
    [result(3, ['0/1', '1', '1'])],
    [result(2, [null, '1'])],
    [result(2, ['0/1', null])],
    [result(2, ['0/1', '0'])],
    [result(2, ['0/1', '4294967296'])],
    [result(2, ['0/1', '-1'])],
    [result(2, ['0-1', '1'])],
  ])('is refused otherwise: %#', (wrong) => {
    expect(() => parseBackupPosition(wrong, 'start')).toThrow(ProtocolError);
  });
});

describe('the list of tablespaces', () => {
  it('has bytes, and the data directory without a name', () => {
    const rows = parseBackupTablespaces(
      result(3, ['16388', '/srv/ä', '7'], ['4294967295', 'pg_tblspc/1', null], [null, null, '0']),
    );
    expect(rows).toEqual([
      { oid: 16388, location: Buffer.from('/srv/ä').toString('latin1'), size: 7168 },
      { oid: 4294967295, location: 'pg_tblspc/1', size: undefined },
      { oid: undefined, location: undefined, size: 0 },
    ]);
    expect(rows.map(archiveName)).toEqual(['16388.tar', '4294967295.tar', 'base.tar']);
  });

  it('tells the two directories of PolarDB apart', () => {
    const rows = parseBackupTablespaces(
      result(4, ['16388', '/t', '1', null], [null, null, '1', null], [null, null, '9', '1']),
    );
    expect(rows.map(({ polar }) => polar)).toEqual(['local', 'local', 'shared']);
    expect(rows.map(archiveName)).toEqual(['16388.tar', 'base.tar', 'data.tar']);
    const local = parseBackupTablespaces(result(4, [null, null, null, null]));
    expect(local).toEqual([
      { oid: undefined, location: undefined, size: undefined, polar: 'local' },
    ]);
  });

  it.each([
    ['two data directories', result(3, [null, null, '1'], [null, null, '1'])],
    ['two shared ones', result(4, [null, null, '1', '1'], [null, null, '1', '1'])],
    ['the shared one alone', result(4, [null, null, '1', '1'])],
    ['none', result(3)],
    ['no data directory', result(3, ['1', '/x', '1'])],
    ['one tablespace twice', result(3, ['1', '/x', '1'], ['1', '/y', '1'], [null, null, '1'])],
    ['an OID without a location', result(3, ['1', null, '1'], [null, null, '1'])],
    ['a location without an OID', result(3, [null, '/x', '1'], [null, null, '1'])],
    ['an OID of letters', result(3, ['../x', '/x', '1'], [null, null, '1'])],
    ['an OID of 0', result(3, ['0', '/x', '1'], [null, null, '1'])],
    ['a large OID', result(3, ['4294967296', '/x', '1'], [null, null, '1'])],
    ['a negative size', result(3, [null, null, '-1'])],
    ['a huge size', result(3, [null, null, '9999999999999999'])],
    ['two columns', result(2, [null, null])],
    ['five columns', result(5, [null, null, null, null, null])],
    ['a short row', result(3, [null, null])],
  ])('is refused with %s', (_, wrong) => {
    expect(() => parseBackupTablespaces(wrong)).toThrow(ProtocolError);
  });
});
