import { type Chain, type ChainLink, openChain } from '../archive/combine/chain.js';
import { openCombined } from '../archive/combine/file.js';
import { planChain } from '../archive/combine/plan.js';
import type { CombineContext, CombinedFile } from '../archive/combine/source.js';
import type { ArchiveKeys } from '../archive/places/open-archive.js';
import { InternalError } from '../errors.js';
import { storageError, writeFully } from '../files/durable.js';
import { CREATE_NEW } from '../files/file-system.js';
import { type SameFile, sameIn } from './delta/compare.js';
import type { Owner, RestoreFileSystem } from './file-system.js';
import type { Layout } from './layout.js';

/** A file that is made of several backups, and where it goes. Can be sent to a thread. */
export interface PlacedCombined {
  path: string;
  mode: number;
  /** Bytes, about: how long it is, its own incremental file tells. */
  size: number;
  file: CombinedFile;
}

/** What of an incremental backup is made of its whole chain. */
export interface Combined {
  chain: Chain;
  files: PlacedCombined[];
}

/** Undefined: it is a full backup. @throws CorruptObjectError, what the places throw */
export async function combinedOf(
  links: readonly ChainLink[],
  layout: Layout,
  keys: ArchiveKeys,
  signal: AbortSignal | undefined,
): Promise<Combined | undefined> {
  if (links.length < 2) return undefined;
  const chain = await openChain(links, keys, signal);
  const places = new Map(layout.combined.map((place) => [place.name, place]));
  const files = await planChain(chain, signal);
  return {
    chain,
    files: files.map((file) => {
      const place = places.get(file.path);
      if (!place) throw new InternalError(`"${file.path}" has no place`);
      const { path, mode } = place;
      return { path, mode, size: file.sources.at(-1)?.size ?? 0, file };
    }),
  };
}

/** Bytes and files of one job at most: what is next to each other is read once. */
const BYTES = 32 * 1024 * 1024;
const FILES = 256;

export function* combineBatches(files: readonly PlacedCombined[]): Generator<PlacedCombined[]> {
  let batch: PlacedCombined[] = [];
  let bytes = 0;
  for (const file of files) {
    batch.push(file);
    bytes += file.size;
    if (bytes < BYTES && batch.length < FILES) continue;
    yield batch;
    batch = [];
    bytes = 0;
  }
  if (batch.length > 0) yield batch;
}

export interface CombiningContext {
  /** Absent for a full backup. */
  combine?: CombineContext | undefined;
  fs: RestoreFileSystem;
  owner: Owner | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * @param progress bytes, as their sizes say
 * @throws CorruptObjectError, StorageError, StoreUncertainError, the signal's reason
 */
export async function writeCombined(
  files: readonly PlacedCombined[],
  context: CombiningContext,
  progress: (bytes: number) => void,
): Promise<void> {
  for (const { path, mode, size, file } of files) {
    const { fs, owner, combine } = context;
    if (!combine) throw new InternalError('a chain of backups was not opened');
    context.signal?.throwIfAborted();
    const opened = await openCombined(file, combine);
    const fd = await fs.open(path, CREATE_NEW, mode).catch((e) => {
      throw storageError('create file', path, e);
    });
    try {
      if (owner) await fs.fchown(fd, owner);
      let at = 0;
      await opened.write(async (bytes) => {
        context.signal?.throwIfAborted();
        await writeFully(fs, fd, bytes, at).catch((e) => {
          throw storageError('write file', path, e);
        });
        at += bytes.length;
      });
    } finally {
      await fs.close(fd);
    }
    progress(size);
  }
}

/**
 * What of files that are there is what the chain has: where a file was not changed since the full
 * backup, its manifest tells. All others are made anew, and no more is read here than what later
 * backups have of them.
 * @throws CorruptObjectError, StorageError, StoreUncertainError, the signal's reason
 */
export async function sameCombined(
  files: readonly PlacedCombined[],
  { combine, fs, signal }: CombiningContext,
): Promise<SameFile[]> {
  if (!combine) throw new InternalError('a chain of backups was not opened');
  const same: SameFile[] = [];
  for (const { path, file } of files) {
    signal?.throwIfAborted();
    const opened = await openCombined(file, combine);
    const { size = 0, checksum } = opened.unchanged ?? {};
    if (checksum === undefined) continue;
    await opened.prove();
    const found = await sameIn({ path, size, checksum, parts: [] }, fs);
    if (found) same.push(found);
  }
  return same;
}
