import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseManifest } from '../../src/base/manifest.js';
import { CorruptObjectError } from '../../src/errors.js';

/** As the server writes it. */
function manifest(
  files: readonly string[],
  head = '{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": 7455102338293740513,\n',
  ranges = '{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }',
): Buffer {
  const list = files.length === 0 ? '' : `\n${files.join(',\n')}`;
  const text = `${head}"Files": [${list}\n],\n"WAL-Ranges": [\n${ranges}\n],\n`;
  const sum = createHash('sha256').update(text).digest('hex');
  return Buffer.from(`${text}"Manifest-Checksum": "${sum}"}\n`);
}

const FILE =
  '{ "Path": "base/1/1259", "Size": 8192, "Last-Modified": "2026-11-28 01:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "0A0b0c0d" }';
const ENCODED =
  '{ "Encoded-Path": "62617365ff", "Size": 0, "Last-Modified": "2026-11-28 01:00:00 GMT" }';

describe('parseManifest', () => {
  it('reads version 2, with an identifier that is no double', () => {
    expect(parseManifest(manifest([FILE, ENCODED]))).toEqual({
      version: 2,
      systemId: 7455102338293740513n,
      files: [
        {
          path: 'base/1/1259',
          size: 8192,
          lastModified: '2026-11-28 01:00:00 GMT',
          checksum: { algorithm: 'CRC32C', hex: '0a0b0c0d' },
        },
        {
          path: 'base\u00ff',
          size: 0,
          lastModified: '2026-11-28 01:00:00 GMT',
          checksum: undefined,
        },
      ],
      walRanges: [{ timeline: 1, start: 0x2000028n, end: 0x2000100n }],
    });
  });

  it('reads it however its entries lie in lines', () => {
    const files = [FILE, ENCODED, FILE.replace('1259', '1260')];
    const expected = parseManifest(manifest(files));
    expect(expected.files).toHaveLength(3);
    const joined = [files.join(', ')];
    const spread = files.map((file) => file.replaceAll(', ', ',\n  '));
    const mixed = [files[0] as string, files.slice(1).join(',')];
    const inner = [files.slice(0, 2).join(','), files[2] as string];
    for (const lines of [joined, spread, mixed, inner]) {
      expect(parseManifest(manifest(lines))).toEqual(expected);
    }
  });

  it('reads version 1', () => {
    const read = parseManifest(manifest([], '{ "PostgreSQL-Backup-Manifest-Version": 1,\n'));
    expect(read).toMatchObject({ version: 1, systemId: undefined, files: [] });
  });

  it('has names in the bytes that a tar has them in', () => {
    const [file] = parseManifest(manifest([FILE.replace('1259', 'é')])).files;
    expect(file?.path).toBe(Buffer.from('base/1/é').toString('latin1'));
  });

  it('can have a file of each data directory of PolarDB under one path', () => {
    const other = FILE.replace('8192', '0');
    const read = parseManifest(manifest([FILE, other]), 'backup_manifest', 'allowed');
    expect(read.files.map(({ path, size }) => [path, size])).toEqual([
      ['base/1/1259', 8192],
      ['base/1/1259', 0],
    ]);
  });

  it('finds every flipped bit and every truncation', () => {
    const good = manifest([FILE]);
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bad = Buffer.from(good);
      bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(() => parseManifest(bad), `bit ${bit}`).toThrow(CorruptObjectError);
    }
    for (let length = 0; length < good.length; length++) {
      expect(() => parseManifest(good.subarray(0, length))).toThrow(CorruptObjectError);
    }
  });

  it('refuses anything else with one kind of error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(() => parseManifest(Buffer.from(bytes))).toThrow(CorruptObjectError);
      }),
    );
  });

  it.each([
    [[FILE, FILE], 'twice'],
    [[FILE.replace('base/1', '../x')], 'is called'],
    [[FILE.replace('base/1', '/etc')], 'is called'],
    [[FILE.replace('8192', '-1')], 'size of'],
    [[FILE.replace('8192', '1.5')], 'size of'],
    [[FILE.replace('0A0b0c0d', '0A0b0c')], 'checksum of'],
    [[FILE.replace('CRC32C', 'MD5')], 'checksum of'],
    [[FILE.replace('"Path"', '"Encoded-Path"')], 'no name'],
    [['7'], 'object'],
  ])('refuses %j', (files, why) => {
    expect(() => parseManifest(manifest(files))).toThrow(why);
  });

  it('refuses versions and ranges that it does not know', () => {
    const head = '{ "PostgreSQL-Backup-Manifest-Version": 3,\n"System-Identifier": 1,\n';
    expect(() => parseManifest(manifest([], head))).toThrow('version 3');
    const none = '{ "PostgreSQL-Backup-Manifest-Version": 2,\n';
    expect(() => parseManifest(manifest([], none))).toThrow('system identifier');
    expect(() => parseManifest(manifest([], undefined, '{ "Timeline": 0 }'))).toThrow('range');
  });
});
