import type { BackupReader } from '../archive/backups/reader.js';
import { FrameCache } from '../archive/combine/frames.js';
import type { BaseIndex } from '../base/base-index.js';
import { fsyncDir, storageError } from '../files/durable.js';
import { type Combined, combineBatches } from './combine.js';
import { makeDirectory, type Owner, type RestoreFileSystem } from './file-system.js';
import { makeFile, type RestoreJob, severalAtOnce } from './job.js';
import { type Layout, type PlacedFile, partsOf } from './layout.js';
import { type Held, MARKERS, type Marker, makeStartable, removeMarkers } from './marker.js';
import { runJobs } from './pool.js';
import type { WorkerSetting } from './worker.js';

export interface WriteOptions {
  layout: Layout;
  reader: BackupReader;
  index: BaseIndex;
  /** Of an incremental backup. */
  combined?: Combined | undefined;
  marker: Marker;
  owner: Owner | undefined;
  threads: number;
  /** Absent: all is done in this thread. */
  setting?: WorkerSetting | undefined;
  fs: RestoreFileSystem;
  signal?: AbortSignal | undefined;
  /** Bytes of tar that were written; then files that are durable. */
  progress?: (done: number, of: 'bytes' | 'files') => void;
  /** Writes what is not from the tars, each file durably, before the server can be started. */
  settle: () => Promise<void>;
  /** Before the markers go: a server may be started on what is left when it is killed then. */
  leaveNoName: Held['leaveNoName'];
}

const SYNCED_AT_ONCE = 128;

/**
 * Puts the files of a backup in place. The roots are empty, or not there. Killed at any moment it
 * leaves what no server starts on, and what the next run knows by its markers.
 * @throws CorruptObjectError, StorageError, StoreUncertainError, the signal's reason
 */
export async function writeBackup(options: WriteOptions): Promise<void> {
  const { layout, reader, index, marker, owner, threads, setting, fs, signal } = options;
  const { progress = () => {}, settle } = options;
  const chain = options.combined?.chain;
  const combine = chain && { ...chain, frames: new FrameCache(chain.readers, signal) };
  const context = { reader, fs, owner, signal, combine };
  const pool = { threads, context, setting };
  await makeRoots(options);
  for (const { path, mode } of layout.directories) await makeOne(path, mode, options);
  for (const { path, to } of layout.links) await makeLink(path, to, options);
  const spanning = index.tars.flatMap((tar, i) => spanningFiles(tar.frames, layout.files[i] ?? []));
  await severalAtOnce(spanning, (file) => makeFile(file, context));
  await runJobs(writeJobs(options), pool, (done) => progress(done, 'bytes'));
  await settle();
  await runJobs(syncJobs(layout), pool, (done) => progress(done, 'files'));
  const made = [...layout.roots, ...layout.directories.map(({ path }) => path)];
  await severalAtOnce(made.toReversed(), (path) => fsyncDir(path, fs));
  signal?.throwIfAborted();
  await makeStartable(marker, fs);
  await options.leaveNoName();
  await removeMarkers(marker, fs);
}

/** With a marker in each before there is anything else. */
async function makeRoots({ layout, marker, owner, fs }: WriteOptions): Promise<void> {
  const { roots, mode } = layout;
  for (const root of roots) {
    await makeDirectory(root, { mode, owner, fs });
    await fs.chmod(root, mode).catch((e) => {
      throw storageError('change the mode of directory', root, e);
    });
    if (owner) await fs.lchown(root, owner);
    await MARKERS.write(root, marker, fs);
  }
}

export async function makeOne(
  path: string,
  mode: number,
  { owner, fs }: Pick<WriteOptions, 'owner' | 'fs'>,
): Promise<void> {
  try {
    await fs.mkdir(path, mode);
    await fs.chmod(path, mode);
    if (owner) await fs.lchown(path, owner);
  } catch (e) {
    throw storageError('create directory', path, e);
  }
}

export async function makeLink(
  path: string,
  to: string,
  { owner, fs }: Pick<WriteOptions, 'owner' | 'fs'>,
): Promise<void> {
  try {
    await fs.symlink(to, path);
    if (owner) await fs.lchown(path, owner);
  } catch (e) {
    throw storageError('create link', path, e);
  }
}

/** Those of which more than one frame has a part: whoever comes first must find them. */
export function spanningFiles(
  frames: readonly { offset: number; length: number }[],
  files: readonly PlacedFile[],
): PlacedFile[] {
  const spanning: PlacedFile[] = [];
  let n = 0;
  for (const file of files) {
    if (file.size === 0) continue;
    const end = (at: number) => (frames[at]?.offset ?? 0) + (frames[at]?.length ?? 0);
    while (n < frames.length - 1 && end(n) <= file.offset) n++;
    if (file.offset + file.size > end(n)) spanning.push(file);
  }
  return spanning;
}

function* writeJobs({ layout, reader, index, combined }: WriteOptions): Generator<RestoreJob> {
  const files = new Map(index.tars.map((tar, i) => [tar.name, layout.files[i] ?? []]));
  for (const piece of reader.pieces(index)) {
    const own = files.get(piece.tar) ?? [];
    yield { kind: 'write', piece, parts: piece.frames.map((frame) => partsOf(own, frame)) };
  }
  for (const files of combineBatches(combined?.files ?? [])) yield { kind: 'combine', files };
}

export function* syncJobs({
  files,
  combined,
}: Pick<Layout, 'files' | 'combined'>): Generator<RestoreJob> {
  const paths = [...files.flat(), ...combined].map(({ path }) => path);
  for (let at = 0; at < paths.length; at += SYNCED_AT_ONCE) {
    yield { kind: 'sync', paths: paths.slice(at, at + SYNCED_AT_ONCE) };
  }
}
