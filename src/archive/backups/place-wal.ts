import { lstat, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CorruptWalError, EncryptedError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import { parseSegmentFileName, parseStoredName } from '../../wal/file-name.js';
import type { TimelineHistory } from '../../wal/timeline.js';
import type { Archive } from '../archive.js';
import { sampleIdentity } from '../identity.js';
import { GROUP, JOINED } from '../index/format.js';
import type { LedgerState } from '../ledger-entry.js';
import { nameOf } from '../places/store-archive.js';
import type { BackupArea } from './area.js';
import { INDEX, JOINED_SUFFIX } from './keys.js';
import type { StoredWalSegment } from './ways.js';

/** `link`: a name in a directory that leads to it, or should; no object, and all that is removed. */
export interface PlacedFile {
  key: string;
  size: number;
  link?: true;
}

/** A segment with all objects or files that hold it. */
export interface PlacedSegment extends StoredWalSegment {
  /** Its 24 digits. */
  base: string;
  files: PlacedFile[];
  /** No file of it is complete. */
  open: boolean;
}

/** The WAL of one cluster in a place, by names and times alone. */
export interface PlaceWal {
  systemId: bigint | undefined;
  /** Bytes. */
  segmentSize: number;
  segments: PlacedSegment[];
  histories: (TimelineHistory & { stored: Date })[];
  /** Timelines whose history is here and cannot be read, with why. */
  unread: { timeline: number; why: string }[];
  /** Objects of the index of targets, with the first segment that each is of, and how many. */
  index: { key: string; base: string; segments: number; size: number }[];
  ledger: LedgerState | undefined;
}

const INDEXED = new RegExp(`^${INDEX}[0-9A-F]{8}/([0-9A-F]{24})(\\${JOINED_SUFFIX})?$`);

/**
 * One LIST, and a GET for each history.
 * @param segmentSize of the backups, where there are any
 * @throws StorageError, StoreUncertainError, StoreAccessError
 */
export async function readPlaceWal(
  area: BackupArea,
  archive: Archive,
  { segmentSize, signal }: { segmentSize?: number | undefined; signal?: AbortSignal | undefined },
): Promise<PlaceWal> {
  // Before the listing: what it has as stored is then in it.
  const ledger = await archive.ledger();
  const { store, prefix } = area;
  const entries: (PlacedFile & { name: string; modified: Date })[] = [];
  const index: PlaceWal['index'] = [];
  for await (const { key, size, modified } of store.list(prefix, { signal })) {
    const inner = key.slice(prefix.length);
    const name = archive.isDirectory ? inner : nameOf(inner);
    if (name !== undefined && !name.includes('/')) entries.push({ name, key, size, modified });
    const [, base, joined] = INDEXED.exec(inner) ?? [];
    const segments = joined === undefined ? GROUP : GROUP * JOINED;
    if (base !== undefined) index.push({ key, base, segments, size });
  }
  if (archive.isDirectory) entries.push(...(await linksIn(archive)));
  const cluster = ledger ?? (await archive.cluster());
  const names = entries.map((one) => one.name).filter((name) => isSegment(name));
  const sample =
    cluster?.systemId === undefined || (cluster.segmentSize ?? segmentSize) === undefined
      ? await sampleIdentity(archive, names, cluster?.systemId)
      : undefined;
  const size = cluster?.segmentSize ?? segmentSize ?? sample?.segmentSize ?? 16 << 20;
  const found = new Map<string, PlacedSegment>();
  const histories: PlaceWal['histories'] = [];
  const unread: PlaceWal['unread'] = [];
  for (const { name, modified, ...file } of entries) {
    const stored = parseStoredName(name);
    if (stored?.kind === 'history') {
      const read = await historyOf(archive, stored.timeline);
      if (typeof read === 'string') unread.push({ timeline: stored.timeline, why: read });
      else if (read) histories.push({ ...read, stored: modified });
    }
    const parsed = parseSegmentFileName(name, size);
    if (!parsed || parsed.timeline === 0) continue;
    const { timeline, segment, partial } = parsed;
    const base = name.slice(0, 24);
    const one = found.get(base) ?? {
      ...{ timeline, segment, base, stored: modified, open: true, files: [] },
    };
    found.set(base, one);
    one.files.push(file);
    if (modified > one.stored) one.stored = modified;
    if (!partial) one.open = false;
  }
  return {
    systemId: cluster?.systemId ?? sample?.systemId,
    ...{ segmentSize: size, segments: [...found.values()], histories, unread, index, ledger },
  };
}

/** What is no object of the directory as a store: WAL that lies elsewhere, or did. */
async function linksIn(
  archive: Archive,
): Promise<(PlacedFile & { name: string; modified: Date })[]> {
  const names = (await archive.list())
    .filter(({ kind, linked }) => linked || kind === 'link')
    .map(({ name }) => name)
    .filter((name) => parseStoredName(name) !== undefined);
  return Promise.all(
    names.map(async (name) => {
      const path = join(archive.place, name);
      // A disk that is not mounted says nothing of a file's time; the link's is not before it.
      const { size, mtime } = await stat(path)
        .catch(() => lstat(path))
        .catch((e) => {
          throw storageError('look at', path, e);
        });
      return { name, key: name, size, modified: mtime, link: true as const };
    }),
  );
}

function isSegment(name: string): boolean {
  return parseStoredName(name)?.kind === 'segment';
}

/** Undefined if it has gone; a text that says why it cannot be read. */
async function historyOf(
  archive: Archive,
  timeline: number,
): Promise<TimelineHistory | string | undefined> {
  try {
    const stored = await archive.history(timeline);
    if (stored.state === 'absent') return undefined;
    return stored.state === 'good' ? stored.history : stored.problem.message;
  } catch (e) {
    if (e instanceof EncryptedError || e instanceof CorruptWalError) return e.message;
    throw e;
  }
}
