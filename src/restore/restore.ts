import { randomUUID } from 'node:crypto';
import { FsyncError, TargetError } from '../errors.js';
import { acquireDirectoryLock, type DirectoryLock } from '../files/lock.js';
import type { Combined } from './combine.js';
import { carryOutDelta, compareDelta, type DeltaRun } from './delta/carry-out.js';
import { makeDirectory, nodeRestoreFileSystem, type RestoreFileSystem } from './file-system.js';
import { type Held, type Marker, makeStartable, removeHalf, removeMarkers } from './marker.js';
import type { DeltaCompared, RestoreOptions, RestorePlan, RestoreResult } from './options.js';
import { type Prepared, prepare } from './plan.js';
import { protect } from './protect.js';
import { requireFree } from './roots.js';
import { settle } from './settle.js';
import type { WorkerSetting } from './worker.js';
import { writeBackup } from './write.js';

const JOBS = 2;

/**
 * What `restoreBackup` would do. Nothing is written, and all that would refuse it has been looked at.
 * @throws UnreachableTargetError with the nearest target that there is a way to; TargetError for
 *   directories that cannot take it; UsageError; CorruptObjectError, EncryptedError,
 *   StoreAccessError, StoreUncertainError, StorageError
 */
export async function planRestore(
  options: RestoreOptions,
  fs: RestoreFileSystem = nodeRestoreFileSystem,
): Promise<RestorePlan> {
  const prepared = await prepare(options, fs);
  const { plan, delta, sources } = prepared;
  try {
    if (!plan.delta || !delta) return plan;
    const run = deltaRun({ ...prepared, delta }, options, fs, NOTHING_HELD);
    return { ...plan, delta: { ...plan.delta, compared: await compareDelta(run) } };
  } finally {
    await sources.close();
  }
}

/**
 * Puts a base backup in place so that the server, when it is started, recovers to the target. Until
 * all is durable nothing there can be started; the same call goes on where one was killed.
 * @throws as `planRestore`; CorruptObjectError that names the object, the signal's reason
 */
export async function restoreBackup(
  options: RestoreOptions,
  fs: RestoreFileSystem = nodeRestoreFileSystem,
): Promise<RestoreResult> {
  const began = performance.now();
  const prepared = await prepare(options, fs);
  const { plan, sources } = prepared;
  let compared: DeltaCompared | undefined;
  try {
    options.onPlan?.(plan);
    const { owner, dataDir } = plan;
    await makeDirectory(dataDir, { mode: prepared.layout.mode, owner, fs });
    const lock = await acquireDirectoryLock(dataDir, { graceMs: 0 });
    try {
      compared = await carryOutProtected(prepared, options, fs, lock);
    } finally {
      await lock.release();
    }
  } finally {
    await sources.close();
  }
  const total = totalOf(prepared);
  return {
    plan,
    files: compared?.changed.files ?? total.files,
    bytes: compared?.changed.bytes ?? total.bytes,
    duration: performance.now() - began,
    compared,
  };
}

async function carryOutProtected(
  prepared: Prepared,
  options: RestoreOptions,
  fs: RestoreFileSystem,
  { leaveNoName }: DirectoryLock,
): Promise<DeltaCompared | undefined> {
  const { signal, onWarning } = options;
  const { lease, problem, release } = await protect(prepared.choice, signal, (expire) =>
    onWarning?.(`waiting for expire "${expire}" to end`),
  );
  try {
    if (problem !== undefined) {
      onWarning?.(`no expire is kept away from "${prepared.plan.place}": ${problem}`);
    }
    const signals = [signal, lease?.signal].filter((one) => one !== undefined);
    const guarded = { ...options, signal: AbortSignal.any(signals) };
    const confirm = () => lease?.confirm() ?? Promise.resolve();
    return await carryOut(prepared, guarded, fs, { confirm, leaveNoName });
  } finally {
    await release();
  }
}

/** Bytes of tar, with those that come out of other backups, and files. */
function totalOf({ plan, layout, combined }: Pick<Prepared, 'plan' | 'layout' | 'combined'>) {
  const others = combined?.files ?? [];
  return {
    bytes: others.reduce((sum, { size }) => sum + size, plan.backup.size),
    files: layout.files.reduce((sum, { length }) => sum + length, others.length),
  };
}

/** What carrying out takes of all that was prepared. */
type Carried = Pick<
  Prepared,
  'plan' | 'choice' | 'layout' | 'combined' | 'reader' | 'index' | 'command' | 'delta'
>;
type CarryOptions = Omit<RestoreOptions, 'dataDir'>;

const NOTHING_HELD: Held = { confirm: async () => {}, leaveNoName: async () => {} };

/**
 * Writes what was planned, in a directory that nobody else is at work in.
 * @returns of a delta what was done with what was there
 */
export async function carryOut(
  prepared: Carried,
  options: CarryOptions,
  fs: RestoreFileSystem,
  held: Held = NOTHING_HELD,
): Promise<DeltaCompared | undefined> {
  try {
    return await carryOutEither(prepared, options, fs, held);
  } catch (e) {
    if (!(e instanceof FsyncError)) throw e;
    const { message, path = prepared.plan.dataDir, cause } = e;
    throw new FsyncError(message, { path, cause, hint: LOST_WRITES });
  }
}

/** What is read is what is in memory: a delta would find it the same, and nothing is left to sync. */
const LOST_WRITES =
  'Some of what was written is in memory only, and looks as if it were on disk. Check the disk; reboot before the restore is run again there, or restore into another, empty directory.';

async function carryOutEither(
  prepared: Carried,
  options: CarryOptions,
  fs: RestoreFileSystem,
  held: Held,
): Promise<DeltaCompared | undefined> {
  const { plan, layout, combined, reader, index, command, delta } = prepared;
  if (delta) return carryOutDelta(deltaRun({ ...prepared, delta }, options, fs, held));
  const { places, jobs = JOBS, signal, onProgress } = options;
  // As it is now that nobody else is at it.
  const { state, marker: found } = await requireFree(layout, places, fs);
  if (found && state === 'complete') {
    requireSame(found, prepared);
    await makeStartable(found, fs);
    await held.leaveNoName();
    await removeMarkers(found, fs);
    return undefined;
  }
  if (found) await removeHalf(found, fs);
  const { id } = plan.backup;
  const { roots, controls, mode } = layout;
  const marker: Marker = {
    ...{ format: 1, token: randomUUID(), backup: id, command, roots, controls },
  };
  const total = totalOf(prepared);
  const done = { bytes: 0, files: 0 };
  await writeBackup({
    ...{ layout, combined, reader, index, marker, owner: plan.owner, threads: jobs, fs, signal },
    setting: settingOf(prepared, options, fs),
    progress: (more, of) => {
      done[of] += more;
      onProgress?.({ phase: of === 'bytes' ? 'files' : 'sync', done: done[of], total: total[of] });
    },
    settle: async () => {
      await settle({ plan, reader, mode, fs, signal });
      await held.confirm();
    },
    leaveNoName: held.leaveNoName,
  });
  return undefined;
}

/** What a thread opens the backup with; undefined for a file system that no thread has. */
function settingOf(
  { choice, plan, combined }: Carried,
  { keys = {} }: CarryOptions,
  fs: RestoreFileSystem,
): WorkerSetting | undefined {
  if (fs !== nodeRestoreFileSystem) return undefined;
  const chain = placesOf(combined);
  return { place: choice.area.place, keys, record: plan.backup, owner: plan.owner, chain };
}

function deltaRun(
  prepared: Carried & Pick<DeltaRun, 'delta'>,
  options: CarryOptions,
  fs: RestoreFileSystem,
  { confirm, leaveNoName }: Held,
): DeltaRun {
  const { plan, layout, combined, reader, index, delta } = prepared;
  const { jobs = JOBS, signal, onProgress, onCompared } = options;
  return {
    ...{ plan, layout, combined, reader, index, delta, threads: jobs, fs, signal, onCompared },
    setting: settingOf(prepared, options, fs),
    progress: (progress) => onProgress?.(progress),
    settle: async () => {
      await settle({ plan, reader, mode: layout.mode, fs, signal });
      await confirm();
    },
    leaveNoName,
  };
}

/** What a thread opens the chain with. */
function placesOf(combined: Combined | undefined): WorkerSetting['chain'] {
  if (!combined) return undefined;
  const { links, geometry, checksums } = combined.chain;
  const places = links.map(({ area, record }) => ({ place: area.place, record }));
  return { geometry, checksums, links: places };
}

/** @throws TargetError if another restore has ended there, of which only the markers are left */
function requireSame(found: Marker, { plan, command }: Pick<Prepared, 'plan' | 'command'>): void {
  if (found.command === command) return;
  throw new TargetError(`directory "${plan.dataDir}" is not empty`, {
    path: plan.dataDir,
    detail: `Backup ${found.backup} was restored into it.`,
    hint: 'Restore into another one, or move what is in it away: nothing is overwritten.',
  });
}
