import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Ledger, type LedgerEntry } from '../../src/archive/ledger.js';
import { type VerifyOptions, verifyArchive } from '../../src/verify/verify.js';
import { segmentFileName, segmentOf, segmentStart } from '../../src/wal/file-name.js';
import { makeWal, type SyntheticOptions } from '../wal/synthetic.js';
import { packageRoot, scratchDir } from './scratch.js';

export const SEGMENT = 1024 * 1024;
export const SYSTEM_ID = 77n;

/** A case of testdata/wal as an archive of plain segments, the last one partial. */
export function fixtureArchive(name: string): string {
  const from = join(packageRoot, 'testdata', 'wal', name);
  const directory = scratchDir('archive');
  for (const file of readdirSync(from)) {
    const content = readFileSync(join(from, file));
    const plain = file.replace(/\.gz$/, '');
    if (/^[0-9A-F]{24}/.test(file)) writeFileSync(join(directory, plain), gunzipSync(content));
    else if (file.endsWith('.history')) writeFileSync(join(directory, file), content);
  }
  return directory;
}

/** Numbers that are the same in each run (Numerical Recipes' LCG). */
export function randomNumbers(seed = 1): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const made = new Map<string, ReturnType<typeof makeWal>>();

/** WAL of so many segments with records of all sizes, the last segment used in part. */
function sampleWal(segments: number, options: SyntheticOptions) {
  const key = `${segments} ${options.systemId} ${options.timeline}`;
  const wal = made.get(key) ?? makeSample(segments, options);
  made.set(key, wal);
  return wal;
}

function makeSample(segments: number, options: SyntheticOptions) {
  const random = randomNumbers(segments);
  const wanted = (segments - 0.5) * SEGMENT;
  const records = [];
  for (let bytes = 0; bytes < wanted; ) {
    const kind = random();
    const length = Math.floor(kind < 0.8 ? random() * 200 : kind < 0.99 ? random() * 9000 : 60_000);
    const body = Buffer.alloc(length, 0);
    for (let i = 0; i < length; i++) body[i] = random() * 256;
    records.push({ body, xid: records.length });
    bytes += length + 32;
  }
  return makeWal(records, { systemId: SYSTEM_ID, ...options });
}

/** An archive of that WAL; gives its directory and the names of its files, the last partial. */
export function sampleArchive(
  segments: number,
  options: SyntheticOptions = {},
  directory = scratchDir('archive'),
) {
  const { bytes, start, lsns } = sampleWal(segments, options);
  const names: string[] = [];
  for (let i = 0; i < segments; i++) {
    const content = Buffer.alloc(SEGMENT);
    bytes.copy(content, 0, i * SEGMENT, (i + 1) * SEGMENT);
    const base = segmentFileName(
      options.timeline ?? 1,
      segmentOf(start, SEGMENT) + BigInt(i),
      SEGMENT,
    );
    const name = (i + 1) * SEGMENT <= bytes.length ? base : `${base}.partial`;
    writeFileSync(join(directory, name), content);
    names.push(name);
  }
  const end = start + BigInt(bytes.length);
  return {
    directory,
    names,
    start,
    end,
    lsns,
    segmentStart: (i: number) => segmentStart(segmentOf(start, SEGMENT) + BigInt(i), SEGMENT),
  };
}

/** Changes a file in place. */
export function edit(path: string, change: (content: Buffer) => Buffer | undefined): void {
  const content = readFileSync(path);
  writeFileSync(path, change(content) ?? content);
}

/** Gives an archive a ledger. */
export async function writeLedger(directory: string, ...entries: LedgerEntry[]): Promise<void> {
  const ledger = (await Ledger.open(directory, { create: true, sync: false }))!;
  const open = { systemId: SYSTEM_ID, segmentSize: SEGMENT, version: '0' };
  await ledger.append({ type: 'open', ...open }, ...entries);
  await ledger.close();
}

/** The findings of a check as `severity code file`. */
export async function check(directory: string, options: VerifyOptions = {}): Promise<string[]> {
  const { findings } = await verifyArchive(directory, { jobs: 1, ...options });
  return findings.map((f) => `${f.severity} ${f.code} ${f.file}`);
}
