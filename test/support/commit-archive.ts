import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { makeWal, type SyntheticRecord } from '../wal/synthetic.js';
import { randomNumbers, SEGMENT, SYSTEM_ID } from './archives.js';
import { scratchDir } from './scratch.js';
import { commitRecord } from './wal-records.js';

export const SEGMENTS = 10;

/** xl_smgr_truncate of a relation's main fork to nothing. */
export function truncateRecord(xid: number): SyntheticRecord {
  const data = Buffer.alloc(20);
  for (const [i, n] of [0, 1663, 5, 20_000 + xid, 1].entries()) data.writeUInt32LE(n, 4 * i);
  return { rmgr: 2, info: 0x20, xid, body: Buffer.concat([Buffer.from([255, 20]), data]) };
}

/** An archive of plain commits among records that nobody looks for; `more` are put in behind so many bytes. */
export function commitArchive(more: ReadonlyMap<number, SyntheticRecord> = new Map()) {
  const random = randomNumbers(SEGMENTS);
  const records: SyntheticRecord[] = [];
  const left = new Map(more);
  for (let bytes = 0; bytes < (SEGMENTS - 0.5) * SEGMENT; ) {
    for (const [at, record] of left) {
      if (bytes < at) continue;
      records.push(record);
      left.delete(at);
    }
    const kind = random();
    const xid = 1000 + records.length;
    if (kind < 0.5) records.push(commitRecord(xid, BigInt(records.length) * 1000n));
    else {
      const body = Buffer.alloc(kind < 0.99 ? Math.floor(random() * 9000) : 60_000, xid);
      records.push({ rmgr: 10, info: 0, xid, body });
    }
    bytes += (records.at(-1)?.body.length ?? 0) + 32;
  }
  const { bytes, start } = makeWal(records, { systemId: SYSTEM_ID });
  const directory = scratchDir('way');
  const names: string[] = [];
  for (let i = 0; i * SEGMENT < bytes.length; i++) {
    const content = Buffer.alloc(SEGMENT);
    bytes.copy(content, 0, i * SEGMENT, (i + 1) * SEGMENT);
    const base = segmentFileName(1, segmentOf(start, SEGMENT) + BigInt(i), SEGMENT);
    names.push((i + 1) * SEGMENT <= bytes.length ? base : `${base}.partial`);
    writeFileSync(join(directory, names.at(-1) as string), content);
  }
  return { directory, names };
}
