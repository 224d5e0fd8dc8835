import type { RecoveryTarget } from '../../../src/archive/targets/target.js';
import { formatLsn, type Lsn } from '../../../src/lsn.js';
import { segmentFileName } from '../../../src/wal/file-name.js';
import type { TimestampTz } from '../../../src/wal/records/timestamp.js';
import { type MemoryFiles, memoryArchive } from '../../support/memory-archive.js';
import {
  abortRecord,
  checkpointRecord,
  commitRecord,
  preparedRecord,
  restorePointRecord,
  switchRecord,
} from '../../support/wal-records.js';
import { makeWal, type SyntheticRecord } from '../../wal/synthetic.js';

export const SEGMENT = 1 << 20;
const START = 0x500_0000n;
const EPOCH = 946_684_800n;

/** A record as the model sees it. */
export interface ModelRecord {
  kind: 'commit' | 'abort' | 'point' | 'checkpoint' | 'other' | 'switch';
  time: TimestampTz;
  xid: number;
  name: string;
  lsn: Lsn;
  end: Lsn;
}

type Made = Omit<ModelRecord, 'lsn' | 'end'> & { record: SyntheticRecord };

export interface History {
  /** Of the way that is followed: what recovery would read, were nothing missing. */
  records: ModelRecord[];
  timeline: number;
  /** What was left behind on other timelines. */
  abandoned: { kind: ModelRecord['kind']; xid: number; name: string }[];
  /** Largest step back of the clock, microseconds. */
  back: number;
  files: MemoryFiles;
  archive: ReturnType<typeof memoryArchive>;
  /** Names of the files on the way, ascending. */
  way: string[];
}

export interface HistoryOptions {
  segments: number;
  /** Timelines, each forked off the one before. */
  timelines: number;
  /** Largest step back of the clock, microseconds; 0: only on. */
  back: number;
  /** Least and most records in a segment. */
  records: [number, number];
}

/** A random stream of records, and the archive that would hold it. */
export function randomHistory(random: () => number, options: HistoryOptions): History {
  const below = (n: number) => Math.floor(random() * n);
  let clock = 800_000_000_000_000n;
  let xid = 700 + below(1000);
  const make = (): Made => {
    clock += BigInt(below(4) === 0 ? below(60_000_000) : below(2000));
    if (options.back > 0 && below(12) === 0) clock -= BigInt(below(options.back));
    const time = clock as TimestampTz;
    const what = below(20);
    const at = { time, xid: 0, name: '' };
    if (what < 8) {
      xid += 1 + below(3);
      return { ...at, kind: 'commit', xid, record: commitRecord(xid, time) };
    }
    if (what < 10) {
      xid++;
      return { ...at, kind: 'abort', xid, record: abortRecord(xid, time) };
    }
    if (what < 12) {
      const kind = what === 10 ? 'commit' : 'abort';
      xid++;
      return { ...at, kind, xid, record: preparedRecord(kind, xid, time) };
    }
    if (what === 12) {
      const name = `p${below(12)}`;
      return { ...at, kind: 'point', name, record: restorePointRecord(name, time) };
    }
    if (what === 13) {
      const seconds = time / 1_000_000n + EPOCH;
      const second = (time - (time % 1_000_000n)) as TimestampTz;
      return { ...at, time: second, kind: 'checkpoint', record: checkpointRecord(START, seconds) };
    }
    const length = below(8) === 0 ? below(20_000) : below(300);
    return { ...at, kind: 'other', record: { body: Buffer.alloc(length, 1 + below(200)) } };
  };
  const perSegment = () => options.records[0] + below(options.records[1] - options.records[0] + 1);
  const files: MemoryFiles = new Map();
  const abandoned: History['abandoned'] = [];
  let made: Made[] = [];
  const forks: { timeline: number; lsn: Lsn }[] = [];
  let wal = makeWal([]);
  for (let timeline = 1; timeline <= options.timelines; timeline++) {
    const from = forks.at(-1)?.lsn;
    const share = Math.max(1, Math.round(options.segments / options.timelines));
    for (let segment = 0; segment < share; segment++) {
      const n = Math.max(perSegment(), made.length === 0 ? 1 : 0);
      for (let i = 0; i < n; i++) made.push(make());
      const last = segment === share - 1 && below(3) > 0;
      if (!last) {
        made.push({
          kind: 'switch',
          time: 0n as TimestampTz,
          xid: 0,
          name: '',
          record: switchRecord,
        });
      }
    }
    const timelineOf = (address: bigint) => 1 + forks.filter(({ lsn }) => lsn <= address).length;
    wal = makeWal(
      made.map((one) => one.record),
      { start: START, timelineOf },
    );
    const firstSegment = from === undefined ? START / BigInt(SEGMENT) : from / BigInt(SEGMENT);
    for (let number = firstSegment; ; number++) {
      const at = Number(number * BigInt(SEGMENT) - START);
      if (at >= wal.bytes.length) break;
      const whole = wal.bytes.length >= at + SEGMENT;
      const content = whole ? wal.bytes.subarray(at, at + SEGMENT) : Buffer.alloc(SEGMENT);
      if (!whole) wal.bytes.copy(content, 0, at);
      files.set(`${segmentFileName(timeline, number, SEGMENT)}${whole ? '' : '.partial'}`, content);
    }
    if (forks.length > 0) {
      const text = forks.map(({ timeline: t, lsn }) => `${t}\t${formatLsn(lsn)}\tno reason\n`);
      const name = `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
      files.set(name, Buffer.from(text.join('')));
    }
    if (timeline === options.timelines) break;
    // What is forked off leaves some of the records behind.
    const keep = Math.max(1, made.length - below(4));
    const fork = wal.ends[keep - 1]!;
    if (forks.at(-1) && fork <= forks.at(-1)!.lsn) {
      forks.push({ timeline, lsn: wal.ends.at(-1)! });
    } else {
      abandoned.push(...made.slice(keep));
      made = made.slice(0, keep);
      forks.push({ timeline, lsn: fork });
    }
  }
  const records = made.map(
    ({ record: _, ...rest }, i): ModelRecord => ({
      ...rest,
      lsn: wal.lsns[i]!,
      end: wal.ends[i]!,
    }),
  );
  const way: string[] = [];
  for (let at = START; at < START + BigInt(wal.bytes.length); at += BigInt(SEGMENT)) {
    const number = at / BigInt(SEGMENT);
    const name = Array.from({ length: options.timelines }, (_, i) => options.timelines - i)
      .map((t) => segmentFileName(t, number, SEGMENT))
      .flatMap((base) => [base, `${base}.partial`])
      .find((one) => files.has(one));
    way.push(name!);
  }
  const { timelines: timeline, back } = options;
  return { records, abandoned, timeline, back, files, archive: memoryArchive(files), way };
}

/** What the model says of a target: where it stops, or why it cannot. */
export type Verdict =
  | { stop: 'before' | 'after'; lsn: Lsn }
  | { stop: 'end'; lsn: Lsn }
  | { stop: 'immediate' }
  | { reason: string };

/**
 * Recovery, record by record, as it is written in PostgreSQL: what is looked at before a record is
 * applied, what behind it.
 * @param limit the first LSN that cannot be read, and why
 */
export function naive(
  records: readonly ModelRecord[],
  target: RecoveryTarget,
  begin: { redo: Lsn; lsn: Lsn },
  limit?: { lsn: Lsn; reason: 'in-gap' | 'damaged' },
): Verdict {
  const replay = records.filter((r) => r.lsn >= begin.redo && (!limit || r.end <= limit.lsn));
  const lastEnd = replay.at(-1)?.end ?? begin.redo;
  if (lastEnd < begin.lsn) return { reason: limit?.reason ?? 'in-gap' };
  if (target.kind === 'immediate') return { stop: 'immediate' };
  if (target.kind === 'latest')
    return limit ? { reason: limit.reason } : { stop: 'end', lsn: lastEnd };
  if (target.kind === 'lsn' && target.lsn < begin.redo) return { reason: 'before-backup' };
  const isEnd = (r: ModelRecord) => r.kind === 'commit' || r.kind === 'abort';
  for (const r of replay) {
    let stop: 'before' | 'after' | undefined;
    if (target.kind === 'lsn' && r.lsn >= target.lsn) stop = target.inclusive ? 'after' : 'before';
    if (target.kind === 'time' && isEnd(r)) {
      if (target.inclusive ? r.time > target.time : r.time >= target.time) stop = 'before';
    }
    if (target.kind === 'xid' && isEnd(r) && r.xid === target.xid) {
      stop = target.inclusive ? 'after' : 'before';
    }
    if (target.kind === 'name' && r.kind === 'point' && r.name === target.name) stop = 'after';
    if (!stop) continue;
    if (target.kind === 'time' && timeBegins(replay, target, begin.lsn, r)) {
      return { reason: 'before-backup' };
    }
    const position = stop === 'after' ? r.end : r.lsn;
    if (position < begin.lsn) return { reason: 'inside-backup' };
    return { stop, lsn: r.lsn };
  }
  if (limit) return { reason: limit.reason };
  if (target.kind === 'lsn' && !target.inclusive && target.lsn === lastEnd) {
    return { stop: 'after', lsn: replay.at(-1)!.lsn };
  }
  if (target.kind === 'xid' || target.kind === 'name') return { reason: 'unknown' };
  const proof = replay.findLast((r) => r.kind !== 'other' && r.kind !== 'switch');
  if (target.kind === 'time' && proof && !isEnd(proof)) {
    if (target.inclusive ? proof.time > target.time : proof.time >= target.time) {
      if (timeBegins(replay, target, begin.lsn)) return { reason: 'before-backup' };
      return { stop: 'after', lsn: replay.at(-1)!.lsn };
    }
  }
  return { reason: 'after-last' };
}

/** True if what comes first in the backup's own WAL is later than the time. */
function timeBegins(
  replay: readonly ModelRecord[],
  target: { time: TimestampTz; inclusive: boolean },
  end: Lsn,
  stop?: ModelRecord,
): boolean {
  for (const r of replay) {
    if (r.lsn >= end) return false;
    if (r === stop) return true;
    if (r.kind === 'other' || r.kind === 'switch') continue;
    if (target.inclusive ? r.time > target.time : r.time >= target.time) return true;
    if (r.kind !== 'checkpoint' || r.time + 1_000_000n <= target.time) return false;
  }
  return false;
}
