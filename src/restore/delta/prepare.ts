import { join } from 'node:path';
import type { Catalog } from '../../archive/catalog.js';
import type { RestoreFileSystem } from '../file-system.js';
import type { DeltaPlan } from '../options.js';
import { requireSpace, type Space, spaceOf } from '../space.js';
import { requireMovable, stampOf, unarchivedIn } from './old-wal.js';
import { type Conditions, requireDelta, type Standing } from './standing.js';
import { bytesBelow, type Survey, survey } from './survey.js';

/** All that a delta takes beside a plan. */
export interface PreparedDelta {
  standing: Standing;
  conditions: Conditions;
  /** What is kept of what is there gets it behind its name. */
  stamp: string;
  /** Files that are written beside those of the layout, whatever is there. */
  written: ReadonlySet<string>;
}

export interface DeltaOptions extends Conditions {
  catalog: Catalog | undefined;
  /** Bytes that recovery puts into pg_wal. */
  wal: number;
  written: ReadonlySet<string>;
  /** Files that are made of a chain of backups, and about how large they are. */
  combined: readonly { path: string; size: number }[];
}

/**
 * Looks over the directory that a delta is to change.
 * @throws TargetError, NotSupportedError, StorageError
 */
export async function prepareDelta(
  standing: Standing,
  { catalog, wal, written, combined, ...conditions }: DeltaOptions,
  fs: RestoreFileSystem,
): Promise<{ prepared: PreparedDelta; plan: DeltaPlan; space: Space[] }> {
  const unseen = await requireDelta(standing, conditions, fs);
  const { dataDir, resumed } = standing;
  const prepared = {
    ...{ standing, conditions, written, stamp: resumed?.stamp ?? (await newStamp(dataDir, fs)) },
  };
  const { from, to, isMoved } = await oldWalOf(prepared, fs);
  const { systemId } = conditions.record;
  const looked = isMoved ? to : from;
  const known = { catalog, systemId, fs };
  const unarchived = looked === undefined ? undefined : await unarchivedIn(looked, known);
  if (!isMoved) await requireMovable(from as string, standing.walDir !== undefined);
  const found = await surveyOf(prepared, fs);
  const space = await spaceFor(found, { ...conditions, combined, wal }, fs, dataDir);
  requireSpace(space);
  return {
    ...{ prepared, space },
    plan: {
      ...{ resumed: resumed !== undefined, unseen },
      ...{ oldWal: unarchived ? to : undefined, unarchived: unarchived ?? [] },
    },
  };
}

/** One that nothing has been put aside by: what has that name is taken for what was kept before. */
async function newStamp(dataDir: string, fs: RestoreFileSystem): Promise<string> {
  const names = (await fs.readdir(dataDir)).map(({ name }) => name);
  for (let time = Date.now(); ; time += 1000) {
    const stamp = stampOf(new Date(time));
    if (!names.some((name) => name.endsWith(`.${stamp}`))) return stamp;
  }
}

/** What becomes of the old pg_wal. */
export interface OldWal {
  from: string | undefined;
  to: string | undefined;
  /** It is there already: by a run that was cut short, or since pg_wal will lead elsewhere. */
  isMoved: boolean;
}

/** What becomes of the pg_wal that is there. */
export async function oldWalOf(
  { standing, conditions, stamp }: Pick<PreparedDelta, 'standing' | 'conditions' | 'stamp'>,
  fs: RestoreFileSystem,
): Promise<OldWal> {
  const { dataDir, resumed, walDir } = standing;
  if (resumed) {
    const to = resumed.oldWal;
    const isMoved = to === undefined || (await fs.stat(to)) !== undefined;
    return { from: isMoved ? undefined : (walDir ?? join(dataDir, 'pg_wal')), to, isMoved };
  }
  const from = walDir ?? join(dataDir, 'pg_wal');
  const leads = conditions.layout.links.find(({ path }) => path === join(dataDir, 'pg_wal'))?.to;
  if (walDir !== undefined && leads !== walDir) return { from, to: from, isMoved: true };
  const has = await unarchivedIn(from, { catalog: undefined, systemId: 0n, fs, namesOnly: true });
  if (has === undefined) return { from: undefined, to: undefined, isMoved: true };
  return { from, to: `${from}.${stamp}`, isMoved: false };
}

export async function surveyOf(
  { standing, conditions, written, stamp }: PreparedDelta,
  fs: RestoreFileSystem,
): Promise<Survey> {
  const { isMoved } = await oldWalOf({ standing, conditions, stamp }, fs);
  const { layout, record } = conditions;
  const major = Math.floor(record.serverVersion / 10_000);
  return survey(standing, { layout, major, written, keepWal: !isMoved, fs });
}

/** What files need more than what is there has, which is removed before. */
async function spaceFor(
  { sizes, stale }: Survey,
  { layout, combined, wal }: Conditions & Pick<DeltaOptions, 'combined' | 'wal'>,
  fs: RestoreFileSystem,
  dataDir: string,
): Promise<Space[]> {
  const files = layout.files.map((tar) =>
    tar.map((file) => ({ ...file, size: Math.max(0, file.size - (sizes.get(file.path) ?? 0)) })),
  );
  const more = combined.map(({ path, size }) => ({
    ...{ path, size: Math.max(0, size - (sizes.get(path) ?? 0)) },
  }));
  const space = await spaceOf({ ...layout, files, directories: [] }, wal, more);
  const [main] = space;
  for (const one of main ? stale : []) {
    if (!one.path.startsWith(`${dataDir}/`)) continue;
    const { bytes } = await bytesBelow(one, fs);
    (main as Space).needed = Math.max(0, (main as Space).needed - bytes);
  }
  return space;
}
