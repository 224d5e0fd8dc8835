import { randomUUID } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import type { BackupReader } from '../../archive/backups/reader.js';
import { FrameCache } from '../../archive/combine/frames.js';
import type { FileSource } from '../../archive/combine/source.js';
import type { BaseIndex, TarIndex } from '../../base/base-index.js';
import { parseManifest } from '../../base/manifest.js';
import { TargetError } from '../../errors.js';
import { durableRename, fsyncDir, storageError } from '../../files/durable.js';
import { OPEN_EXISTING } from '../../files/file-system.js';
import { type Combined, combineBatches, type PlacedCombined } from '../combine.js';
import { emptyDirectory, makeDirectory, type RestoreFileSystem } from '../file-system.js';
import { type JobContext, makeFile, type RestoreJob, severalAtOnce } from '../job.js';
import { type FilePart, type Layout, type PlacedFile, partsOf } from '../layout.js';
import { type Held, MARKER } from '../marker.js';
import type { Amount, DeltaCompared, RestorePlan, RestoreProgress } from '../options.js';
import { type PoolOptions, runJobs } from '../pool.js';
import type { WorkerSetting } from '../worker.js';
import { makeLink, makeOne, spanningFiles, syncJobs } from '../write.js';
import { type ExpectedFile, expectedFiles, type SameFile } from './compare.js';
import { DELTA_MARKERS, type DeltaMarker } from './marker.js';
import { putAside } from './old-wal.js';
import { isServersOwn } from './own.js';
import { type OldWal, oldWalOf, type PreparedDelta, surveyOf } from './prepare.js';
import { requireDelta, requireNoServer, type Standing, standingIn } from './standing.js';
import { bytesBelow, type Survey } from './survey.js';

export interface DeltaRun {
  plan: RestorePlan;
  layout: Layout;
  reader: BackupReader;
  index: BaseIndex;
  /** Of an incremental backup. */
  combined: Combined | undefined;
  delta: PreparedDelta;
  threads: number;
  /** Absent: all is done in this thread. */
  setting: WorkerSetting | undefined;
  fs: RestoreFileSystem;
  signal?: AbortSignal | undefined;
  onCompared?: ((compared: DeltaCompared) => void) | undefined;
  progress: (progress: RestoreProgress) => void;
  /** Writes what is not from the tars, each file durably, before the server can be started. */
  settle: () => Promise<void>;
  leaveNoName: Held['leaveNoName'];
}

/** Bytes, and files, that are compared in one go. */
const COMPARED_BYTES = 64 * 1024 * 1024;
const COMPARED_FILES = 128;

type Same = ReadonlyMap<string, SameFile['parts']>;

/** Bytes of a file that is configuration still. */
const MOST_COMPARED = 1024 * 1024;
const STAMP = /\.\d{8}T\d{6}Z$/;

/** What becomes of each file. */
interface Decision {
  compared: DeltaCompared;
  /** What of the files of the layout stays, by path. */
  same: Same;
  found: Survey;
}

/** Compares without changing anything. */
export async function compareDelta(run: DeltaRun): Promise<DeltaCompared> {
  return (await decide(run)).compared;
}

/**
 * Makes of what stands in a directory what the backup has. Before anything else goes what a server
 * needs to start, after all else comes that of the backup: killed at any moment it leaves what no
 * server starts on, and the next delta goes on with.
 * @throws as restoreBackup
 */
export async function carryOutDelta(given: DeltaRun): Promise<DeltaCompared> {
  const { plan, layout, fs, signal, progress } = given;
  const { dataDir } = plan;
  // As it is now that nobody else is at it.
  const standing = await standingIn(dataDir, fs);
  if (!standing) throw changed(dataDir);
  await requireDelta(standing, given.delta.conditions, fs);
  const run = { ...given, delta: { ...given.delta, standing } };
  const wal = await oldWalOf(run.delta, fs);
  const token = await disarm(run, standing, wal);
  const decision = await decide(run);
  run.onCompared?.(decision.compared);
  const { stale, there } = decision.found;
  for (const { path, kind } of stale) await remove(path, kind, fs);
  for (const { path, as } of decision.compared.kept) {
    // By a run that was cut short: what has its name since is none of theirs.
    if (await fs.stat(as)) await remove(path, 'file', fs);
    else await rename(path, as, fs);
  }
  // Before a file of ours has its name, which by its name alone is not told from theirs.
  const { kept } = decision.compared;
  for (const path of new Set(kept.map(({ path }) => dirname(path)))) await fsyncDir(path, fs);
  await makeDirectories(run, there);
  const pool = poolOf(run);
  await writeChanged(run, decision, pool);
  await run.settle();
  const others = layout.combined.length;
  const total = layout.files.reduce((sum, { length }) => sum + length, others);
  let done = 0;
  // What is the same may be in memory alone: the server that wrote it did not come to sync it.
  await runJobs(syncJobs(layout), pool, (more) => {
    done += more;
    progress({ phase: 'sync', done, total });
  });
  const made = [...layout.roots, ...layout.directories.map(({ path }) => path)];
  const emptied = stale.map(({ path }) => dirname(path));
  const all = new Set([...made, ...emptied]);
  await severalAtOnce([...all].toReversed(), async (path) => {
    if (await fs.stat(path)) await fsyncDir(path, fs);
  });
  signal?.throwIfAborted();
  for (const { path, until } of layout.controls) await durableRename(until, path, fs);
  await run.leaveNoName();
  await DELTA_MARKERS.remove(dataDir, token, fs);
  return decision.compared;
}

function changed(dataDir: string): TargetError {
  return new TargetError(`what is in "${dataDir}" was changed a moment ago`, {
    path: dataDir,
    hint: 'Find out by whom, and run it again.',
  });
}

/**
 * From here on no server can be started there. What may not go at all goes first: a server has
 * neither pg_wal nor pg_control then, or both again.
 * @returns the token of its marker
 */
async function disarm(
  { layout, delta, plan, fs }: DeltaRun,
  standing: Standing,
  wal: OldWal,
): Promise<string> {
  const { dataDir, systemId, catalogVersion, resumed, tablespaces, walDir } = standing;
  const before = [...(resumed?.roots ?? []), ...tablespaces.values()];
  const roots = new Set([...layout.roots, ...before]);
  const token = randomUUID();
  const marker: DeltaMarker = {
    ...{ format: 1, token, backup: plan.backup.id, systemId: String(systemId), catalogVersion },
    ...{ stamp: delta.stamp, roots: [...roots], oldWal: wal.to },
  };
  await DELTA_MARKERS.write(dataDir, marker, fs);
  // A restore that ended just before it would be taken for half, and all that is here for its own.
  for (const root of layout.roots) {
    if (!(await fs.stat(join(root, MARKER)))) continue;
    await fs.unlink(join(root, MARKER));
    await fsyncDir(root, fs);
  }
  const moves = wal.isMoved ? [] : [{ from: wal.from as string, to: wal.to as string }];
  const isLink = walDir !== undefined;
  const old = ({ path }: Layout['controls'][0]) => `${path}.walkeep-old`;
  try {
    for (const move of moves) await putAside({ ...move, isLink }, fs);
    for (const control of layout.controls) {
      if (!(await fs.stat(control.path))) continue;
      await durableRename(control.path, old(control), fs);
      // One that was started since has it open already, or found none.
      await requireNoServer(standing);
    }
  } catch (e) {
    // Where this does not work either, the next delta goes on.
    if (!resumed) await rearm().catch(() => {});
    throw e;
  }
  return token;

  async function rearm(): Promise<void> {
    for (const { from, to } of moves) {
      if (!(await fs.stat(from))) await putAside({ from: to, to: from, isLink }, fs);
    }
    for (const control of layout.controls) {
      if (await fs.stat(control.path)) continue;
      await durableRename(old(control), control.path, fs);
    }
    await DELTA_MARKERS.remove(dataDir, token, fs);
  }
}

async function decide(run: DeltaRun): Promise<Decision> {
  const { layout, reader, index, delta, fs, signal, progress } = run;
  const found = await surveyOf(delta, fs);
  const manifest = parseManifest(await reader.object('backup_manifest', signal));
  const { tablespaces } = delta.conditions;
  const known = expectedFiles(layout, { index, manifest, codec: reader.record.codec }, tablespaces);
  const expected = known.filter(({ path, size, parts }) => {
    return found.sizes.get(path) === size || (found.sizes.has(path) && parts.length > 0);
  });
  const combined = (run.combined?.files ?? []).filter(({ path }) => found.sizes.has(path));
  const total = [...expected, ...combined].reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  const same = new Map<string, SameFile['parts']>();
  const jobs = compareJobs(expected, combined);
  await runJobs(jobs, poolOf(run), (more, files = []) => {
    done += more;
    for (const { path, parts } of files) same.set(path, parts);
    progress({ phase: 'compare', done, total });
  });
  return { found, same, compared: await amounts(run, found, same) };
}

function poolOf({ reader, combined, plan, threads, setting, fs, signal }: DeltaRun): PoolOptions {
  const chain = combined?.chain;
  const combine = chain && { ...chain, frames: new FrameCache(chain.readers, signal) };
  const context: JobContext = { reader, fs, owner: plan.owner, signal, combine };
  return { threads, context, setting };
}

/** Large ones first: the last thread to end has a small one. */
function* compareJobs(
  expected: readonly ExpectedFile[],
  combined: readonly PlacedCombined[],
): Generator<RestoreJob> {
  for (const files of combineBatches(combined)) yield { kind: 'compare-combined', files };
  const files = expected.toSorted((a, b) => b.size - a.size);
  for (let at = 0; at < files.length; ) {
    const job: ExpectedFile[] = [];
    let bytes = 0;
    while (at < files.length && bytes < COMPARED_BYTES && job.length < COMPARED_FILES) {
      const file = files[at++] as ExpectedFile;
      job.push(file);
      bytes += file.size;
    }
    yield { kind: 'compare', files: job };
  }
}

async function amounts(
  run: DeltaRun,
  { sizes, stale, foreign }: Survey,
  same: Same,
): Promise<DeltaCompared> {
  const { layout, index, delta, plan, reader, fs, signal } = run;
  const compared: DeltaCompared = {
    ...{ same: none(), changed: none(), removed: none(), read: 0, kept: [] },
  };
  const starts = new Map(
    layout.files.flatMap((tar, i) => [...lengthsAt(tar, index.tars[i], same)]),
  );
  for (const { path, size } of layout.files.flat()) {
    const isSame = same.get(path) === 'all';
    (isSame ? compared.same : compared.changed).files++;
    const stays = isSame ? size : (starts.get(path) ?? 0);
    compared.same.bytes += stays;
    compared.changed.bytes += size - stays;
    const isPeoples = !isSame && sizes.has(path) && !isServersOwn(path, layout);
    if (isPeoples && !(await isKeptAlready(path, fs))) {
      compared.kept.push({ path, as: `${path}.${delta.stamp}` });
    }
  }
  const placed = new Set([...layout.files.flat(), ...layout.combined].map(({ path }) => path));
  for (const { object, to } of plan.adopted) {
    if (object === undefined || !sizes.has(to) || placed.has(to)) continue;
    const isSame = (await fs.readFile(to)).equals(await reader.object(object, signal));
    if (isSame || (await isKeptAlready(to, fs))) continue;
    compared.kept.push({ path: to, as: `${to}.${delta.stamp}` });
  }
  const frames = new Map<string, number>();
  for (const { path, size, file } of run.combined?.files ?? []) {
    const amount = same.has(path) ? compared.same : compared.changed;
    amount.files++;
    amount.bytes += size;
    for (const source of same.has(path) ? [] : file.sources) takeFrames(source, frames);
  }
  for (const stored of frames.values()) compared.read += stored;
  for (const path of foreign) compared.kept.push({ path, as: `${path}.${delta.stamp}` });
  for (const one of stale) {
    const { files, bytes } = await bytesBelow(one, fs);
    compared.removed.files += files;
    compared.removed.bytes += bytes;
  }
  for (const { kind, piece } of writeJobs(run, same)) {
    if (kind !== 'write') continue;
    for (const { stored } of piece.frames) compared.read += stored;
  }
  return compared;
}

/** Bytes of each frame that a file is read from; of neighbours they are the same. */
function takeFrames({ backup, pieces }: FileSource, frames: Map<string, number>): void {
  for (const piece of pieces) {
    for (const { at, stored } of piece.frames)
      frames.set(`${backup} ${piece.volume} ${at}`, stored);
  }
}

/** Of what one delta after the other would keep, and is the same, one copy is enough. */
async function isKeptAlready(path: string, fs: RestoreFileSystem): Promise<boolean> {
  const size = (await fs.stat(path))?.size ?? 0;
  if (size > MOST_COMPARED) return false;
  const [directory, name] = [dirname(path), basename(path)];
  for (const other of await fs.readdir(directory)) {
    const isCopy = other.name.startsWith(`${name}.`) && STAMP.test(other.name);
    if (!isCopy || other.kind !== 'file') continue;
    const copy = join(directory, other.name);
    if ((await fs.stat(copy))?.size !== size) continue;
    if ((await fs.readFile(copy)).equals(await fs.readFile(path))) return true;
  }
  return false;
}

/** Bytes that stay of each file of which only parts do. */
function* lengthsAt(
  files: readonly PlacedFile[],
  tar: TarIndex | undefined,
  same: Same,
): Generator<[string, number]> {
  const lengths = new Map(tar?.frames.map(({ offset, length }) => [offset, length]));
  for (const { path, offset } of files) {
    const parts = same.get(path) ?? [];
    if (parts === 'all' || parts.length === 0) continue;
    yield [path, parts.reduce((sum, at) => sum + (lengths.get(offset + at) ?? 0), 0)];
  }
}

function none(): Amount {
  return { files: 0, bytes: 0 };
}

async function remove(
  path: string,
  kind: Survey['stale'][0]['kind'],
  fs: RestoreFileSystem,
): Promise<void> {
  if (kind === 'directory') await emptyDirectory(path, fs);
  await (kind === 'directory' ? fs.rmdir(path) : fs.unlink(path)).catch((e) => {
    throw storageError('remove', path, e);
  });
}

async function rename(from: string, to: string, fs: RestoreFileSystem): Promise<void> {
  await fs.rename(from, to).catch((e) => {
    throw storageError('rename file', from, e);
  });
}

/** Those that are missing, and the modes and links of all. */
async function makeDirectories(run: DeltaRun, there: ReadonlySet<string>): Promise<void> {
  const { layout, plan, fs } = run;
  const made = { owner: plan.owner, fs };
  for (const root of layout.roots) {
    await makeDirectory(root, { mode: layout.mode, ...made });
    await setMode(root, layout.mode, fs);
  }
  for (const { path, mode } of layout.directories) {
    if (there.has(path)) await setMode(path, mode, fs);
    else await makeOne(path, mode, made);
  }
  for (const { path, to } of layout.links) {
    if (!there.has(path)) await makeLink(path, to, made);
  }
}

async function setMode(path: string, mode: number, fs: RestoreFileSystem): Promise<void> {
  await fs.chmod(path, mode).catch((e) => {
    throw storageError('change the mode of directory', path, e);
  });
}

async function writeChanged(run: DeltaRun, decision: Decision, pool: PoolOptions): Promise<void> {
  const { layout, index, fs, progress } = run;
  const { same, found } = decision;
  const isAnew = ({ path }: PlacedFile) => !same.has(path);
  const changed = layout.files.map((tar) => tar.filter(isAnew));
  const kept = new Set(decision.compared.kept.map(({ path }) => path));
  // Whole: what is a name of theirs elsewhere stays as it is.
  const made = (run.combined?.files ?? []).filter(({ path }) => !same.has(path));
  const names = [...changed.flat(), ...made].map(({ path }) => path);
  const there = names.filter((path) => found.sizes.has(path) && !kept.has(path));
  await severalAtOnce(there, (path) => remove(path, 'file', fs));
  const empty = changed.flat().filter(({ size }) => size === 0);
  const spanning = index.tars.flatMap((tar, i) => spanningFiles(tar.frames, changed[i] ?? []));
  await severalAtOnce([...empty, ...spanning], (file) => makeFile(file, pool.context));
  const partly = layout.files.flat().filter(({ path }) => (same.get(path) ?? 'all') !== 'all');
  await severalAtOnce(partly, (file) => setSize(file, fs));
  const combining = combineBatches(made);
  const jobs: RestoreJob[] = writeJobs(run, same);
  for (const files of combining) jobs.push({ kind: 'combine', files });
  const total = jobs.reduce((sum, job) => sum + bytesOf(job), 0);
  let done = 0;
  await runJobs(jobs, pool, (more) => {
    done += more;
    progress({ phase: 'files', done, total });
  });
}

/** Of a file of which parts stay: it may have grown, or been cut short. */
async function setSize({ path, size }: PlacedFile, fs: RestoreFileSystem): Promise<void> {
  try {
    const fd = await fs.open(path, OPEN_EXISTING, 0);
    try {
      await fs.ftruncate(fd, size);
    } finally {
      await fs.close(fd);
    }
  } catch (e) {
    throw storageError('write file', path, e);
  }
}

/** As the job tells them. */
function bytesOf(job: RestoreJob): number {
  if (job.kind === 'combine') return job.files.reduce((sum, { size }) => sum + size, 0);
  if (job.kind !== 'write') return 0;
  return job.piece.frames.reduce((sum, { length }) => sum + length, 0);
}

/** Reads no frame but those that have something of a file that is to be written. */
function writeJobs(
  { layout, reader, index }: Pick<DeltaRun, 'layout' | 'reader' | 'index'>,
  same: Same,
): (RestoreJob & { kind: 'write' })[] {
  const files = new Map<string, PlacedFile[]>();
  for (const [i, tar] of index.tars.entries()) {
    const own = layout.files[i] ?? [];
    files.set(
      tar.name,
      own.filter(({ path, size }) => same.get(path) !== 'all' && size > 0),
    );
  }
  const jobs: (RestoreJob & { kind: 'write' })[] = [];
  for (const piece of reader.pieces(index)) {
    const own = files.get(piece.tar) ?? [];
    // A part begins where its frame does: what is before it in the file is in others.
    const isToWrite = ({ path, at }: FilePart) => {
      const stays = same.get(path);
      return !Array.isArray(stays) || !stays.includes(at);
    };
    const parts = piece.frames.map((frame) => partsOf(own, frame).filter(isToWrite));
    if (parts.some(({ length }) => length > 0)) jobs.push({ kind: 'write', piece, parts });
  }
  return jobs;
}
