import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Archive } from '../archive/archive.js';
import { firstOtherByte } from '../archive/compare.js';
import { inspectWal, type KnownWal } from '../archive/good-wal.js';
import { removeLeftovers } from '../archive/leftovers.js';
import { segmentAt, segmentNamed } from '../archive/segment-source.js';
import { compressFile } from '../codec/codec.js';
import { RECEIVED_METHODS } from '../codec/codecs.js';
import { DirectoryLockedError } from '../errors.js';
import { fsyncDir, storageError } from '../files/durable.js';
import { nodeFileSystem } from '../files/file-system.js';
import { acquireDirectoryLock } from '../files/lock.js';
import { type SegmentName, storedName, storedNames } from '../wal/file-name.js';
import { confirmDurable, type PushSource, place, stageCopy, stagingPath } from './place.js';
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
  archive: Archive,
  known: KnownWal,
): Promise<PushResult> {
  const { name } = source;
  for (;;) {
    const found = await compare(source, segment, archive, known);
    if (found.kind === 'conflict') return keepAside(source, archive);
    if (found.kind === 'contained') {
      await confirmDurable(source, archive.place, found.name);
      return { outcome: 'present', name: found.name };
    }
    const staged = await stageCopy(source, archive.place);
    if (await place(staged, archive.place, name)) return { outcome: 'stored', name };
    const extended = await extend(source, segment, archive, known);
    if (extended) return extended;
  }
}

async function compare(
  source: PushSource,
  segment: SegmentName,
  archive: Archive,
  known: KnownWal,
): Promise<Comparison> {
  const { validLength: mine } = await inspectWal(
    segmentAt(source.path, 'none'),
    segment,
    source.size,
    known,
  );
  const complete = await archive.completeName(source.name);
  if (complete !== undefined) {
    const at = await firstOtherByte(source, segmentNamed(archive.place, complete));
    const same = at === undefined || at >= mine;
    return same ? { kind: 'contained', name: complete } : { kind: 'conflict' };
  }
  const base = source.name.slice(0, -'.partial'.length);
  let result: Comparison = { kind: 'longer' };
  for (const name of storedNames(base, true)) {
    if (!(await archive.has(name))) continue;
    const stored = segmentNamed(archive.place, name);
    const theirs = await inspectWal(stored, segment, source.size, known);
    const at = (await firstOtherByte(source, stored)) ?? source.size;
    if (at < Math.min(mine, theirs.validLength)) return { kind: 'conflict' };
    if (theirs.validLength >= mine) result = { kind: 'contained', name };
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
  archive: Archive,
  known: KnownWal,
): Promise<PushResult | undefined> {
  const { name } = source;
  const lock = await acquireDirectoryLock(archive.place, { graceMs: 0 }).catch((e) => {
    if (e instanceof DirectoryLockedError) return undefined;
    throw e;
  });
  if (!lock) return storeBeside(source, segment, archive, known);
  try {
    await removeLeftovers(archive.place, nodeFileSystem);
    if ((await compare(source, segment, archive, known)).kind !== 'longer') return undefined;
    const staged = await stageCopy(source, archive.place);
    await rename(staged, join(archive.place, name)).catch((e) => {
      throw storageError('rename file', staged, e);
    });
    await fsyncDir(archive.place);
    return { outcome: 'extended', name };
  } finally {
    await lock.release();
  }
}

async function storeBeside(
  source: PushSource,
  segment: SegmentName,
  archive: Archive,
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
  for (const method of RECEIVED_METHODS) {
    const name = storedName(base, method, true);
    if (await archive.has(name)) continue;
    const staged = await stagingPath(archive.place);
    try {
      await compressFile(source.path, staged, validLength, { method, mode: source.mode });
      if (await place(staged, archive.place, name)) return { outcome: 'beside', name };
    } finally {
      await rm(staged, { force: true });
    }
  }
  return keepAside(source, archive);
}

/** Stores what cannot have its name under one that nothing reads; the same content once. */
export async function keepAside(source: PushSource, archive: Archive): Promise<PushResult> {
  for (let n = 1; ; n++) {
    const name = `.${source.name}.pushed${n === 1 ? '' : `.${n}`}`;
    if (await archive.has(name)) {
      const path = join(archive.place, name);
      if ((await firstOtherByte(source, { path, compression: 'none' })) !== undefined) continue;
      await confirmDurable(source, archive.place, name);
      return { outcome: 'aside', name };
    }
    const staged = await stageCopy(source, archive.place);
    if (await place(staged, archive.place, name)) return { outcome: 'aside', name };
  }
}
