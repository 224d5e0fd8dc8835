import { join } from 'node:path';
import { WalkeepError } from '../errors.js';
import { parseLongHeader } from '../storage/long-header.js';
import { checkSegment, type SegmentFile } from '../storage/wal-directory.js';
import {
  parseSegmentFileName,
  type SegmentName,
  segmentFileName,
  segmentOf,
  segmentStart,
} from '../wal/file-name.js';
import { formatLsn, type Lsn } from '../wal/lsn.js';
import { LONG_PAGE_HEADER, parsePageHeader, SHORT_PAGE_HEADER } from '../wal/page.js';
import { WalVerifier } from '../wal/verifier.js';
import { compareCopies } from './compare-copies.js';
import { FaultLog } from './fault-finding.js';
import type { Finding } from './findings.js';
import { currentFile, readSegment, type SegmentRead } from './segment-reader.js';
import { PartialCheck } from './verify-partial.js';
import type { JobSegment, VerifyJob } from './verify-plan.js';

/** Where a job tells what it finds and how far it is. */
export interface JobReport {
  finding(finding: Finding): void;
  /** So many bytes of the job's own segments were checked, decompressed. */
  progress(bytes: number): void;
}

/** A segment while it is being checked. */
interface Current extends SegmentName {
  /** Bare file name. */
  name: string;
  path: string;
  /** LSN of its first byte. */
  start: Lsn;
  role: 'own' | 'follow' | 'lead-in';
}

/**
 * Checks the segments of a job as one stream. `between` runs behind each of them.
 * @throws nothing that a file is to blame for
 */
export async function runJob(
  job: VerifyJob,
  report: JobReport,
  between?: () => Promise<void>,
): Promise<void> {
  const check = new StreamCheck(job, report);
  for (const segment of job.segments) {
    await check.segment(segment, job.leadIn ? 'lead-in' : 'own');
    await between?.();
  }
  for (const segment of job.follow) {
    if (check.finished) break;
    await check.segment(segment, 'follow');
  }
}

class StreamCheck {
  /** True once nothing of what follows the job's own segments is needed any more. */
  finished = false;
  readonly #job: VerifyJob;
  readonly #report: JobReport;
  /** Runs on from segment to segment; undefined where the chain is broken. */
  #verifier: WalVerifier | undefined;
  /** Names of the files that were read, by segment. */
  readonly #names = new Map<bigint, string>();
  /** Start of the first following segment, and the end of the first record that reaches into it. */
  readonly #edge: bigint;
  #reached: bigint | undefined;

  constructor(job: VerifyJob, report: JobReport) {
    this.#job = job;
    this.#report = report;
    this.#edge = segmentStart(job.segments.at(-1)!.segment + 1n, job.segmentSize);
  }

  async segment(segment: JobSegment, role: Current['role']): Promise<void> {
    const { directory, segmentSize } = this.#job;
    const name = currentFile(directory, segment.files[0]!);
    const parsed = parseSegmentFileName(name, segmentSize)!;
    const start = segmentStart(segment.segment, segmentSize);
    const current: Current = { ...parsed, name, path: join(directory, name), start, role };
    this.#names.set(segment.segment, name);
    try {
      if (this.#job.quick) await this.#headerOnly(current);
      else if (current.partial) await this.#partial(current, segment);
      else await this.#complete(current);
      if (role === 'own' && !this.#job.quick) await this.#duplicates(segment, current);
    } catch (e) {
      this.#unreadable(current, e);
    }
  }

  async #complete(current: Current): Promise<void> {
    const { segmentSize, blockSize } = this.#job;
    const log = new FaultLog(blockSize, (finding) => this.#found(current, finding));
    let position = current.start;
    let usable: boolean | undefined;
    const read = await readSegment(current.path, current.compression, segmentSize, (bytes) => {
      usable ??= this.#identify(current, bytes);
      if (!usable) return false;
      this.#feed(current, log, bytes, position);
      position = (position + BigInt(bytes.length)) as Lsn;
      if (current.role === 'own') this.#report.progress(bytes.length);
      return current.role !== 'follow' || !this.#enough();
    });
    const fault = this.#verifier?.fault;
    // Only zeros are waited for: their end, which did not come.
    if (fault) log.add(fault, this.#fileOf(fault.lsn, current));
    log.flush();
    if (read.end === 'stopped' && usable) return;
    if (fault || usable === false) this.#verifier = undefined;
    if (usable !== false) this.#checkRead(current, read);
    if (current.role === 'follow' && !this.#verifier) this.finished = true;
  }

  /** Feeds one chunk; behind a fault it goes on with the next page that promises to be one. */
  #feed(current: Current, log: FaultLog, bytes: Uint8Array, lsn: Lsn): void {
    const page = BigInt(this.#job.blockSize);
    const end = lsn + BigInt(bytes.length);
    let from = lsn as bigint;
    while (from < end && !log.full) {
      if (!this.#verifier) {
        const start = ((from + page - 1n) / page) * page;
        if (start >= end) return;
        this.#verifier = this.#startAt(start as Lsn);
        from = start;
      }
      const verifier = this.#verifier;
      const fault = verifier.feed(bytes, Number(from - lsn));
      if (!fault) return;
      const { nonZero } = verifier.end();
      if (fault.kind === 'zeros' && nonZero === undefined) return;
      log.add(fault, this.#fileOf(fault.lsn, current), nonZero);
      // The page that ends zeros may be a good one; the page of any other fault was looked at.
      const next = nonZero === undefined ? fault.lsn / page + 1n : nonZero / page;
      const past = fault.lsn / page;
      from = (next > past ? next : past + 1n) * page;
      if (from < lsn) from = lsn;
      this.#verifier = undefined;
      if (current.role === 'follow') this.finished = true;
    }
  }

  async #partial(current: Current, segment: JobSegment): Promise<void> {
    const { segmentSize, flushed } = this.#job;
    const check = new PartialCheck(
      current,
      segmentSize,
      current.timeline === this.#job.timeline ? flushed : undefined,
      () => {
        this.#verifier ??= this.#startAt(current.start);
        return this.#verifier;
      },
      (lsn) => this.#fileOf(lsn, current),
    );
    let usable: boolean | undefined;
    const read = await readSegment(current.path, current.compression, segmentSize, (bytes) => {
      usable ??= this.#identify(current, bytes);
      if (!usable) return false;
      check.feed(bytes);
      if (current.role === 'own') this.#report.progress(bytes.length);
      return true;
    });
    const whole = usable !== false && check.end(read.bytes) && read.bytes === segmentSize;
    for (const finding of check.findings) this.#found(current, finding);
    if (!whole) this.#verifier = undefined;
    if (current.role !== 'own' && !whole) this.finished = true;
    if (usable !== false && read.end === 'damaged') this.#checkRead(current, read);
    if (segment.partial !== 'inside') return;
    this.#found(
      current,
      whole
        ? {
            severity: 'warning',
            code: 'not-renamed',
            file: current.name,
            message: 'the segment is complete, but has the name of a partial one',
            hint: 'A running receiver renames it soon; otherwise remove ".partial" from its name.',
          }
        : {
            severity: 'error',
            code: 'partial-inside',
            file: current.name,
            lsn: check.validEnd,
            message: `WAL of this segment ends at ${formatLsn(check.validEnd)}, but goes on in the next one`,
            hint: 'Recovery ends here: put the complete segment in its place.',
          },
    );
  }

  /** `--quick`: the first header of the segment, and its size where that is cheap to know. */
  async #headerOnly(current: Current): Promise<void> {
    const { directory, segmentSize, blockSize } = this.#job;
    const log = new FaultLog(blockSize, (finding) => this.#found(current, finding));
    let header: Uint8Array = new Uint8Array(0);
    await readSegment(current.path, current.compression, segmentSize, (bytes) => {
      header = bytes.slice(0, blockSize + SHORT_PAGE_HEADER);
      return false;
    });
    this.#report.progress(segmentSize);
    const blank = current.partial && header.every((byte) => byte === 0);
    if (!blank) {
      if (!this.#identify(current, header)) return;
      const long = header.subarray(0, LONG_PAGE_HEADER);
      const fault = this.#startAt(current.start).feed(long);
      if (fault) log.add(fault, current.name);
      log.flush();
    }
    if (current.partial || (current.compression !== 'none' && current.compression !== 'gzip'))
      return;
    const file: SegmentFile = { ...current };
    const problem = await checkSegment(directory, file, segmentSize);
    if (problem !== undefined) this.#wrongSize(current, problem.replace(', skipping', ''));
  }

  /** False if the file is not what its name says, which is then reported. */
  #identify(current: Current, bytes: Uint8Array): boolean {
    const { systemId, segmentSize, blockSize } = this.#job;
    const header = parseLongHeader(bytes);
    if (!header) return true;
    if (systemId !== undefined && header.systemId !== systemId) {
      this.#found(current, {
        severity: 'error',
        code: 'foreign-cluster',
        file: current.name,
        lsn: current.start,
        message: `WAL of another cluster: system identifier ${header.systemId}, not ${systemId}`,
        hint: 'Move it to the archive of its own cluster, and put the right segment in its place.',
      });
      return false;
    }
    if (header.pageAddress === current.start) return true;
    // Where the second page is in its place, only the first header is damaged.
    const second = bytes.subarray(blockSize, blockSize + SHORT_PAGE_HEADER);
    const expected = current.start + BigInt(blockSize);
    if (second.length === SHORT_PAGE_HEADER && parsePageHeader(second).address === expected) {
      return true;
    }
    const { pageAddress, timeline } = header;
    const other = segmentFileName(timeline, segmentOf(pageAddress, segmentSize), segmentSize);
    this.#found(current, {
      severity: 'error',
      code: 'wrong-segment',
      file: current.name,
      lsn: current.start,
      message: `holds the WAL of segment ${other}, at ${formatLsn(pageAddress)}`,
      hint: 'It was renamed or copied over another one: put the right segment in its place.',
    });
    return false;
  }

  /** Reports what the file as a file is worth; breaks the chain where bytes are missing. */
  #checkRead(current: Current, read: SegmentRead): void {
    const { segmentSize } = this.#job;
    const file = current.name;
    if (read.bytes < segmentSize) this.#verifier = undefined;
    if (read.end === 'damaged' || read.end === 'cut') {
      const why = read.end === 'cut' ? 'the file ends early' : read.problem;
      this.#found(current, {
        severity: 'error',
        code: 'compression-damaged',
        file,
        lsn: (current.start + BigInt(read.bytes)) as Lsn,
        message: `could not decompress it beyond ${read.bytes} bytes: ${why}`,
        hint: 'Put a good copy of the file in its place.',
      });
    } else if (read.end === 'complete' && read.bytes !== segmentSize) {
      const size = read.bytes > segmentSize ? `more than ${segmentSize}` : `${read.bytes}`;
      this.#wrongSize(current, `holds ${size} bytes of WAL where a segment has ${segmentSize}`);
    }
    if (!read.trailingGarbage) return;
    this.#found(current, {
      severity: 'warning',
      code: 'trailing-garbage',
      file,
      message: 'something else follows the compressed segment in the file',
      hint: 'Compress the segment anew: some tools refuse such a file.',
    });
  }

  #wrongSize({ name: file, role }: Current, message: string): void {
    if (role === 'lead-in') return;
    const hint = 'Put a good copy of the file in its place.';
    this.#report.finding({ severity: 'error', code: 'wrong-size', file, message, hint });
  }

  async #duplicates(segment: JobSegment, current: Current): Promise<void> {
    for (const name of segment.files.slice(1)) {
      const finding = await compareCopies(
        this.#job.directory,
        current,
        name,
        this.#job.segmentSize,
      );
      if (finding) this.#found(current, finding);
    }
  }

  #unreadable(current: Current, error: unknown): void {
    if (!(error instanceof WalkeepError)) throw error;
    this.#verifier = undefined;
    if (current.role !== 'own') this.finished = true;
    const unsupported = error.code === 'WK_NOT_SUPPORTED';
    this.#found(current, {
      severity: unsupported ? 'warning' : 'error',
      code: unsupported ? 'not-checked' : 'unreadable',
      file: current.name,
      lsn: current.start,
      message: error.message,
      hint: unsupported
        ? 'Check it with a newer Node.js.'
        : 'What cannot be read now cannot be restored either.',
    });
  }

  /** Of a lead-in only what shows in what follows is this job's to tell. */
  #found(current: Current, finding: Finding): void {
    if (current.role !== 'lead-in') this.#report.finding(finding);
  }

  #fileOf(lsn: Lsn, current: Current): string {
    return this.#names.get(segmentOf(lsn, this.#job.segmentSize)) ?? current.name;
  }

  #startAt(startLsn: Lsn): WalVerifier {
    const { segmentSize, blockSize, systemId, magic, timeline, history } = this.#job;
    const owner = history ? { history } : { timeline };
    return new WalVerifier({ startLsn, segmentSize, blockSize, systemId, magic, ...owner });
  }

  /** True once the first record that begins behind the edge is complete. */
  #enough(): boolean {
    const end = this.#verifier?.validEnd ?? 0n;
    if (this.#reached !== undefined && end > this.#reached) this.finished = true;
    if (this.#reached === undefined && end > this.#edge) this.#reached = end;
    return this.finished;
  }
}
