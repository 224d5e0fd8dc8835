import { describe, expect, test } from 'vitest';
import {
  type BackupRecord,
  backupId,
  backupRecordBytes,
  beganAt,
  isBackupId,
  parseBackupRecord,
} from '../../src/base/backup-record.js';
import { type BaseIndex, baseIndexLines, parseBaseIndex } from '../../src/base/base-index.js';
import { CorruptObjectError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';

const RECORD: BackupRecord = {
  id: '20261127T201500F-3fa91c',
  systemId: 7_300_000_000_000_000_001n,
  serverVersion: 150_018,
  segmentSize: 16_777_216,
  blockSize: 8192,
  from: 'standby',
  label: 'nächtlich "1"',
  start: { lsn: 0x1_2000028n as Lsn, timeline: 2, time: '2026-11-27T20:15:00.000Z' },
  end: { lsn: 0x1_2000100n as Lsn, timeline: 2, time: '2026-11-27T20:16:00.000Z' },
  walRanges: [
    { timeline: 2, start: 0x1_2000050n as Lsn, end: 0x1_2000100n as Lsn },
    { timeline: 1, start: 0x1_2000028n as Lsn, end: 0x1_2000050n as Lsn },
  ],
  wal: 'archive',
  codec: 'gzip',
  encrypted: false,
  pageChecksums: { enabled: true, checked: false },
  tablespaces: [{ oid: 16388, location: '/srv/eins', inPlace: false }],
  tars: [{ name: 'base.tar', size: 4096, volumes: ['base.tar.gz.0000'] }],
  objects: [{ name: 'base.tar.gz.0000', size: 300, sha256: 'ab'.repeat(32) }],
  outside: [{ path: '/etc/x.conf', kind: 'settings', object: 'outside/000-x.conf' }],
  warnings: ['a warning'],
  size: 4096,
  walkeep: '1.0.0',
};

describe('a record of a backup', () => {
  const bytes = backupRecordBytes(RECORD);

  test('is read as it was written', () => {
    expect(parseBackupRecord(bytes)).toEqual(RECORD);
    expect(bytes.toString()).toContain(`"lsn": "0/12000028"`);
  });

  test('is refused wherever it is cut', () => {
    for (let end = 0; end < bytes.length; end++) {
      expect(() => parseBackupRecord(bytes.subarray(0, end))).toThrow(CorruptObjectError);
    }
  });

  test('is refused whatever bit of it is flipped', () => {
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const other = Buffer.from(bytes);
      other[bit >> 3]! ^= 1 << (bit & 7);
      expect(() => parseBackupRecord(other)).toThrow(CorruptObjectError);
    }
  });

  test('is refused with anything behind it, and of another format', () => {
    expect(() => parseBackupRecord(Buffer.concat([bytes, Buffer.from('\n')]))).toThrow(
      CorruptObjectError,
    );
    expect(() => parseBackupRecord(Buffer.concat([bytes, bytes]))).toThrow(CorruptObjectError);
    const newer = backupRecordBytes({ ...RECORD, format: 2 } as never);
    expect(() => parseBackupRecord(newer)).toThrow(/its format 2 is not known here/);
  });
});

test('an ID says when a backup began', () => {
  const id = backupId(new Date('2026-11-27T20:15:00.999Z'), 'F', '3fa91c');
  expect(id).toBe(RECORD.id);
  expect(isBackupId(id)).toBe(true);
  expect(beganAt(id)).toEqual(new Date('2026-11-27T20:15:00Z'));
  for (const wrong of ['', `${id}/`, `${id} `, id.toLowerCase(), id.replace('F', 'X')]) {
    expect(isBackupId(wrong)).toBe(false);
  }
});

describe('an index of a backup', () => {
  const index: BaseIndex = {
    tars: [
      {
        name: '16388.tar',
        frames: [
          { offset: 0, length: 512, volume: 0, at: 0, stored: 40, sha256: 'ab'.repeat(32) },
          { offset: 512, length: 700, volume: 1, at: 0, stored: 50, sha256: 'cd'.repeat(32) },
        ],
        members: [
          { name: 'a/b', type: 'file', size: 5, mode: 0o600, mtime: 1, link: '', offset: 0 },
          { name: 'c', type: 'directory', size: 0, mode: 0o700, mtime: 1, link: '', offset: 1024 },
        ],
      },
      {
        name: 'base.tar',
        frames: [],
        members: [
          { name: 'l', type: 'symlink', size: 0, mode: 0o777, mtime: 1, link: '/x', offset: 0 },
        ],
      },
    ],
  };
  const text = [...baseIndexLines(index)].join('');

  test('is read as it was written', () => {
    expect(parseBaseIndex(text)).toEqual(index);
    expect(parseBaseIndex('{"format":1}\n')).toEqual({ tars: [] });
  });

  /** What proves it is the digest in backup.json; but nothing of it may crash who reads it. */
  test('cut or changed anywhere it is another index or is refused, and never more', () => {
    const bytes = Buffer.from(text);
    const others = [...bytes.keys()].map((end) => bytes.subarray(0, end));
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const other = Buffer.from(bytes);
      other[bit >> 3]! ^= 1 << (bit & 7);
      others.push(other);
    }
    for (const other of others) {
      try {
        expect(parseBaseIndex(other.toString())).not.toEqual(index);
      } catch (e) {
        expect(e).toBeInstanceOf(CorruptObjectError);
      }
    }
  });

  test.each([
    ['null\n'],
    ['{"format":2}\n'],
    ['{"format":1}\nnull\n'],
    ['{"format":1}\n["f",1,0,0,1,"ab"]\n'],
    ['{"format":1}\n["tar"]\n'],
    ['{"format":1}\n["tar","base.tar"]\n["f",-1,0,0,1,"ab"]\n'],
    ['{"format":1}\n["tar","base.tar"]\n["f",1.5,0,0,1,"ab"]\n'],
    ['{"format":1}\n["tar","base.tar"]\n["m","../x","file",1,1,1,0]\n'],
    ['{"format":1}\n["tar","base.tar"]\n["m","/x","file",1,1,1,0]\n'],
    ['{"format":1}\n["tar","base.tar"]\n["m",7,"file",1,1,1,0]\n'],
    ['{"format":1}\n["tar","base.tar"]\n["m","x","fifo",1,1,1,0]\n'],
    ['{"format":1}\n["tar","base.tar"]\n["m","x","file",-1,1,1,0]\n'],
    ['{"format":1}\n["tar","base.tar"]\n["x"]\n'],
  ])('%j is refused', (other) => {
    expect(() => parseBaseIndex(other)).toThrow(CorruptObjectError);
  });
});
