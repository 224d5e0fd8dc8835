import { basename, join } from 'node:path';
import { decompressFile } from '../codec/codec.js';
import { StorageError } from '../errors.js';
import { storageError } from '../files/durable.js';
import { type FileSystem, OPEN_READ } from '../files/file-system.js';
import type { Lsn } from '../lsn.js';
import { segmentFileName, segmentOf, segmentStart, storedForms } from '../wal/file-name.js';
import {
  LONG_PAGE_HEADER,
  parsePageHeader,
  SHORT_PAGE_HEADER,
  XLP_FIRST_IS_CONTRECORD,
} from '../wal/page.js';
import { type TimelineHistory, timelineAt } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import type { WalOptions } from '../wal/walker.js';
import type { StoredFile } from './compare.js';
import type { StoredSegment } from './segment-source.js';

/** WAL from the start of a segment on, and what is known about it. */
export type SegmentWal = WalOptions & { history?: TimelineHistory | undefined };

/** What the segments before a segment are worth to one who checks that segment. */
export type LeadIn =
  /** The verifier stands at the start of the segment and knows the record that goes on there. */
  | { state: 'sound'; verifier: WalVerifier }
  /** Not all of them are there. */
  | { state: 'absent' }
  /** A file that is there does not serve. */
  | { state: 'unsound'; path: string; why: string };

/** A file to be read through the file system, or a segment in a store. */
type Candidate = StoredFile & Partial<Pick<StoredSegment, 'inStore' | 'read'>>;

/** The complete files that a segment of that name may be read from, best first. */
export type Candidates = (name: string) => readonly Candidate[] | Promise<readonly Candidate[]>;

/** Looks for files that are gone again when they are to be read. */
const MOST_LOOKS = 20;

/**
 * Leads a verifier into a segment: feeds it what is stored before, from where the record begins that
 * goes on there. The checksum of a record can only be checked at its end; without this the part of
 * a record before a segment would never be checked, nor the rest of it in the segment.
 * @param whole check all of the segment in which the record begins, rather than its tail
 * @throws StorageError if one of them cannot be read
 */
export async function leadIn(
  wal: SegmentWal,
  candidates: Candidates,
  fs: FileSystem,
  { whole = false } = {},
): Promise<LeadIn> {
  for (let looks = 1; ; looks++) {
    const found = await lookBefore(wal, candidates, fs, whole);
    if (found.state !== 'gone') return found;
    // Renamed since: to be found under its new name.
    if (looks === MOST_LOOKS) return { ...found, state: 'unsound' };
  }
}

/** Why a file does not serve; or it is not there any more. */
type Refusal = Extract<LeadIn, { state: 'unsound' }> | { state: 'gone'; path: string; why: string };

async function lookBefore(
  wal: SegmentWal,
  candidates: Candidates,
  fs: FileSystem,
  whole: boolean,
): Promise<LeadIn | Refusal> {
  const { startLsn, segmentSize } = wal;
  const files: Candidate[] = [];
  for (let n = segmentOf(startLsn, segmentSize) - 1n; n > 0n; n -= 1n) {
    const found = await firstUsable(wal, n, candidates, fs);
    if (found.state !== 'usable') return found;
    files.unshift(found.file);
    // All of it belongs to a record that began further back: not worth reading.
    if (continuedBytes(found.head) > roomOf(found.head, segmentSize)) continue;
    const seek = !whole && found.file.compression === 'none' && !found.file.inStore;
    const from = seek ? await lastRecordPage(found.file.path, n, found.head, wal, fs) : 0;
    if (typeof from === 'object') return from;
    const begin = (segmentStart(n, segmentSize) + BigInt(from)) as Lsn;
    const verifier = new WalVerifier({ ...wal, startLsn: begin });
    for (const [i, file] of files.entries()) {
      const end = segmentStart(n + BigInt(i) + 1n, segmentSize);
      const feed = (chunk: Uint8Array): void => void verifier.feed(chunk);
      const refused = await read(file, segmentSize, feed, fs, i === 0 ? from : 0);
      if (refused) return { ...refused, path: file.path };
      if (!verifier.fault && verifier.position === end) continue;
      const why = verifier.fault?.message ?? 'it ends too early';
      return { state: 'unsound', path: file.path, why };
    }
    if (!verifier.isSkipping) return { state: 'sound', verifier };
  }
  return { state: 'absent' };
}

/** The first file of a segment that begins as it; otherwise why the first one of all does not. */
async function firstUsable(
  wal: SegmentWal,
  segment: bigint,
  candidates: Candidates,
  fs: FileSystem,
): Promise<{ state: 'usable'; file: Candidate; head: Uint8Array } | { state: 'absent' } | Refusal> {
  const startLsn = segmentStart(segment, wal.segmentSize);
  const name = nameOnLineage(wal, segment);
  let first: Refusal | undefined;
  for (const file of name === undefined ? [] : await candidates(name)) {
    const head = await headOf(file, fs);
    let refused: Omit<Refusal, 'path'> | undefined;
    if (!(head instanceof Uint8Array)) refused = head;
    else if (head.length < LONG_PAGE_HEADER)
      refused = { state: 'unsound', why: 'it ends too early' };
    else {
      const fault = new WalVerifier({ ...wal, startLsn }).feed(head);
      if (!fault) return { state: 'usable', file, head };
      refused = { state: 'unsound', why: fault.message };
    }
    first ??= { ...refused, path: file.path };
  }
  return first ?? { state: 'absent' };
}

/** The name of a segment, of the timeline that it ends on. */
function nameOnLineage(
  { history, timeline, segmentSize }: SegmentWal,
  segment: bigint,
): string | undefined {
  const last = segmentStart(segment + 1n, segmentSize) - 1n;
  const owner = history ? timelineAt(history, last) : timeline;
  return owner === undefined ? undefined : segmentFileName(owner, segment, segmentSize);
}

/** Bytes of a record from before with which a page goes on; 0 if it begins with none. */
function continuedBytes(header: Uint8Array): number {
  const { info, remaining } = parsePageHeader(header);
  return info & XLP_FIRST_IS_CONTRECORD ? remaining : 0;
}

/** Bytes of a record that fill a segment. */
function roomOf(head: Uint8Array, segmentSize: number): number {
  const pages = segmentSize / blockSizeOf(head);
  return segmentSize - LONG_PAGE_HEADER - (pages - 1) * SHORT_PAGE_HEADER;
}

/** Of a first page that was found good. */
function blockSizeOf(head: Uint8Array): number {
  return parsePageHeader(head).long!.blockSize;
}

/**
 * Offset of the page on which the last record of a segment begins: the last one that is not
 * filled by the rest of a record alone.
 */
async function lastRecordPage(
  path: string,
  segment: bigint,
  head: Uint8Array,
  { segmentSize }: SegmentWal,
  fs: FileSystem,
): Promise<number | Refusal> {
  const start = segmentStart(segment, segmentSize);
  const blockSize = blockSizeOf(head);
  const header = new Uint8Array(SHORT_PAGE_HEADER);
  let found: number | undefined;
  const look = async (fd: number): Promise<void> => {
    let at = segmentSize - blockSize;
    for (; at > 0; at -= blockSize) {
      if ((await fs.read(fd, header, header.length, at)) < header.length) return;
      if (parsePageHeader(header).address !== start + BigInt(at)) return;
      if (continuedBytes(header) <= blockSize - SHORT_PAGE_HEADER) break;
    }
    found = at;
  };
  const refused = await attempt(path, () => withPlain(path, fs, look));
  if (refused) return { ...refused, path };
  return found ?? { state: 'unsound', path, why: 'it ends too early' };
}

/**
 * The first bytes of a segment, enough for a long page header unless it is shorter. Undefined if it
 * is nothing that can be read. @throws StorageError if reading fails
 */
export async function readHead(file: StoredFile, fs: FileSystem): Promise<Uint8Array | undefined> {
  const head = await headOf(file, fs);
  return head instanceof Uint8Array ? head : undefined;
}

async function headOf(
  file: Candidate,
  fs: FileSystem,
): Promise<Uint8Array | Omit<Refusal, 'path'>> {
  const pieces: Uint8Array[] = [];
  const keep = (chunk: Uint8Array): void => void pieces.push(Uint8Array.from(chunk));
  return (await read(file, LONG_PAGE_HEADER, keep, fs)) ?? Buffer.concat(pieces);
}

/** What is no file of ours to read. An error of the disk is another matter: it must not pass as this. */
const NOT_OURS = ['EISDIR', 'ELOOP', 'ENOENT', 'ESPIPE', 'EACCES', 'EPERM'];

/** Undefined if a call on a file could be made; what to think of the file otherwise. */
async function attempt(
  path: string,
  call: () => Promise<unknown>,
): Promise<Omit<Refusal, 'path'> | undefined> {
  try {
    await call();
    return undefined;
  } catch (e) {
    const { code } = (e instanceof StorageError ? e.cause : e) as NodeJS.ErrnoException;
    if (code === undefined) throw e;
    const error = storageError('read file', path, e);
    if (!NOT_OURS.includes(code)) throw error;
    return { state: code === 'ENOENT' ? 'gone' : 'unsound', why: error.message };
  }
}

function read(
  file: Candidate,
  limit: number,
  feed: (chunk: Uint8Array) => void,
  fs: FileSystem,
  from = 0,
): Promise<Omit<Refusal, 'path'> | undefined> {
  const { path, compression, inStore } = file;
  return attempt(path, async () => {
    if (inStore) {
      return file.read?.(limit, (chunk) => {
        feed(chunk);
        return true;
      });
    }
    if (compression === 'none') return readPlain(path, from, limit, feed, fs);
    return decompressFile(path, compression, feed, { limit, fs });
  });
}

const STEP = 256 * 1024;

function readPlain(
  path: string,
  from: number,
  limit: number,
  feed: (chunk: Uint8Array) => void,
  fs: FileSystem,
): Promise<void> {
  return withPlain(path, fs, async (fd) => {
    const buffer = Buffer.allocUnsafe(Math.min(STEP, limit - from));
    for (let at = from; at < limit; ) {
      const n = await fs.read(fd, buffer, Math.min(buffer.length, limit - at), at);
      if (n === 0) return;
      feed(buffer.subarray(0, n));
      at += n;
    }
  });
}

async function withPlain(
  path: string,
  fs: FileSystem,
  use: (fd: number) => Promise<void>,
): Promise<void> {
  const fd = await fs.open(path, OPEN_READ, 0).catch((e) => {
    throw storageError('open file', path, e);
  });
  try {
    await use(fd);
  } finally {
    await fs.close(fd);
  }
}

/**
 * Reads stored WAL from its beginning. Gives why if it is nothing that can be read.
 * @throws StorageError if reading fails
 */
export async function readStored(
  file: StoredFile,
  limit: number,
  feed: (chunk: Uint8Array) => void,
  fs: FileSystem,
): Promise<string | undefined> {
  return (await read(file, limit, feed, fs))?.why;
}

/** True if a segment begins with the rest of a record; false if it does not, or nothing tells. */
export async function beginsInRecord(file: StoredFile, fs: FileSystem): Promise<boolean> {
  const head = await readHead(file, fs);
  return head !== undefined && head.length >= LONG_PAGE_HEADER && continuedBytes(head) > 0;
}

/**
 * A verifier that was led into a segment by what a receiver's own directory holds. Without this,
 * damage before a segment's end would stay in a complete file for ever if the connection was lost
 * between it and the end of its record.
 *
 * Undefined if those segments are not all here and sound: then the rest of that record is skipped.
 * @param onRefusal told of a file that is here and does not serve, and why
 * @throws StorageError if one of them cannot be read
 */
export async function anchoredVerifier(
  directory: string,
  wal: SegmentWal,
  fs: FileSystem,
  onRefusal: (name: string, why: string) => void = () => {},
): Promise<WalVerifier | undefined> {
  const found = await leadIn(wal, (name) => completeFiles(directory, name, fs), fs, {
    whole: true,
  });
  if (found.state === 'unsound') onRefusal(basename(found.path), found.why);
  return found.state === 'sound' ? found.verifier : undefined;
}

/** The complete file of a segment on the lineage, in whatever form. */
export function findComplete(
  directory: string,
  wal: SegmentWal,
  segment: bigint,
  fs: FileSystem,
): StoredFile | undefined {
  const name = nameOnLineage(wal, segment);
  return name === undefined ? undefined : completeFiles(directory, name, fs)[0];
}

function completeFiles(directory: string, name: string, fs: FileSystem): StoredFile[] {
  const files = storedForms(name, false).map((form) => {
    return { path: join(directory, form.name), compression: form.compression };
  });
  return files.filter(({ path }) => fs.sizeSync(path) !== undefined);
}
