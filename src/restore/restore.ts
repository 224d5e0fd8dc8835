import { randomUUID } from 'node:crypto';
import { TargetError } from '../errors.js';
import { acquireDirectoryLock } from '../files/lock.js';
import { makeDirectory, nodeRestoreFileSystem, type RestoreFileSystem } from './file-system.js';
import { type Marker, makeStartable, removeHalf, removeMarkers } from './marker.js';
import type { RestoreOptions, RestorePlan, RestoreResult } from './options.js';
import { type Prepared, prepare } from './plan.js';
import { protect } from './protect.js';
import { requireFree } from './roots.js';
import { settle } from './settle.js';
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
  await prepared.sources.close();
  return prepared.plan;
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
  try {
    options.onPlan?.(plan);
    const { owner, dataDir } = plan;
    await makeDirectory(dataDir, { mode: prepared.layout.mode, owner, fs });
    const lock = await acquireDirectoryLock(dataDir, { graceMs: 0 });
    try {
      await carryOutProtected(prepared, options, fs);
    } finally {
      await lock.release();
    }
  } finally {
    await sources.close();
  }
  return {
    plan,
    files: prepared.layout.files.reduce((sum, { length }) => sum + length, 0),
    bytes: plan.backup.size,
    duration: performance.now() - began,
  };
}

async function carryOutProtected(
  prepared: Prepared,
  options: RestoreOptions,
  fs: RestoreFileSystem,
): Promise<void> {
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
    await carryOut(prepared, guarded, fs, () => lease?.confirm() ?? Promise.resolve());
  } finally {
    await release();
  }
}

/** Writes what was planned, in a directory that nobody else is at work in. */
export async function carryOut(
  prepared: Pick<Prepared, 'plan' | 'choice' | 'layout' | 'reader' | 'index' | 'command'>,
  { places, jobs = JOBS, signal, keys = {}, onProgress }: Omit<RestoreOptions, 'dataDir'>,
  fs: RestoreFileSystem,
  confirm: () => Promise<void> = async () => {},
): Promise<void> {
  const { plan, choice, layout, reader, index, command } = prepared;
  // As it is now that nobody else is at it.
  const { state, marker: found } = await requireFree(layout, places, fs);
  if (found && state === 'complete') {
    requireSame(found, prepared);
    await makeStartable(found, fs);
    await removeMarkers(found, fs);
    return;
  }
  if (found) await removeHalf(found, fs);
  const { id, size } = plan.backup;
  const { roots, controls, mode, files } = layout;
  const marker: Marker = {
    ...{ format: 1, token: randomUUID(), backup: id, command, roots, controls },
  };
  const total = { bytes: size, files: files.reduce((sum, { length }) => sum + length, 0) };
  const done = { bytes: 0, files: 0 };
  await writeBackup({
    ...{ layout, reader, index, marker, owner: plan.owner, threads: jobs, fs, signal },
    setting:
      fs === nodeRestoreFileSystem
        ? { place: choice.area.place, keys, record: plan.backup, owner: plan.owner }
        : undefined,
    progress: (more, of) => {
      done[of] += more;
      onProgress?.({ phase: of === 'bytes' ? 'files' : 'sync', done: done[of], total: total[of] });
    },
    settle: async () => {
      await settle({ plan, reader, mode, fs, signal });
      // The WAL that the server is to replay is still there.
      await confirm();
    },
  });
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
