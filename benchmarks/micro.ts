/** The hot path in memory: frames, record check, CRC, and the segment writer into the page cache. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { nodeFileSystem } from '../src/files/file-system.js';
import { type Lsn, parseLsn } from '../src/lsn.js';
import { FrameReader } from '../src/protocol/frame-reader.js';
import { SegmentFinisher } from '../src/receive/target/segment-finisher.js';
import { SegmentWriter } from '../src/receive/target/segment-writer.js';
import { crc32c } from '../src/wal/crc32c.js';
import { parseSegmentFileName, segmentStart } from '../src/wal/file-name.js';
import { WalVerifier } from '../src/wal/verifier.js';
import { packageRoot } from '../test/support/scratch.js';
import { backend } from '../test/support/scripted-server.js';
import { print, saveResult, scratchRoot } from './report.js';
import { median } from './statistics.js';

const MB = 1024 * 1024;
const rows: string[][] = [];

/** Median MB/s of 7 runs of at least 0.3 s each. */
function speed(name: string, bytes: number, once: () => void): void {
  const speeds: number[] = [];
  for (let run = 0; run < 7; run += 1) {
    const began = performance.now();
    let times = 0;
    while (performance.now() - began < 300) {
      once();
      times += 1;
    }
    speeds.push((bytes * times) / ((performance.now() - began) * 1000));
  }
  rows.push([name, median(speeds).toFixed(0)]);
}

for (const size of [200, 8192, 131072]) {
  const frame = backend.xlogData(0n, Buffer.alloc(size));
  const stream = Buffer.concat(
    Array.from({ length: Math.ceil((256 * 1024) / frame.length) }, () => frame),
  );
  const reader = new FrameReader({ onMessage() {}, onCopyData() {}, onReaderFailure() {} });
  reader.enterCopyBoth({
    onWalHeader() {},
    onWalBytes() {},
    onWalMessageEnd() {},
    onKeepalive() {},
    onReadEnd() {},
    onServerCopyDone() {},
    onFailure() {},
  });
  speed(`frames of ${size} bytes`, stream.length, () => reader.push(stream));
}

for (const size of [64, 256, 8192, 65536]) {
  const bytes = Buffer.alloc(size, 7);
  const times = Math.ceil(MB / size);
  speed(`CRC-32C of ${size} bytes`, size * times, () => {
    for (let i = 0; i < times; i += 1) crc32c(bytes);
  });
}

const fixtures = join(packageRoot, 'testdata/wal/mixed-18');
const file = readdirSync(fixtures, { recursive: true })
  .map(String)
  .find((name) => /[0-9A-F]{24}\.gz$/.test(name));
if (file) {
  const wal = gunzipSync(readFileSync(join(fixtures, file)));
  const name = parseSegmentFileName(file.split('/').at(-1) as string, wal.length);
  const startLsn = segmentStart(name?.segment ?? 0n, wal.length);
  speed('record check of real WAL, 100 kB chunks', wal.length, () => {
    const verifier = new WalVerifier({ startLsn, segmentSize: wal.length });
    for (let at = 0; at < wal.length; at += 102400) {
      verifier.feed(wal, at, Math.min(wal.length, at + 102400));
    }
  });
}

const directory = mkdtempSync(join(scratchRoot(), 'writer-'));
const finisher: SegmentFinisher = new SegmentFinisher({
  directory,
  segmentSize: 1024 * MB,
  sync: false,
  fs: nodeFileSystem,
  record: async () => undefined,
  onDurable: (end) => writer.finished(end),
  onFinished: () => undefined,
  onProgress: () => undefined,
  onFailure: () => undefined,
});
const writer: SegmentWriter = new SegmentWriter({
  directory,
  segmentSize: 1024 * MB,
  timeline: 1,
  mode: 0o600,
  sync: false,
  compareUntil: 0n as Lsn,
  startLsn: parseLsn('0/1000000'),
  finisher,
  fs: nodeFileSystem,
});
const chunk = Buffer.alloc(128 * 1024, 1);
// One segment is enough: what is measured is the way of a read into the page cache.
let left = 512 * MB;
const began = performance.now();
while (left > 0) {
  writer.writeSync([chunk, chunk]);
  left -= 2 * chunk.length;
}
rows.push([
  'segment writer, 256 kB reads, no fsync',
  ((512 * MB) / ((performance.now() - began) * 1000)).toFixed(0),
]);
await writer.close();
rmSync(directory, { recursive: true });

print('Hot path in memory', ['what', 'MB/s'], rows);
saveResult('micro', rows);
