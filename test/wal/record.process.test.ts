import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { parseRecordHeader, RMGR_NAMES, rmgrName } from '../../src/wal/record.js';
import { findTool } from '../support/tools.js';

const waldump = findTool('pg_waldump', 15);

test('names of resource managers', () => {
  expect(rmgrName(0)).toBe('XLOG');
  expect(rmgrName(21)).toBe('LogicalMessage');
  expect(rmgrName(22)).toBe('unknown022');
  expect(rmgrName(128)).toBe('custom128');
});

test.skipIf(!waldump)('the names are those of pg_waldump 15 (skipped without it)', () => {
  const list = execFileSync(waldump!, ['--rmgr=list'], { encoding: 'utf8' }).trim().split('\n');
  expect(list.slice(0, RMGR_NAMES.length)).toEqual(RMGR_NAMES);
});

test('the fields of a record header, at any place', () => {
  const bytes = Buffer.alloc(31);
  bytes.set(
    Buffer.from('32000000' + 'feffffff' + '2800000502000000' + '40150000' + 'efbeadde', 'hex'),
    7,
  );
  expect(parseRecordHeader(bytes, 7)).toEqual({
    totalLength: 50,
    xid: 0xffff_fffe,
    prev: 0x2_0500_0028n,
    info: 0x40,
    rmgr: 21,
    crc: 0xdead_beef,
  });
});
