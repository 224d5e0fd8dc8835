import { describe, expect, it } from 'vitest';
import { readCatalog } from '../../src/archive/read-catalog.js';
import type { LocateOptions, TargetResult } from '../../src/archive/targets/locate.js';
import type { RecoveryTarget, UnreachableTarget } from '../../src/archive/targets/target.js';
import type { BackupRecord } from '../../src/base/backup-record.js';
import { CorruptObjectError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { type Candidate, type ChooseOptions, chooseBackup } from '../../src/restore/choose.js';
import { parseTimestamp } from '../../src/wal/records/timestamp.js';
import { type MemoryFiles, memoryArchive } from '../support/memory-archive.js';
import { stored } from './restorable.js';

const { record: base, area } = await stored();
const MB = 1n << 20n;

/** A backup of some segments, called by when it began. */
function backup(hour: number, from: bigint, to: bigint, timeline = 1, more = {}): Candidate {
  const time = (minute: number) =>
    `2026-08-01T${String(hour).padStart(2, '0')}:${String(minute).padStart(2, '0')}:00.000Z`;
  const record: BackupRecord = {
    ...base,
    id: `20260801T${String(hour).padStart(2, '0')}0000F-000000`,
    start: { lsn: (from * MB) as Lsn, timeline, time: time(0) },
    end: { lsn: (to * MB) as Lsn, timeline, time: time(1) },
    ...more,
  };
  return { record, area };
}

const HISTORY = '1\t0/A00000\tno recovery target specified\n';

/** Segments 5 to 15 of timeline 1, and from 10 on those of timeline 2. */
function catalog() {
  const files: MemoryFiles = new Map();
  const name = (timeline: number, n: number) =>
    `${String(timeline).padStart(8, '0')}00000000${n.toString(16).toUpperCase().padStart(8, '0')}`;
  for (let n = 5; n <= 15; n++) files.set(name(1, n), Buffer.alloc(Number(MB)));
  for (let n = 10; n <= 20; n++) files.set(name(2, n), Buffer.alloc(Number(MB)));
  files.set('00000002.history', Buffer.from(HISTORY));
  return readCatalog(memoryArchive(files));
}

/** Answers as told for each backup, by the LSN of its end in MB, and notes what it was asked. */
function locator(answers: Record<number, UnreachableTarget['reason'] | 'found'>) {
  const asked: { after: number; timeline: number | undefined }[] = [];
  const locate = async (
    _: unknown,
    __: RecoveryTarget,
    { after, timeline }: LocateOptions,
  ): Promise<TargetResult> => {
    const end = Number(after.lsn / MB);
    asked.push({ after: end, timeline });
    const answer = answers[end] ?? 'found';
    const notes: string[] = [];
    if (answer !== 'found') {
      const nearest = { lsn: after.lsn, hint: `near ${end}` };
      const message = `${answer} of ${end}`;
      return { unreachable: { reason: answer, message, notes, segmentsRead: 0, nearest } };
    }
    const located = { timeline: timeline ?? 2, lsn: after.lsn, setting: undefined, notes };
    return { located: { ...located, segmentsRead: 0 } };
  };
  return { asked, locate };
}

const three = [backup(8, 5n, 6n), backup(12, 11n, 12n, 2), backup(10, 8n, 9n)];

async function choose(
  answers: Parameters<typeof locator>[0],
  more: Partial<ChooseOptions> = {},
): Promise<{ chosen: string; asked: number[] }> {
  const { locate, asked } = locator(answers);
  const chosen = await chooseBackup({
    ...{ catalog: await catalog(), candidates: three, target: { kind: 'latest' }, locate },
    ...more,
  });
  return { chosen: chosen.record.id.slice(9, 11), asked: asked.map(({ after }) => after) };
}

describe('the backup of a restore', () => {
  it('is the newest that the way leads from', async () => {
    expect(await choose({})).toEqual({ chosen: '12', asked: [12] });
    expect(await choose({ 12: 'inside-backup' })).toEqual({ chosen: '10', asked: [12, 9] });
    expect(await choose({ 12: 'before-backup', 9: 'unknown' })).toEqual({
      ...{ chosen: '08', asked: [12, 9, 6] },
    });
  });

  it('is not looked for before what an earlier one could not have either', async () => {
    for (const reason of ['in-gap', 'damaged', 'after-last', 'not-on-branch'] as const) {
      await expect(choose({ 12: reason })).rejects.toMatchObject({
        ...{ code: 'WK_UNREACHABLE', message: `${reason} of 12`, hint: 'near 12' },
      });
    }
  });

  it('is looked for before holes and other branches where the target may be before them', async () => {
    const targets: RecoveryTarget[] = [
      { kind: 'xid', xid: 771, inclusive: true },
      { kind: 'name', name: 'x' },
    ];
    for (const target of targets) {
      for (const reason of ['in-gap', 'damaged', 'not-on-branch'] as const) {
        expect(await choose({ 12: 'unknown', 9: reason }, { target })).toMatchObject({
          chosen: '08',
        });
        const none = choose({ 12: 'unknown', 9: reason, 6: 'in-gap' }, { target });
        await expect(none).rejects.toMatchObject({ message: `${reason} of 9` });
      }
    }
  });

  it('tells of the earliest what is unknown to all', async () => {
    const none = { 12: 'unknown', 9: 'unknown', 6: 'unknown' } as const;
    await expect(choose(none)).rejects.toMatchObject({ message: 'unknown of 6' });
  });

  it('ends before the LSN or began before the time, without a look at WAL', async () => {
    const lsn = (10n * MB) as Lsn;
    const at: RecoveryTarget = { kind: 'lsn', lsn, inclusive: true };
    expect(await choose({}, { target: at })).toEqual({ chosen: '10', asked: [9] });
    const time = parseTimestamp('2026-08-01 09:30:00Z');
    const when: RecoveryTarget = { kind: 'time', time, inclusive: true };
    expect(await choose({}, { target: when })).toEqual({ chosen: '08', asked: [6] });
  });

  it('lies on the way to the timeline that is wanted', async () => {
    const branch = [backup(8, 5n, 6n), backup(14, 12n, 13n), backup(10, 8n, 9n)];
    // On timeline 1, behind where 2 left it.
    expect(await choose({}, { candidates: branch })).toMatchObject({ chosen: '10' });
    expect(await choose({}, { candidates: branch, timeline: 1 })).toMatchObject({ chosen: '14' });
    const only = [backup(12, 11n, 12n, 2)];
    await expect(choose({}, { candidates: only, timeline: 1 })).rejects.toMatchObject({
      ...{ code: 'WK_UNREACHABLE', hint: expect.stringContaining('--timeline 2') },
    });
    await expect(choose({}, { timeline: 7 })).rejects.toThrow(/no timeline 7/);
  });

  it('can be named', async () => {
    const [, , middle] = three as [Candidate, Candidate, Candidate];
    const { id } = middle.record;
    expect(await choose({}, { backup: id })).toEqual({ chosen: '10', asked: [9] });
    await expect(choose({}, { backup: '20260801T000000F-000000' })).rejects.toMatchObject({
      ...{ code: 'WK_USAGE', hint: expect.stringContaining(id) },
    });
  });

  it('is an incremental one where all is there that it is based on', async () => {
    const full = backup(8, 5n, 6n);
    const { id, start } = full.record;
    const first = backup(9, 7n, 8n, 1, { parent: id, incrementalFrom: start });
    const [parent, from] = [first.record.id, first.record.start];
    const second = backup(10, 8n, 9n, 1, { parent, incrementalFrom: from });
    const lost = backup(11, 9n, 10n, 1, { parent: '20260801T070000F-000000' });
    const candidates = [second, lost, full, first];
    expect(await choose({}, { candidates })).toEqual({ chosen: '10', asked: [9] });
    expect(await choose({}, { candidates, backup: parent })).toEqual({ chosen: '09', asked: [8] });
    const named = choose({}, { candidates, backup: lost.record.id });
    await expect(named).rejects.toMatchObject({
      ...{ code: 'WK_CORRUPT_OBJECT', message: expect.stringContaining('070000F-000000') },
    });
    // What was taken between is not what it was made from.
    const other = backup(12, 10n, 11n, 1, { parent, incrementalFrom: start });
    const wrong = choose({}, { candidates: [other, first, full], backup: other.record.id });
    await expect(wrong).rejects.toThrow(/began at/);
  });

  it('is told from none, and from one that cannot be proven', async () => {
    await expect(choose({}, { candidates: [] })).rejects.toMatchObject({ code: 'WK_UNREACHABLE' });
    const problem = new CorruptObjectError('damaged', { key: 'backups/x/backup.json' });
    await expect(choose({}, { candidates: [], problems: [problem] })).rejects.toBe(problem);
  });

  it('needs no archive where it has its WAL', async () => {
    const alone = [backup(8, 5n, 6n, 1, { wal: 'included' })];
    const none = { candidates: alone, catalog: undefined };
    expect(await choose({}, none)).toEqual({ chosen: '08', asked: [] });
    const target: RecoveryTarget = { kind: 'immediate' };
    expect(await choose({}, { ...none, target })).toEqual({ chosen: '08', asked: [] });
  });
});
