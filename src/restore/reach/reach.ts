import { BackupReader } from '../../archive/backups/reader.js';
import type { Catalog } from '../../archive/catalog.js';
import { openChain } from '../../archive/combine/chain.js';
import type { ArchiveOptions, StoreEnvironment } from '../../archive/places/open-archive.js';
import { locateServed } from '../../archive/targets/served.js';
import type { LocatedTarget, RecoveryTarget } from '../../archive/targets/target.js';
import { planTimeline } from '../../archive/way/plan.js';
import type { BackupRecord } from '../../base/backup-record.js';
import { InternalError, UnreachableTargetError } from '../../errors.js';
import { type Lsn, parseLsn } from '../../lsn.js';
import {
  type Choice,
  type ChooseOptions,
  chooseBackup,
  type ReplayedWal,
  walOf,
} from '../choose.js';
import { openSources, type Sources } from '../sources.js';
import { type Lost, lostBehind } from './lost.js';
import { type NearPoints, nearPoints } from './near.js';

export interface ReachOptions {
  /** Directories and URLs: WAL comes from all of them, the backup from the first that has it. */
  places: readonly string[];
  target: RecoveryTarget;
  /** Along the way to this timeline; default: the newest. */
  timeline?: number | undefined;
  /** This backup, and not the newest that fits. */
  backup?: string | undefined;
  keys?: ArchiveOptions | undefined;
  /** Of a place: where its credentials are; default: the process's. */
  envOf?: ((place: string) => StoreEnvironment | undefined) | undefined;
  signal?: AbortSignal | undefined;
}

/** How `restore` gets to a target, wherever that is to be. */
export interface Reached {
  backup: BackupRecord;
  /** Where the backup lies. */
  place: string;
  /** What it is made of, the full backup first. */
  chain: readonly BackupRecord[];
  /**
   * The same as a target that stays what it is, whatever is archived from now on: recovery to it along
   * the way to `located.timeline` ends just there. Only the end of the archive moves on.
   */
  exact: RecoveryTarget;
  located: LocatedTarget;
  wal: ReplayedWal;
  /** Timelines in the order of their replay; `until` where the next one begins. */
  timelines: readonly { timeline: number; until?: Lsn }[];
  lost: Lost;
  warnings: readonly string[];
}

export type Reach =
  | { reached: Reached }
  | { refused: UnreachableTargetError; near: NearPoints; warnings: readonly string[] };

/**
 * Which way leads to a target, as `planRestore` decides it, without a look at the directory that the
 * backup would go to, which may be another machine's.
 * @throws UsageError, CorruptObjectError, EncryptedError, StoreAccessError, StoreUncertainError,
 *   StorageError, the signal's reason
 */
export async function reachTarget(options: ReachOptions): Promise<Reach> {
  const { places, keys = {}, envOf, signal, target, timeline, backup } = options;
  const sources = await openSources(places, keys, signal, envOf);
  const choosing: ChooseOptions = {
    ...{ catalog: sources.catalog, candidates: sources.candidates, locate: locateServed, signal },
    ...{ target, timeline, backup, problems: sources.problems, keys },
  };
  const warnings = sources.problems.map(({ message }) => message);
  try {
    const reached = await wayTo(choosing, sources);
    return { reached: { ...reached, warnings: [...reached.located.notes, ...warnings] } };
  } catch (e) {
    if (!(e instanceof UnreachableTargetError)) throw e;
    return { refused: e, near: await nearPoints(choosing), warnings };
  } finally {
    await sources.close();
  }
}

async function wayTo(
  choosing: ChooseOptions,
  { catalog }: Sources,
): Promise<Omit<Reached, 'warnings'>> {
  const { keys, signal } = choosing;
  const asked = await chooseBackup(choosing);
  const exact = exactTarget(asked);
  const { timeline } = asked.located;
  const pinned = exact.kind === 'immediate' ? asked.record.id : choosing.backup;
  const choice = await chooseBackup({ ...choosing, target: exact, timeline, backup: pinned });
  if (choice.located.lsn !== asked.located.lsn) {
    throw new InternalError('a target and the place that it was found at are not the same');
  }
  // What proves it is read by a restore first of all, and may be encrypted or damaged.
  await new BackupReader(choice.area, choice.record, keys).index(signal);
  if (choice.links.length > 1) await openChain(choice.links, keys, signal);
  return {
    ...{ backup: choice.record, place: choice.area.place, exact, located: choice.located },
    chain: choice.links.map(({ record }) => record),
    wal: walOf(choice, catalog),
    timelines: timelinesOf(catalog, choice),
    lost: await lostBehind(catalog, choice.located, signal),
  };
}

function exactTarget({ located: { setting } }: Choice): RecoveryTarget {
  if (!setting) return { kind: 'latest' };
  switch (setting.name) {
    case 'recovery_target':
      return { kind: 'immediate' };
    case 'recovery_target_lsn':
      return { kind: 'lsn', lsn: parseLsn(setting.value), inclusive: setting.inclusive };
    default:
      throw new InternalError(`a target is found by its LSN, not by ${setting.name}`);
  }
}

/** From the backup's on to that on which recovery ends. */
function timelinesOf(
  catalog: Catalog | undefined,
  { record: { start }, located: { timeline, lsn } }: Choice,
): Reached['timelines'] {
  if (!catalog) return [{ timeline }];
  const { ancestors } = planTimeline(catalog, timeline).history;
  const passed = ancestors.filter((one) => one.end > start.lsn && one.end < lsn);
  const last = ancestors.find((one) => one.end >= lsn)?.timeline ?? timeline;
  return [...passed.map(({ timeline, end }) => ({ timeline, until: end })), { timeline: last }];
}
