import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseBackupLabel, parseTablespaceMap, tablespaceMap } from '../../src/base/label.js';
import { CorruptObjectError } from '../../src/errors.js';

const LABEL = [
  'START WAL LOCATION: 0/2000028 (file 000000010000000000000002)',
  'CHECKPOINT LOCATION: 0/2000060',
  'BACKUP METHOD: streamed',
  'BACKUP FROM: primary',
  'START TIME: 2026-11-28 01:00:00 CET',
  'LABEL: before: the upgrade',
  'START TIMELINE: 1',
  '',
];
const parse = (lines: readonly string[]) => parseBackupLabel(Buffer.from(lines.join('\n')));

describe('parseBackupLabel', () => {
  it('reads a full and an incremental one', () => {
    const full = {
      start: 0x2000028n,
      startSegment: '000000010000000000000002',
      checkpoint: 0x2000060n,
      from: 'primary',
      timeline: 1,
      startTime: '2026-11-28 01:00:00 CET',
      label: 'before: the upgrade',
      incrementalFrom: undefined,
    };
    expect(parse(LABEL)).toEqual(full);
    expect(parse([...LABEL, 'INCREMENTAL FROM LSN: 0/1000028', 'INCREMENTAL FROM TLI: 1'])).toEqual(
      {
        ...full,
        incrementalFrom: { lsn: 0x1000028n, timeline: 1 },
      },
    );
  });

  it('refuses one with a line missing, twice, or cut', () => {
    for (const i of LABEL.keys()) {
      if (LABEL[i] === '') continue;
      expect(() => parse(LABEL.toSpliced(i, 1)), LABEL[i]).toThrow(CorruptObjectError);
      expect(() => parse(LABEL.toSpliced(i, 0, LABEL[i] as string))).toThrow(CorruptObjectError);
    }
    expect(() => parse([...LABEL, 'INCREMENTAL FROM LSN: 0/1000028'])).toThrow(CorruptObjectError);
  });
});

describe('tablespace_map', () => {
  it('keeps paths with whatever in them', () => {
    const path = fc.stringMatching(/^[a-z/ \\\n\r\u00ff]+$/);
    fc.assert(
      fc.property(fc.array(fc.record({ oid: fc.nat(), path })), (links) => {
        expect(parseTablespaceMap(tablespaceMap(links))).toEqual(links);
      }),
    );
  });

  it('refuses what is none', () => {
    for (const text of ['16384', '16384 /x', 'x /y\n', '16384 \n']) {
      expect(() => parseTablespaceMap(Buffer.from(text)), text).toThrow(CorruptObjectError);
    }
  });
});
