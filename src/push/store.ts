import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { inspectWal } from '../archive/good-wal.js';
import { sampleIdentity } from '../archive/identity.js';
import { sortOut } from '../archive/listing.js';
import { openDirectory } from '../archive/places/directory-archive.js';
import { StoreArchive } from '../archive/places/store-archive.js';
import { segmentAt } from '../archive/segment-source.js';
import {
  type CheckedWal,
  canonicalDigest,
  partialSegment,
  readChecked,
  wholeSegment,
} from '../archive/shipping/checked-segment.js';
import { objectCodec } from '../archive/shipping/object-codec.js';
import { StoreArchiveWriter, type StoreResult } from '../archive/store-archive-writer.js';
import { asideKey, partialKey } from '../archive/store-keys.js';
import {
  CorruptWalError,
  EncryptedError,
  RewriteError,
  StorageError,
  StoreConflictError,
} from '../errors.js';
import { storageError } from '../files/durable.js';
import { openStore } from '../store/open.js';
import type { ObjectStore } from '../store/store.js';
import { type SegmentName, type StoredName, segmentStart } from '../wal/file-name.js';
import { judgeHistory } from '../wal/history-file.js';
import { WalComparison } from '../wal/same-wal.js';
import type { PushOptions } from './options.js';
import type { PushSource } from './place.js';
import type { PushResult } from './result.js';
import { checkFirstPage, requireSegment, timelineEnds } from './source.js';

/** Milliseconds for a store to answer: PostgreSQL waits, and asks again. */
const PATIENCE = 60_000;

/** What is known of the cluster whose file is pushed. */
interface Cluster {
  systemId: bigint;
  segmentSize: number;
}

/**
 * Stores one file in an archive in a store, under the keys that `ship` gives: both may store the
 * same there.
 * @throws StoreConflictError if something else stands there; what was pushed is kept aside then
 */
export async function pushIntoStore(
  place: string,
  source: PushSource,
  named: StoredName,
  options: PushOptions,
): Promise<PushResult> {
  const codec = await objectCodec(options.compression, options.recipients, 'push');
  const { unfenced, newSystem } = options;
  const store = await openStore(place, { unfenced, patience: { whole: PATIENCE } });
  const writerFor = (cluster: Cluster) =>
    StoreArchiveWriter.open(store, {
      ...cluster,
      codec,
      writer: randomUUID(),
      unfenced,
      newSystem,
    });
  try {
    if (named.kind === 'segment') {
      return await pushSegment(source, store, writerFor, options.verify ?? true);
    }
    return await pushText(source, named, store, writerFor);
  } finally {
    await store.close();
  }
}

type WriterFor = (cluster: Cluster) => Promise<StoreArchiveWriter>;

async function pushSegment(
  source: PushSource,
  store: ObjectStore,
  writerFor: WriterFor,
  verify: boolean,
): Promise<PushResult> {
  const segment = requireSegment(source);
  const { systemId } = await checkFirstPage(source, segment, undefined, []);
  const archive = new StoreArchive(store, systemId);
  const places = [openDirectory(dirname(source.path)), archive];
  const known = await checkFirstPage(source, segment, systemId, places);
  const { whole, wal } = await load(source, segment, known, verify);
  const writer = await writerFor({ systemId, segmentSize: source.size });
  if (whole) {
    await comparePartials(source, segment, archive, wal);
    return resultOf(await writer.putSegment(wal));
  }
  try {
    return resultOf(await writer.putPartial(wal));
  } catch (e) {
    // A refusal would stop the archiver of a new primary for good; it is kept, and told.
    if (!(e instanceof StoreConflictError)) throw e;
    const key = partialKey(systemId, wal.name, wal.end);
    return { outcome: 'aside', name: asideKey(systemId, key, wal.digest) };
  }
}

/** Reads and checks all of it. @throws CorruptWalError, StorageError for what is not to be stored */
async function load(
  { path, name: file, size }: PushSource,
  segment: SegmentName,
  known: Awaited<ReturnType<typeof checkFirstPage>>,
  verify: boolean,
): Promise<{ whole: boolean; wal: CheckedWal }> {
  const expected = { ...known, segmentSize: size };
  const content = await readChecked(
    segmentAt(path, 'none'),
    segment,
    expected,
    Buffer.allocUnsafeSlow(size),
  );
  if (content.bytes.length !== size) throw new StorageError(`"${path}" became shorter`, { path });
  const name = file.slice(0, 24);
  const { timeline } = segment;
  const { bytes, walEnd } = content;
  if (!segment.partial && !verify) {
    const start = segmentStart(segment.segment, size);
    const end = segmentStart(segment.segment + 1n, size);
    const digest = canonicalDigest(content);
    return { whole: true, wal: { name, timeline, start, end, bytes, ...digest } };
  }
  const cut = walEnd.fault && walEnd.kind === 'zeros';
  if (!segment.partial && !cut) {
    const own = openDirectory(dirname(path));
    const forks = walEnd.fault ? await timelineEnds(timeline, [own]) : [];
    const wal = wholeSegment(content, segment, { name, path, segmentSize: size }, forks);
    if (wal) return { whole: true, wal };
  }
  const wal = partialSegment(content, segment, name, size);
  if (!wal) throw new CorruptWalError(`"${path}" holds no WAL`, { path });
  return { whole: false, wal };
}

/** What was stored of it before it was whole may have been acknowledged: it must go on in it. */
async function comparePartials(
  { path, size }: PushSource,
  segment: SegmentName,
  archive: StoreArchive,
  { name, start, bytes }: CheckedWal,
): Promise<void> {
  for (const stored of await archive.stored(name, true)) {
    const pieces: Uint8Array[] = [];
    let good: number;
    try {
      good = (await inspectWal(stored, segment, size)).validLength;
      await stored.read(size, (piece) => pieces.push(Buffer.from(piece)) > 0);
    } catch (e) {
      // Who pushes has public keys only.
      if (e instanceof EncryptedError) continue;
      throw e;
    }
    const theirs = Buffer.concat(pieces).subarray(0, good);
    const comparison = new WalComparison({ startLsn: start, segmentSize: size });
    if (comparison.feed(bytes.subarray(0, theirs.length), theirs) === undefined) continue;
    throw new RewriteError(`"${path}" differs from "${stored.path}"`, {
      path: stored.path,
      hint: 'Two servers write to this archive, or one of the files is damaged: check both with "walkeep verify".',
    });
  }
}

async function pushText(
  { path, name }: PushSource,
  named: StoredName,
  store: ObjectStore,
  writerFor: WriterFor,
): Promise<PushResult> {
  const content = await readFile(path).catch((e) => {
    throw storageError('read file', path, e);
  });
  if (named.kind === 'history') {
    const judged = judgeHistory(path, named.timeline, content);
    if (judged.state === 'damaged') throw judged.problem;
  }
  const writer = await writerFor(await clusterAround(path, store));
  if (named.kind === 'history') return resultOf(await writer.putHistory(named.timeline, content));
  return resultOf(await writer.putBackupHistory(name, content));
}

/** Such a file does not say whose it is: the segments beside it do, else the archive. */
async function clusterAround(path: string, store: ObjectStore): Promise<Cluster> {
  const own = openDirectory(dirname(path));
  const { segments } = sortOut(await own.list());
  const { systemId, segmentSize } = await sampleIdentity(own, segments);
  if (systemId !== undefined) return { systemId, segmentSize };
  const told = await new StoreArchive(store, undefined).cluster();
  if (told?.segmentSize) return { systemId: told.systemId, segmentSize: told.segmentSize };
  throw new StorageError(`nothing tells which cluster "${path}" is of`, {
    path,
    hint: 'Push it from pg_wal, where segments of the cluster lie.',
  });
}

function resultOf({ outcome, key }: StoreResult): PushResult {
  return { outcome, name: key };
}
