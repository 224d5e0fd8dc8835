import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Ledger, type LedgerEntry } from '../../src/archive/ledger.js';
import { parseLsn } from '../../src/lsn.js';
import { loadFixture } from '../wal/fixtures.js';
import { packageRoot, scratchDir } from './scratch.js';

const ROOT = join(packageRoot, 'testdata', 'wal');

/** System identifier of the fixtures, which come from one cluster. */
export const SYSTEM_ID = loadFixture('switch').systemId;
/** Their segment size, bytes. */
export const SEGMENT = 1 << 20;
/** Offset between pages. */
export const PAGE = 8192;

/** A segment's content as the fixture has it. */
export function segmentOf(fixture: string, name: string): Buffer {
  return gunzipSync(readFileSync(join(ROOT, fixture, `${name}.gz`)));
}

/** An archive with the plain files of a fixture, and an empty directory to fetch into. */
export function archiveOf(fixture: string) {
  const root = scratchDir('fetch');
  const dir = join(root, 'archive');
  const data = join(root, 'data');
  const out = join(data, 'pg_wal');
  mkdirSync(dir);
  mkdirSync(out, { recursive: true });
  for (const name of readdirSync(join(ROOT, fixture))) {
    const content = readFileSync(join(ROOT, fixture, name));
    if (/^[0-9A-F]{24}/.test(name)) {
      writeFileSync(join(dir, name.replace(/\.gz$/, '')), gunzipSync(content));
    } else if (name.endsWith('.history')) writeFileSync(join(dir, name), content);
  }
  return { dir, data, out, target: join(out, 'RECOVERYXLOG') };
}

/** Makes `data` look like the data directory of a server of that cluster. */
export function writeControl(data: string, systemId: bigint, timeline = 1): void {
  const control = Buffer.alloc(8192);
  control.writeBigUInt64LE(systemId, 0);
  control.writeUInt32LE(timeline, 48);
  mkdirSync(join(data, 'global'), { recursive: true });
  writeFileSync(join(data, 'global', 'pg_control'), control);
}

/** Writes a ledger: timelines with their starts, and what was acknowledged on the newest. */
export async function writeLedger(
  dir: string,
  timelines: readonly [number, string][],
  flushed?: string,
  systemId = SYSTEM_ID,
): Promise<void> {
  const ledger = await Ledger.open(dir, { create: true });
  const entries: LedgerEntry[] = [
    { type: 'open', systemId, segmentSize: SEGMENT, version: 'test' },
    ...timelines.map(([timeline, start]): LedgerEntry => {
      return { type: 'timeline', timeline, start: parseLsn(start), why: 'test' };
    }),
  ];
  const newest = timelines.at(-1)?.[0] ?? 1;
  if (flushed) entries.push({ type: 'flushed', lsn: parseLsn(flushed), timeline: newest });
  await ledger!.append(...entries);
  await ledger!.close();
}

/** Changes one byte of a file. */
export function flip(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes[offset] = bytes[offset]! ^ 0x10;
  writeFileSync(path, bytes);
}
