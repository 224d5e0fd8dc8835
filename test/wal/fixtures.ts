import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { parseSegmentFileName, segmentStart } from '../../src/wal/file-name.js';
import { parseTimelineHistory, type TimelineHistory } from '../../src/wal/timeline.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import type { WalOptions } from '../../src/wal/walker.js';
import { packageRoot } from '../support/scratch.js';

const ROOT = join(packageRoot, 'testdata', 'wal');

/** A case of testdata/wal (testdata/make.ts), its segments one behind the other. */
export interface WalFixture {
  name: string;
  major: number;
  segmentSize: number;
  systemId: bigint;
  /** LSN of the first byte. */
  start: Lsn;
  /** Valid end; zeros behind it. */
  end: Lsn;
  bytes: Buffer;
  history?: TimelineHistory;
  /** `rmgr length xid lsn prev` of pg_waldump. */
  records?: string[];
  /** The whole of case.json. */
  info: Record<string, unknown>;
}

export const FIXTURES: readonly string[] = readdirSync(ROOT).sort();

export function loadFixture(name: string): WalFixture {
  const dir = join(ROOT, name);
  const info = JSON.parse(readFileSync(join(dir, 'case.json'), 'utf8'));
  const files = readdirSync(dir).sort();
  const segments = files.flatMap((file) => {
    const plain = file.replace(/(\.partial)?\.gz$/, '');
    const parsed = parseSegmentFileName(plain, info.segmentSize);
    return parsed ? [{ file, segment: parsed.segment }] : [];
  });
  const history = files.find((file) => file.endsWith('.history'));
  const records = files.includes('records.txt.gz')
    ? gunzipSync(readFileSync(join(dir, 'records.txt.gz')))
        .toString()
        .trim()
        .split('\n')
    : undefined;
  return {
    name,
    info,
    major: info.major,
    segmentSize: info.segmentSize,
    systemId: BigInt(info.systemId),
    start: segmentStart(segments[0]!.segment, info.segmentSize),
    end: parseLsn(info.end),
    bytes: Buffer.concat(segments.map((s) => gunzipSync(readFileSync(join(dir, s.file))))),
    ...(records ? { records } : {}),
    ...(history
      ? { history: parseTimelineHistory(2, readFileSync(join(dir, history), 'utf8')) }
      : {}),
  };
}

/** Options for a walk over a fixture with all that is known of it. */
export function optionsFor(f: WalFixture) {
  return {
    startLsn: f.start,
    segmentSize: f.segmentSize,
    systemId: f.systemId,
    ...(f.history ? { history: f.history } : { timeline: 1 }),
  };
}

/** The used bytes of a fixture. */
export const usedBytes = (f: WalFixture) => f.bytes.subarray(0, Number(f.end - f.start));

/** Tells of an index whether PostgreSQL never reads that byte: a change there is no damage. */
export function unusedIn(bytes: Uint8Array, options: WalOptions): (index: number) => boolean {
  const flags = new Uint8Array(bytes.length);
  const verifier = new WalVerifier(options);
  for (let i = 0; i < bytes.length; i++) {
    flags[i] = Number(verifier.unused > 0);
    verifier.feed(bytes, i, i + 1);
  }
  return (index) => flags[index] === 1;
}
