import { isGone } from '../archive/access.js';
import type { Archive } from '../archive/archive.js';
import type { Finding } from '../archive/findings.js';
import { PartialCheck } from '../archive/partial-check.js';
import type { SegmentRead, TakeBytes } from '../archive/segment-reader.js';
import { WalkeepError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import { parseSegmentFileName, segmentOf, segmentStart } from '../wal/file-name.js';
import type { WalVerifier } from '../wal/verifier.js';
import { copyFinding } from './copies.js';
import { FaultLog } from './fault-log.js';
import {
  type CheckedFile,
  checkHeaderOnly,
  mistakenIdentity,
  verifierFrom,
  wrongSize,
} from './header.js';
import type { JobSegment, VerifyJob } from './plan.js';

/** Where a job tells what it finds and how far it is. */
export interface JobReport {
  finding(finding: Finding): void;
  /** So many bytes of the job's own segments were checked, decompressed. */
  progress(bytes: number): void;
  /** Nothing is left of one of the job's own segments: since it was listed it was moved away. */
  vanished(): void;
}

/** A segment while it is being checked. */
interface Current extends CheckedFile {
  role: 'own' | 'follow' | 'lead-in';
}

/** How a job is run. */
export interface RunOptions {
  /** Runs behind each segment. */
  between?: () => Promise<void>;
  /** See `readSegment`. */
  readAhead?: boolean;
}

/** Checks the segments of a job as one stream. @throws nothing that a file is to blame for */
export async function runJob(
  job: VerifyJob,
  archive: Archive,
  report: JobReport,
  options: RunOptions = {},
): Promise<void> {
  const { between, readAhead = false } = options;
  const check = new StreamCheck(job, archive, report, readAhead);
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
  readonly #archive: Archive;
  readonly #report: JobReport;
  readonly #readAhead: boolean;
  /** Runs on from segment to segment; undefined where the chain is broken. */
  #verifier: WalVerifier | undefined;
  /** Names of the files that were read, by segment. */
  readonly #names = new Map<bigint, string>();
  /** Start of the first following segment, and the end of the first record that reaches into it. */
  readonly #edge: bigint;
  #reached: bigint | undefined;

  constructor(job: VerifyJob, archive: Archive, report: JobReport, readAhead: boolean) {
    this.#job = job;
    this.#archive = archive;
    this.#readAhead = readAhead;
    this.#report = report;
    this.#edge = segmentStart(job.segments.at(-1)!.segment + 1n, job.segmentSize);
  }

  async segment(segment: JobSegment, role: Current['role']): Promise<void> {
    const { segmentSize } = this.#job;
    const [first = '', ...others] = segment.files;
    const start = segmentStart(segment.segment, segmentSize);
    let current: Current | undefined;
    try {
      await this.#archive.segment(first, async (file) => {
        const { name } = file;
        current = { ...parseSegmentFileName(name, segmentSize)!, name, file, start, role };
        this.#names.set(segment.segment, file.name);
        if (this.#job.quick) await this.#headerOnly(current);
        else if (current.partial) await this.#partial(current, segment);
        else await this.#complete(current);
      });
      if (role === 'own' && !this.#job.quick) await this.#duplicates(current!, others);
    } catch (e) {
      if (isGone(e)) this.#vanished(role);
      else this.#unreadable(current!, e);
    }
  }

  async #complete(current: Current): Promise<void> {
    const { blockSize } = this.#job;
    const log = new FaultLog(blockSize, (finding) => this.#found(current, finding));
    let position = current.start;
    let usable: boolean | undefined;
    const read = await this.#read(current, (bytes) => {
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

  #read({ file }: Current, take: TakeBytes): Promise<SegmentRead> {
    const { segmentSize, quick } = this.#job;
    const options = { readAhead: this.#readAhead && !quick };
    return file.read(segmentSize, take, options);
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
    // Behind it a receiver may be writing: what is read there belongs to no one moment.
    const plain = current.compression === 'none';
    let content = plain ? await current.file.contentEnd() : Number.POSITIVE_INFINITY;
    const read = await this.#read(current, (bytes) => {
      usable ??= this.#identify(current, bytes);
      if (!usable) return false;
      check.feed(bytes.subarray(0, Math.max(0, content)));
      content -= bytes.length;
      if (current.role === 'own') this.#report.progress(bytes.length);
      return true;
    });
    const whole = usable !== false && check.end(read.bytes) && read.bytes === segmentSize;
    for (const finding of check.findings) this.#found(current, finding);
    if (!whole) this.#verifier = undefined;
    if (current.role !== 'own' && !whole) this.finished = true;
    if (usable !== false && read.end === 'damaged') this.#checkRead(current, read);
    const { fork } = segment;
    if (segment.partial !== 'inside' || (fork !== undefined && check.validEnd >= fork)) return;
    const goesOn =
      fork === undefined
        ? 'goes on in the next one'
        : `up to ${formatLsn(fork)} a timeline needs it`;
    if (whole) return this.#notRenamed(current, segment);
    this.#found(current, {
      severity: 'error',
      code: 'partial-inside',
      file: current.name,
      lsn: check.validEnd,
      message: `WAL of this segment ends at ${formatLsn(check.validEnd)}, but ${goesOn}`,
      hint: 'Recovery ends here: put the complete segment in its place.',
    });
  }

  /**
   * A receiver gives names in order, and takes its time where it compresses: what it is at work on
   * is as it should be. One that ended has left it so.
   */
  async #notRenamed(current: Current, { queued }: JobSegment): Promise<void> {
    const archive = this.#archive;
    // Before the look at the name: a receiver may finish it and end in between.
    const state = (await archive.receiver())?.state;
    const named = (await archive.completeName(current.name)) !== undefined;
    if (named || !(await archive.has(current.name)) || (queued && state === 'alive')) return;
    const unknown = queued && state === 'elsewhere';
    this.#found(current, {
      severity: unknown ? 'info' : 'warning',
      code: 'not-renamed',
      file: current.name,
      message: 'the segment is complete, but has the name of a partial one',
      hint: unknown
        ? 'A receiver on another machine renames it soon, if it still runs.'
        : 'Start the receiver, or remove ".partial" from its name.',
    });
  }

  async #headerOnly(current: Current): Promise<void> {
    await checkHeaderOnly(
      this.#job,
      current,
      (take) => this.#read(current, take),
      (finding) => this.#found(current, finding),
    );
    if (current.role === 'own') this.#report.progress(this.#job.segmentSize);
  }

  /** False if the file is not what its name says, which is then reported. */
  #identify(current: Current, bytes: Uint8Array): boolean {
    const finding = mistakenIdentity(this.#job, current, bytes);
    if (finding) this.#found(current, finding);
    return finding === undefined;
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
      const message = `holds ${size} bytes of WAL where a segment has ${segmentSize}`;
      this.#found(current, wrongSize(file, message));
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

  async #duplicates(current: Current, others: readonly string[]): Promise<void> {
    const { segmentSize } = this.#job;
    for (const other of others) {
      const finding = await this.#archive.segment(current.name, (file) =>
        copyFinding(this.#archive, { ...current, file }, other, segmentSize),
      );
      if (finding) this.#found(current, finding);
    }
  }

  #vanished(role: Current['role']): void {
    this.#verifier = undefined;
    if (role === 'own') this.#report.vanished();
    else this.finished = true;
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
        ? 'Check it on another kind of machine.'
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
    return verifierFrom(this.#job, startLsn);
  }

  /** True once the first record that begins behind the edge is complete. */
  #enough(): boolean {
    const end = this.#verifier?.validEnd ?? 0n;
    if (this.#reached !== undefined && end > this.#reached) this.finished = true;
    if (this.#reached === undefined && end > this.#edge) this.#reached = end;
    return this.finished;
  }
}
