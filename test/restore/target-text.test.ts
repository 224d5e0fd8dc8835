import { describe, expect, it } from 'vitest';
import { parseTarget, targetText, targetWords } from '../../src/restore/target-text.js';
import { parseTimestamp } from '../../src/wal/records/timestamp.js';

describe('the target of a recovery', () => {
  it.each([
    ['latest', { kind: 'latest' }],
    ['immediate', { kind: 'immediate' }],
    ['xid:771', { kind: 'xid', xid: 771, inclusive: true }],
    ['name:before migration', { kind: 'name', name: 'before migration' }],
    ['name:latest', { kind: 'name', name: 'latest' }],
    ['16/B374D848', { kind: 'lsn', lsn: 0x16b374d848n, inclusive: true }],
    [
      '2026-08-01 12:00:00+00',
      { kind: 'time', time: parseTimestamp('2026-08-01 12:00:00+00'), inclusive: true },
    ],
  ])('%s', (text, target) => {
    expect(parseTarget(text)).toEqual({ target, zoneTaken: false });
  });

  it.each([
    ['2026-08-01', true],
    ['2026-08-01 12:00', true],
    ['2026-08-01T12:00:00.5', true],
    ['2026-08-01 12:00:00Z', false],
    ['2026-08-01 12:00+0530', false],
    ['2026-08-01 12:00:00.123456 UTC', false],
    ['2026-08-01 12:00:00-03:30', false],
    ['2026-08-01 +00', false],
  ])('%s without a zone: %s', (text, zoneTaken) => {
    expect(parseTarget(text)).toMatchObject({ target: { kind: 'time' }, zoneTaken });
  });

  it.each([
    'latest',
    'immediate',
    'xid:7',
    'name:a b',
    '16/B374D848',
    '2026-08-01 12:00:00.123456+02',
  ])('is written as it is read: %s', (text) => {
    for (const before of /^(latest|imm|name)/.test(text) ? [false] : [false, true]) {
      const { target } = parseTarget(text, before);
      const [to, written, ...rest] = targetWords(target);
      expect(to).toBe('--to');
      expect(rest).toEqual(before ? ['--before'] : []);
      expect(parseTarget(written ?? '', before)).toEqual({ target, zoneTaken: false });
    }
  });

  it('is just before a time, an LSN or a transaction', () => {
    for (const text of ['2026-08-01 12:00:00Z', '0/3000000', 'xid:5']) {
      const { target } = parseTarget(text, true);
      expect(target).toMatchObject({ inclusive: false });
      expect(targetText(target)).toMatch(/^just before /);
    }
    for (const text of ['latest', 'immediate', 'name:x']) {
      expect(() => parseTarget(text, true)).toThrow(/cannot stop before/);
    }
  });

  it.each(['', 'last', 'xid:', 'xid:-1', 'xid:4294967296', 'xid:1x', 'name:', '0/', 'yesterday'])(
    'is not %j',
    (text) => {
      expect(() => parseTarget(text)).toThrow();
    },
  );

  it('is not a time that is none', () => {
    expect(() => parseTarget('2026-02-30 12:00:00Z')).toThrow(/no such day/);
    expect(() => parseTarget(`name:${'x'.repeat(64)}`)).toThrow(/63 bytes/);
  });
});
