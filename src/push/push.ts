import { open, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { isGone } from '../archive/access.js';
import type { Archive } from '../archive/archive.js';
import { firstOtherByte, type ReadAt } from '../archive/compare.js';
import { inspectWal } from '../archive/good-wal.js';
import { keepDamaged } from '../archive/history.js';
import { GROUP_READ, isForGroup } from '../archive/places/group-access.js';
import { isStore, openArchive } from '../archive/places/open-archive.js';
import { segmentNamed } from '../archive/segment-source.js';
import { RewriteError, UsageError } from '../errors.js';
import { durableRename, storageError } from '../files/durable.js';
import { OPEN_READ } from '../files/file-system.js';
import { formatLsn, type Lsn } from '../lsn.js';
import { checkOptions } from '../options.js';
import type { SegmentName } from '../wal/file-name.js';
import {
  parseHistoryFileName,
  parseStoredName,
  segmentStart,
  storedNames,
} from '../wal/file-name.js';
import { judgeHistory } from '../wal/history-file.js';
import { CHECKS, type PushOptions } from './options.js';
import { keepAside, pushPartial } from './partial.js';
import { confirmDurable, type PushSource, place, stageCopy } from './place.js';
import type { PushResult } from './result.js';
import { checkSource, inspectSource, isPassedBy, requireSegment } from './source.js';

export type { PushOptions, PushResult };

/**
 * Takes one file of a server's pg_wal into an archive, as archive_command asks: when it returns,
 * the content is durable there, and the server may remove its own. Nothing that is there is ever
 * replaced by something else; a receiver may run on the directory at the same time.
 * @throws RewriteError, StoreConflictError if a file of that name has other content
 * @throws UsageError, ParseError, CorruptWalError, SystemIdentifierError, StorageError: not stored
 */
export async function pushFile(
  directory: string,
  path: string,
  options: PushOptions = {},
): Promise<PushResult> {
  checkOptions('push', options, CHECKS);
  const { verify = true } = options;
  const name = basename(path);
  const stored = parseStoredName(name);
  const isSegment = stored?.kind === 'segment';
  if (!stored || (isSegment && (stored.compression !== 'none' || stored.timeline === 0))) {
    throw new UsageError(`"${name}" is not the name of a file that PostgreSQL archives`, {
      path,
      hint: 'Give the path of a file in pg_wal: archive_command has it as %p.',
    });
  }
  if (isStore(directory)) {
    const { pushIntoStore } = await import('./store.js');
    const source = await openSource(path, name);
    try {
      return await pushIntoStore(directory, source, stored, options);
    } finally {
      await source.handle.close();
    }
  }
  const archive = await openArchive(directory);
  await requireDirectory(archive.place);
  const source = await openSource(path, name);
  if (await isForGroup(archive.place)) source.mode |= GROUP_READ;
  try {
    return await whileRenamed(source, async () => {
      if (stored.kind === 'history') return pushHistory(source, archive);
      if (stored.kind === 'segment') return pushSegment(source, archive, verify);
      return pushAsItIs(source, archive);
    });
  } finally {
    await source.handle.close();
  }
}

/** Looks that find a file gone again, before that counts as a fault. */
const MOST_LOOKS = 20;

/**
 * Begins anew where a file of the archive is gone before it was read: a receiver that finished it
 * meanwhile has it under another name, which must be compared with, or it was moved away.
 */
async function whileRenamed<T>(source: PushSource, push: () => Promise<T>): Promise<T> {
  for (let looks = 1; ; looks++) {
    try {
      return await push();
    } catch (e) {
      if (!isGone(e) || isGone(e, source.path) || looks === MOST_LOOKS) throw e;
    }
  }
}

async function requireDirectory(directory: string): Promise<void> {
  const found = await stat(directory).catch((e) => {
    throw storageError('open directory', directory, e);
  });
  if (!found.isDirectory()) throw new UsageError(`"${directory}" is not a directory`);
}

async function openSource(path: string, name: string): Promise<PushSource> {
  const handle = await open(path, OPEN_READ).catch((e) => {
    throw storageError('open file', path, e);
  });
  const found = await handle.stat();
  if (!found.isFile()) {
    await handle.close();
    throw new UsageError(`"${path}" is not a regular file`, { path });
  }
  // As the server's: readable for the group if its data directory is (common/file_perm.c).
  const mode = 0o600 | (found.mode & 0o040);
  const read: ReadAt = async (into, position) =>
    (await handle.read(into, 0, into.length, position)).bytesRead;
  return { handle, read, path, name, size: found.size, mode };
}

async function pushHistory(source: PushSource, archive: Archive): Promise<PushResult> {
  const { path, name, mode } = source;
  const timeline = parseHistoryFileName(name) as number;
  const content = await readFile(path).catch((e) => {
    throw storageError('read file', path, e);
  });
  const judged = judgeHistory(path, timeline, content);
  if (judged.state === 'damaged') throw judged.problem;
  const stored = await archive.history(timeline);
  if (await isPassedBy(timeline, judged.history, archive)) {
    return { ...(await keepAside(source, archive)), outcome: 'apart' };
  }
  if (stored.state !== 'damaged') return pushAsItIs(source, archive);
  // An empty file, for example, that a crash left: every answer about this timeline fails with it.
  await keepDamaged(archive.place, timeline, stored.content, { mode });
  const staged = await stageCopy(source, archive.place);
  await durableRename(staged, join(archive.place, name));
  return { outcome: 'mended', name };
}

async function pushAsItIs(source: PushSource, archive: Archive): Promise<PushResult> {
  const { name } = source;
  for (;;) {
    if (await archive.has(name)) {
      const path = join(archive.place, name);
      const at = await firstOtherByte(source, { path, compression: 'none' });
      if (at !== undefined) throw conflict(source, path, `from byte ${at} on`);
      await confirmDurable(source, archive.place, name);
      return { outcome: 'present', name };
    }
    const staged = await stageCopy(source, archive.place);
    if (await place(staged, archive.place, name)) return { outcome: 'stored', name };
  }
}

async function pushSegment(
  source: PushSource,
  archive: Archive,
  verify: boolean,
): Promise<PushResult> {
  const { name } = source;
  const parsed = requireSegment(source);
  const known = await checkSource(source, parsed, archive);
  if (await isPassedBy(parsed.timeline, known.history, archive)) {
    return { ...(await keepAside(source, archive)), outcome: 'apart' };
  }
  if (parsed.partial) return pushPartial(source, parsed, archive, known);
  for (;;) {
    const found = await archive.completeName(name);
    if (found !== undefined) {
      const other = segmentNamed(archive.place, found);
      const at = await firstOtherByte(source, other);
      if (at !== undefined)
        throw conflict(source, other.path, lsnText(source, parsed, at), parsed, at);
      await confirmDurable(source, archive.place, found);
      return { outcome: 'present', name: found };
    }
    await comparePartials(source, parsed, archive);
    if (verify && (await inspectSource(source, parsed, archive, known)) === 'cut') {
      const partial = { ...source, name: `${name}.partial` };
      return pushPartial(partial, { ...parsed, partial: true }, archive, known);
    }
    const staged = await stageCopy(source, archive.place);
    if (await place(staged, archive.place, name)) return { outcome: 'stored', name };
  }
}

/**
 * A receiver's partial file may hold acknowledged WAL: a segment that says something else is not
 * to become the one that recovery finds first.
 */
async function comparePartials(
  source: PushSource,
  segment: SegmentName,
  archive: Archive,
): Promise<void> {
  for (const name of storedNames(source.name, true)) {
    if (!(await archive.has(name))) continue;
    const stored = segmentNamed(archive.place, name);
    const at = await firstOtherByte(source, stored);
    if (at === undefined) continue;
    if (at < (await inspectWal(stored, segment, source.size)).validLength) {
      throw conflict(source, stored.path, lsnText(source, segment, at), segment, at);
    }
  }
}

function lsnText(source: PushSource, segment: SegmentName, at: number): string {
  return `at ${formatLsn(segmentStart(segment.segment, source.size) + BigInt(at))}`;
}

function conflict(
  source: PushSource,
  stored: string,
  where: string,
  segment?: SegmentName,
  at = 0,
): RewriteError {
  const lsn = segment && ((segmentStart(segment.segment, source.size) + BigInt(at)) as Lsn);
  return new RewriteError(`"${source.path}" differs from "${stored}" ${where}`, {
    path: stored,
    ...(lsn === undefined ? {} : { lsn }),
    hint: 'Two servers write to this archive, or one of the files is damaged: check both with "walkeep verify".',
  });
}
