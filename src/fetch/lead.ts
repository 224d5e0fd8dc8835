import fs from 'node:fs';
import { join } from 'node:path';
import { onArchive } from '../archive/access.js';
import type { Lsn } from '../lsn.js';
import { segmentFileName, segmentStart } from '../wal/file-name.js';
import { type LongHeader, parseLongHeader } from '../wal/long-header.js';
import {
  LONG_PAGE_HEADER,
  parsePageHeader,
  SHORT_PAGE_HEADER,
  XLP_FIRST_IS_CONTRECORD,
} from '../wal/page.js';
import { type TimelineHistory, timelineAt } from '../wal/timeline.js';
import { WalVerifier } from '../wal/verifier.js';
import { readHead, readSource } from './source.js';
import { findSources, type Source } from './stage.js';

/** A segment as its name and first page tell it. */
export interface SegmentIdentity {
  /** Timeline in the file name. */
  timeline: number;
  history: TimelineHistory | undefined;
  segment: bigint;
  /** Bytes. */
  segmentSize: number;
  /** XLOG_BLCKSZ, bytes. */
  blockSize: number;
  systemId: bigint;
}

/**
 * Where the segment before is looked for. `near`: also as plain file beside the target, where
 * PostgreSQL keeps what it restored last, before a compressed file of the archive.
 */
export interface LeadPlaces {
  archive: string | undefined;
  near: readonly string[];
}

/**
 * A verifier that has seen the tail of the segment before, from the page where its last record
 * begins, if a record goes on from there into this one. Without that segment, or if its tail is
 * bad, it starts afresh and leaves the rest of that record unchecked.
 * @param continues the first page of the segment says that it begins with the rest of a record
 */
export async function leadInto(
  id: SegmentIdentity,
  continues: boolean,
  places: LeadPlaces,
): Promise<WalVerifier> {
  const { timeline, history, segmentSize, systemId } = id;
  const create = (startLsn: Lsn) =>
    new WalVerifier({
      startLsn,
      segmentSize,
      systemId,
      blockSize: id.blockSize,
      ...(history ? { history } : { timeline }),
    });
  const start = segmentStart(id.segment, segmentSize);
  const chain = continues ? await findChain(id, places) : undefined;
  if (chain) {
    const verifier = create((segmentStart(chain.first, segmentSize) + BigInt(chain.offset)) as Lsn);
    for (const [i, source] of chain.sources.entries()) {
      const from = i === 0 ? chain.offset : 0;
      await readSource(source, segmentSize, (bytes) => verifier.feed(bytes), from);
    }
    if (!verifier.fault && verifier.position === start) return verifier;
    if (chain.near) return leadInto(id, continues, { ...places, near: [] });
    if (places.near.length > 0) return leadInto(id, continues, { ...places, archive: undefined });
  }
  return create(start);
}

interface Chain {
  sources: Source[];
  /** Number of the first of them. */
  first: bigint;
  /** Bytes into it at which to begin. */
  offset: number;
  near: boolean;
}

/** The segments before, back to the one in which the record that leads into ours begins. */
async function findChain(id: SegmentIdentity, places: LeadPlaces): Promise<Chain | undefined> {
  const pages = id.segmentSize / id.blockSize;
  /** Bytes of a record that fill a segment. */
  const room = id.segmentSize - LONG_PAGE_HEADER - (pages - 1) * SHORT_PAGE_HEADER;
  const sources: Source[] = [];
  let near = false;
  for (let segment = id.segment - 1n; segment > 0n; segment--) {
    const found = await previous(id, segment, places);
    if (!found) return undefined;
    sources.unshift(found.source);
    near ||= found.near;
    if (continued(found.head) > room) continue;
    const { compression, path } = found.source;
    const offset = compression === 'none' ? lastRecordPage(path, segment, id) : 0;
    return offset === undefined ? undefined : { sources, first: segment, offset, near };
  }
  return undefined;
}

/** The complete file of a segment before ours, on whatever timeline it is then. */
async function previous(
  id: SegmentIdentity,
  segment: bigint,
  { archive, near }: LeadPlaces,
): Promise<{ source: Source; head: Uint8Array; near: boolean } | undefined> {
  const { history, segmentSize } = id;
  const last = segmentStart(segment + 1n, segmentSize) - 1n;
  const timeline = history ? timelineAt(history, last) : id.timeline;
  const name = segmentFileName(timeline, segment, segmentSize);
  const stored = archive === undefined ? [] : findSources(archive, name, false);
  const plain = (source: Source) => source.compression === 'none' && source.size === segmentSize;
  const candidates = [
    ...stored.filter(plain).map((source) => ({ source, near: false })),
    ...near
      .flatMap((dir) => nearFile(join(dir, name), segmentSize))
      .map((source) => ({ source, near: true })),
    ...stored.filter((s) => s.compression !== 'none').map((source) => ({ source, near: false })),
  ];
  for (const candidate of candidates) {
    const head = await readHead(candidate.source).catch(() => undefined);
    const header = head && parseLongHeader(head);
    if (header && isSegment(header, segment, id)) return { ...candidate, head };
  }
  return undefined;
}

function nearFile(path: string, segmentSize: number): Source[] {
  try {
    const size = fs.statSync(path, { throwIfNoEntry: false })?.size;
    return size === segmentSize ? [{ path, compression: 'none', size }] : [];
  } catch {
    return [];
  }
}

/** True if a first page is that of a segment of the same cluster. */
export function isSegment(header: LongHeader, segment: bigint, id: SegmentIdentity): boolean {
  return (
    header.pageAddress === segmentStart(segment, id.segmentSize) &&
    header.segmentSize === id.segmentSize &&
    header.systemId === id.systemId
  );
}

/** Bytes of a record that go on on this page and behind it; 0 if none does. */
function continued(header: Uint8Array): number {
  const { info, remaining } = parsePageHeader(header);
  return (info & XLP_FIRST_IS_CONTRECORD) === 0 ? 0 : remaining;
}

/**
 * Offset of the page on which the last record of a segment begins: the last one that is not
 * filled by the rest of a record alone. Undefined if a page on the way is none.
 */
function lastRecordPage(path: string, segment: bigint, id: SegmentIdentity): number | undefined {
  const { segmentSize, blockSize } = id;
  const header = new Uint8Array(SHORT_PAGE_HEADER);
  const fd = onArchive('open file', path, () => fs.openSync(path, 'r'));
  try {
    for (let at = segmentSize - blockSize; at > 0; at -= blockSize) {
      if (fs.readSync(fd, header, 0, header.length, at) < header.length) return undefined;
      const { address } = parsePageHeader(header);
      if (address !== segmentStart(segment, segmentSize) + BigInt(at)) return undefined;
      if (continued(header) <= blockSize - SHORT_PAGE_HEADER) return at;
    }
    return 0;
  } finally {
    fs.closeSync(fd);
  }
}
