import { describe, expect, it } from 'vitest';
import { ConnectionError } from '../../../src/errors.js';
import type { Lsn } from '../../../src/lsn.js';
import { toServerError } from '../../../src/protocol/server-error.js';
import { type AskedStream, RemovedWal } from '../../../src/receive/start/removed-wal.js';
import { parseTimelineHistory } from '../../../src/wal/timeline.js';

const asked: AskedStream = {
  timeline: 1,
  history: parseTimelineHistory(3, '1\t0/1080000\tx\n2\t0/1090000\tx\n'),
  segmentSize: 1 << 20,
  completeBeyond: false,
  unproved: undefined,
  mayGoOver: false,
};
const notice = (code: string, message: string) => ({
  ...{ severity: 'ERROR', code, message },
  ...{ detail: undefined, hint: undefined },
});
const lacks = (file: string, text = `requested WAL segment ${file} has already been removed`) =>
  toServerError(notice('58P01', text));
const OWN = lacks('000000010000000000000010');
const CHILD = lacks('000000020000000000000010');
const invalid = toServerError(notice('55000', 'can no longer access replication slot "s"'));

describe('RemovedWal', () => {
  it('takes the name of a file for that of a file', () => {
    expect(CHILD).toMatchObject({ code: 'WK_WAL_REMOVED', file: '000000020000000000000010' });
    const localised = lacks('', 'WAL-Segment 000000020000000000000010 wurde schon entfernt');
    expect(localised).toMatchObject({ file: '000000020000000000000010' });
    expect(new RemovedWal().leadsOn(localised, asked)).toBe(true);
  });
  it('takes a removed segment for acknowledged where the slot cannot be asked', () => {
    const removed = new RemovedWal();
    const end = 0x1100000n as Lsn;
    const other = lacks('000000010000000000000012');
    expect(new RemovedWal().leadsOn(other, { ...asked, unproved: end })).toBe(false);
    expect(removed.leadsOn(OWN, { ...asked, unproved: end })).toBe(true);
    expect(removed.released).toEqual({ timeline: 1, lsn: end });
    expect(removed.leadsOn(OWN, { ...asked, unproved: end })).toBe(false);
    const next = lacks('000000010000000000000011');
    expect(removed.leadsOn(next, { ...asked, unproved: 0x1200000n as Lsn })).toBe(true);
    // That it is the slot that is invalid says nothing of a segment.
    expect(new RemovedWal().leadsOn(invalid, { ...asked, unproved: end })).toBe(false);
  });
  it('asks the next timeline once for the end of one', () => {
    const removed = new RemovedWal();
    expect(removed.leadsOn(CHILD, asked)).toBe(true);
    expect(removed.lastSegmentGone).toBe(1);
    expect(removed.leadsOn(CHILD, asked)).toBe(false);
    // That one's own end lies in the same segment.
    const next = { ...asked, timeline: 2 };
    expect(removed.leadsOn(lacks('000000030000000000000010'), next)).toBe(true);
    expect(removed.leadsOn(lacks('000000030000000000000010'), { ...asked, timeline: 3 })).toBe(
      false,
    );
  });
  it('does so for the last segment only', () => {
    const removed = new RemovedWal();
    expect(removed.leadsOn(OWN, asked)).toBe(false);
    expect(removed.leadsOn(lacks('00000002000000000000000F'), asked)).toBe(false);
    expect(removed.leadsOn(CHILD, { ...asked, timeline: 3 })).toBe(false);
    expect(removed.leadsOn(CHILD, undefined)).toBe(false);
    expect(removed.leadsOn(new ConnectionError('x'), asked)).toBe(false);
  });
  it('goes on behind what was moved away before anything is gone over', () => {
    const removed = new RemovedWal();
    const old = { ...asked, completeBeyond: true, mayGoOver: true };
    expect(removed.leadsOn(OWN, old)).toBe(true);
    expect(removed).toMatchObject({ behindNewestGone: true, goesOver: false });
    expect(removed.leadsOn(OWN, { ...old, completeBeyond: false })).toBe(true);
    expect(removed.goesOver).toBe(true);
    expect(removed.leadsOn(OWN, { ...old, completeBeyond: false })).toBe(false);
    removed.reset();
    expect(removed).toMatchObject({ behindNewestGone: false, goesOver: false });
  });
  it('does not take an invalid slot for WAL that is gone', () => {
    const removed = new RemovedWal();
    expect(removed.leadsOn(invalid, { ...asked, completeBeyond: true })).toBe(false);
    expect(removed.leadsOn(invalid, { ...asked, mayGoOver: true })).toBe(true);
  });
});
