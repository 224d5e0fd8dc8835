import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { firstOtherByte } from '../archive/compare.js';
import { inspectWal, type KnownWal } from '../archive/good-wal.js';
import { removeLeftovers } from '../archive/leftovers.js';
import { segmentAt } from '../archive/segment-source.js';
import { compressFile } from '../codec/codec.js';
import { DirectoryLockedError } from '../errors.js';
import { fsyncDir, storageError } from '../files/durable.js';
import { nodeFileSystem } from '../files/file-system.js';
import { acquireDirectoryLock } from '../files/lock.js';
import { COMPRESSIONS, compressionSuffix, type SegmentName } from '../wal/file-name.js';
import { completeFile } from './compare.js';
import { confirmDurable, exists, type PushSource, place, stageCopy, stagingPath } from './place.js';
import type { PushResult } from './result.js';

/** How what is stored of a segment compares with the pushed partial file. */
type Comparison =
  /** Something here has all its WAL. */
  | { kind: 'contained'; name: string }
  /** All that is here goes on in it, or nothing is here. */
  | { kind: 'longer' }
  | { kind: 'conflict' };

/**
 * Takes the last segment of the old timeline, which a server archives as `.partial` when it is
 * promoted. A receiver names its files the same, and what follows the end of the timeline may
 * differ, so WAL is compared up to the end of the last good record. It always ends well: a refusal
 * would stop the new primary's archiver for good.
 */
export async function pushPartial(
  source: PushSource,
  segment: SegmentName,
  directory: string,
  known: KnownWal,
): Promise<PushResult> {
  const { name } = source;
  for (;;) {
    const found = await compare(source, segment, directory, known);
    if (found.kind === 'conflict') return keepAside(source, directory);
    if (found.kind === 'contained') {
      await confirmDurable(directory, found.name);
      return { outcome: 'present', name: found.name };
    }
    const staged = await stageCopy(source, directory);
    if (await place(staged, directory, name)) return { outcome: 'stored', name };
    const extended = await extend(source, segment, directory, known);
    if (extended) return extended;
  }
}

async function compare(
  source: PushSource,
  segment: SegmentName,
  directory: string,
  known: KnownWal,
): Promise<Comparison> {
  const { validLength: mine } = await inspectWal(
    segmentAt(source.path, 'none'),
    segment,
    source.size,
    known,
  );
  const base = source.name.slice(0, -'.partial'.length);
  const complete = await completeFile(base, directory);
  if (complete) {
    const at = await firstOtherByte(source, {
      path: join(directory, complete.name),
      compression: complete.compression,
    });
    const same = at === undefined || at >= mine;
    return same ? { kind: 'contained', name: complete.name } : { kind: 'conflict' };
  }
  let result: Comparison = { kind: 'longer' };
  for (const compression of COMPRESSIONS) {
    const stored = `${base}${compressionSuffix(compression)}.partial`;
    const path = join(directory, stored);
    if (!(await exists(path))) continue;
    const theirs = await inspectWal(segmentAt(path, compression), segment, source.size, known);
    const at = (await firstOtherByte(source, { path, compression })) ?? source.size;
    if (at < Math.min(mine, theirs.validLength)) return { kind: 'conflict' };
    if (theirs.validLength >= mine) result = { kind: 'contained', name: stored };
    // The begin of a record may have been acknowledged: it must go on in ours too.
    else if (at < Math.min(mine, theirs.contentLength)) return { kind: 'conflict' };
  }
  return result;
}

/**
 * Stores a partial file that goes on where the one of that name ends. While a receiver may be
 * writing to that one, it goes beside it, compressed: receiver and fetch take the longest.
 * Undefined: things have changed, compare again.
 */
async function extend(
  source: PushSource,
  segment: SegmentName,
  directory: string,
  known: KnownWal,
): Promise<PushResult | undefined> {
  const { name } = source;
  const lock = await acquireDirectoryLock(directory, { graceMs: 0 }).catch((e) => {
    if (e instanceof DirectoryLockedError) return undefined;
    throw e;
  });
  if (!lock) return storeBeside(source, segment, directory, known);
  try {
    await removeLeftovers(directory, nodeFileSystem);
    if ((await compare(source, segment, directory, known)).kind !== 'longer') return undefined;
    const staged = await stageCopy(source, directory);
    await rename(staged, join(directory, name)).catch((e) => {
      throw storageError('rename file', staged, e);
    });
    await fsyncDir(directory);
    return { outcome: 'extended', name };
  } finally {
    await lock.release();
  }
}

async function storeBeside(
  source: PushSource,
  segment: SegmentName,
  directory: string,
  known: KnownWal,
): Promise<PushResult> {
  const { validLength } = await inspectWal(
    segmentAt(source.path, 'none'),
    segment,
    source.size,
    known,
  );
  const base = source.name.slice(0, -'.partial'.length);
  // One of them may be there, with less.
  for (const method of ['gzip', 'lz4'] as const) {
    const name = `${base}${compressionSuffix(method)}.partial`;
    if (await exists(join(directory, name))) continue;
    const staged = await stagingPath(directory);
    try {
      await compressFile(source.path, staged, validLength, { method, mode: source.mode });
      if (await place(staged, directory, name)) return { outcome: 'beside', name };
    } finally {
      await rm(staged, { force: true });
    }
  }
  return keepAside(source, directory);
}

/** Stores what cannot have its name under one that nothing reads; the same content once. */
export async function keepAside(source: PushSource, directory: string): Promise<PushResult> {
  for (let n = 1; ; n++) {
    const name = `.${source.name}.pushed${n === 1 ? '' : `.${n}`}`;
    const path = join(directory, name);
    if (await exists(path)) {
      if ((await firstOtherByte(source, { path, compression: 'none' })) !== undefined) continue;
      await confirmDurable(directory, name);
      return { outcome: 'aside', name };
    }
    const staged = await stageCopy(source, directory);
    if (await place(staged, directory, name)) return { outcome: 'aside', name };
  }
}
