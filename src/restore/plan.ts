import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { BackupReader } from '../archive/backups/reader.js';
import { locateServed } from '../archive/targets/served.js';
import { planTimeline } from '../archive/way/plan.js';
import type { BaseIndex } from '../base/base-index.js';
import { TargetError, UsageError } from '../errors.js';
import { type ControlSettings, controlSettings } from '../server/control-file.js';
import { segmentFileName, segmentOf } from '../wal/file-name.js';
import { type Choice, chooseBackup, walOf } from './choose.js';
import { type Combined, combinedOf } from './combine.js';
import { commandOf } from './command.js';
import { missingPaths } from './config/adopt.js';
import { adoptedFiles } from './config/adopted.js';
import { adoptionNotes } from './config/notes.js';
import { settingsIn } from './config-file.js';
import { type PreparedDelta, prepareDelta } from './delta/prepare.js';
import { standingIn } from './delta/standing.js';
import type { RestoreFileSystem } from './file-system.js';
import { type Layout, layoutOf, type Roots } from './layout.js';
import type { Marker } from './marker.js';
import { readMember } from './member.js';
import type { RestoreOptions, RestorePlan } from './options.js';
import { ownerOf } from './owner.js';
import { pathOf, realPath, requireFree, rootsOf } from './roots.js';
import { requireFetch } from './runnable.js';
import { type RecoverySettings, restoreCommandOf, settingLines } from './settings.js';
import { openSources, type Sources } from './sources.js';
import { requireSpace, spaceOf } from './space.js';

/** A plan, and all that carrying it out takes. */
export interface Prepared {
  plan: RestorePlan;
  sources: Sources;
  choice: Choice;
  reader: BackupReader;
  index: BaseIndex;
  layout: Layout;
  /** Of an incremental backup: what is made of its chain. */
  combined?: Combined | undefined;
  /** Of what stands in the data directory already. */
  found: Marker | undefined;
  /** What was asked for: the same for the same command. */
  command: string;
  /** Absent: into empty directories. */
  delta?: PreparedDelta | undefined;
}

/** Says of every file that it is not there. */
const NOTHING = 'false';

/** Recovery keeps segments until its next restart point: what max_wal_size is by default. */
const MOST_WAL = 1024 * 1024 * 1024;
/** Segments that are read ahead, and the one that is replayed. */
const WAL_AHEAD = 6;

/**
 * Everything that can refuse a restore does so here, before anything is written.
 * @throws UnreachableTargetError, TargetError, UsageError, CorruptObjectError; what places throw
 */
export async function prepare(given: RestoreOptions, fs: RestoreFileSystem): Promise<Prepared> {
  const { places, keys = {}, signal } = given;
  const options = withoutLinks(given);
  requireSense(options);
  const sources = await openSources(places, keys, signal);
  try {
    const choice = await chooseBackup({
      ...{ catalog: sources.catalog, candidates: sources.candidates, locate: locateServed, signal },
      ...{ target: options.target ?? { kind: 'latest' } },
      ...{ timeline: options.timeline, backup: options.backup, problems: sources.problems, keys },
    });
    return await planOf(options, sources, choice, fs);
  } catch (e) {
    await sources.close();
    throw e;
  }
}

/** A directory may be a link's: what is written, looked at and compared is what it leads to. */
function withoutLinks(options: RestoreOptions): RestoreOptions {
  const { dataDir, walDir, polarData, configDir } = options;
  const real = (path: string | undefined) =>
    path !== undefined && isAbsolute(path) ? realPath(path) : path;
  return {
    ...{ ...options, dataDir: real(dataDir) as string },
    ...{ walDir: real(walDir), polarData: real(polarData), configDir: real(configDir) },
  };
}

/** @throws UsageError for options that contradict each other */
function requireSense({ target, standby, action }: RestoreOptions): void {
  const hasTarget = target !== undefined && target.kind !== 'latest';
  if (action !== undefined && !hasTarget) {
    throw new UsageError('an action needs a target', {
      hint: 'At the end of the archive the server is promoted; --standby keeps it in recovery.',
    });
  }
  if (standby?.conninfo !== undefined && hasTarget) {
    throw new UsageError('a standby that streams has no target');
  }
}

async function planOf(
  given: RestoreOptions,
  sources: Sources,
  choice: Choice,
  fs: RestoreFileSystem,
): Promise<Prepared> {
  const { dataDir, keys = {}, signal, places } = given;
  const { record, area, located } = choice;
  const standing = given.delta ? await standingIn(dataDir, fs) : undefined;
  // As a link leads to it that is there already.
  const options = { ...given, walDir: given.walDir ?? standing?.walDir };
  const reader = new BackupReader(area, record, keys);
  const index = await reader.index(signal);
  const roots = rootsOf(record, options);
  const layout = layoutOf(record, index, roots);
  const combined = await combinedOf(choice.links, layout, keys, signal);
  const owner = await ownerOf(options.owner, dataDir);
  const wal = walOf(choice, sources.catalog);
  const walBytes = Math.min(Number(wal.to - wal.from), MOST_WAL) + WAL_AHEAD * record.segmentSize;
  const configDir = options.configDir ?? dataDir;
  const occupied = new Set(
    layout.files.flat().flatMap(({ path }) => (dirname(path) === dataDir ? [path] : [])),
  );
  const adopted = adoptedFiles(record.outside, configDir, occupied);
  const written = new Set(adopted.filter(({ object }) => object).map(({ to }) => to));
  const delta =
    standing &&
    (await prepareDelta(
      standing,
      {
        ...{ record, layout, places, owner, tablespaces: roots.tablespaces, written },
        ...{ standby: options.standby !== undefined, catalog: sources.catalog, wal: walBytes },
        combined: combined?.files ?? [],
      },
      fs,
    ));
  const { state, marker } = delta
    ? ({ state: 'taken', marker: undefined } as const)
    : await requireFree(layout, places, fs);
  const space = delta ? delta.space : await spaceOf(layout, walBytes, combined?.files);
  // What a half restore has there is removed first.
  if (state === 'empty' || state === 'absent') requireSpace(space);
  const isBegun = marker !== undefined || standing?.resumed !== undefined;
  if (configDir !== dataDir && !isBegun) requireUnused(adopted);
  const config = await configOf(reader, index, adopted, signal);
  const adoption = { dataDir, configDir, adopted, occupied, main: config };
  const notes = await adoptionNotes(reader, index, adoption, signal);
  // All that it needs is in the backup, and a place without any WAL is no answer to a server.
  const isAlone = record.wal === 'included' && !sources.catalog && !options.standby;
  // The server fails if its WAL ends before the target: what was torn off is never passed over.
  const allowTorn = located.setting !== undefined && located.gap?.isPartial === true;
  const own = isAlone ? NOTHING : restoreCommandOf({ ...keys, places, allowTorn });
  const restoreCommand = options.restoreCommand ?? own;
  const isTried = options.restoreCommand === undefined && options.tryFetch !== false && !isAlone;
  if (isTried && state !== 'complete') {
    const names = firstNames(choice, sources);
    const included = record.wal === 'included';
    const { environment } = options;
    await requireFetch({ command: restoreCommand, owner, names, included, environment, signal });
  }
  const action = options.action ?? 'pause';
  const settings: RecoverySettings = {
    ...{ located, restoreCommand, action, standby: options.standby },
    ...{ keepArchiving: options.keepArchiving === true, keepSync: options.keepSync === true },
    control: await controlOf(reader, index, signal),
    configured: settingsIn(config),
    serverVersion: record.serverVersion,
  };
  const lines = settingLines(settings);
  if (options.polarData !== undefined) lines.push(...polarLines(options.polarData));
  const plan: RestorePlan = {
    ...{ backup: record, place: area.place, target: options.target ?? { kind: 'latest' }, located },
    ...{ wal, dataDir, walDir: options.walDir, polarData: options.polarData, configDir, owner },
    tablespaces: record.tablespaces.map(({ oid, location, inPlace }) => ({
      ...{ oid, from: pathOf(location), inPlace },
      to: inPlace
        ? join(dataDir, 'pg_tblspc', String(oid))
        : (roots.tablespaces.get(oid) as string),
    })),
    ...{ space, settings: lines, action, adopted },
    signalFile: options.standby ? 'standby.signal' : 'recovery.signal',
    state: state === 'half' || state === 'complete' ? state : 'fresh',
    delta: delta?.plan,
    warnings: [
      ...warningsOf(options, choice, sources, config),
      ...notes,
      ...(delta?.plan.unseen ?? []),
    ],
    command: commandOf(withMapping(options, record, roots)),
  };
  // The members are in the layout: of a hundred thousand files once is enough.
  const frames = { tars: index.tars.map((tar) => ({ ...tar, members: [] })) };
  // Of two runs of one command the second may find newer WAL.
  const command = createHash('sha256').update(plan.command).digest('hex').slice(0, 16);
  const begun = { found: marker, command, delta: delta?.prepared };
  return { plan, sources, choice, reader, index: frames, layout, combined, ...begun };
}

/** Files of a chain are in no manifest before they are made: there is nothing to compare with. */
/** With the place of each tablespace that is not where it was. */
function withMapping(
  options: RestoreOptions,
  { tablespaces }: RestorePlan['backup'],
  roots: Roots,
): RestoreOptions {
  const moved = tablespaces.flatMap(({ oid, location }) => {
    const [from, to] = [pathOf(location), roots.tablespaces.get(oid)];
    return to === undefined || to === realPath(from) ? [] : [[from, to]];
  });
  return { ...options, tablespaces: Object.fromEntries(moved) };
}

/** @throws TargetError where somebody's configuration would be overwritten */
function requireUnused(adopted: RestorePlan['adopted']): void {
  const taken = adopted.find(({ to }) => existsSync(to));
  if (!taken) return;
  throw new TargetError(`there is a file "${taken.to}" already`, {
    path: taken.to,
    hint: 'Give another --config-dir, or move it away: nothing is overwritten.',
  });
}

/**
 * Under which the first segment may be stored: where a timeline was left in it, also under those that
 * follow.
 */
function firstNames({ record, located }: Choice, { catalog }: Sources): string[] {
  const { start, segmentSize } = record;
  const way = catalog && planTimeline(catalog, located.timeline).history;
  const others = [...(way?.ancestors ?? []).map(({ timeline }) => timeline), located.timeline];
  const timelines = [start.timeline, ...others.filter((timeline) => timeline > start.timeline)];
  const segment = segmentOf(start.lsn, segmentSize);
  return timelines.map((timeline) => segmentFileName(timeline, segment, segmentSize));
}

/** The text of the settings that the server would read, without what it includes. */
async function configOf(
  reader: BackupReader,
  index: BaseIndex,
  adopted: RestorePlan['adopted'],
  signal: AbortSignal | undefined,
): Promise<string> {
  const outer = adopted.find(({ to, object }) => to.endsWith('/postgresql.conf') && object);
  const own = outer?.object
    ? await reader.object(outer.object, signal)
    : await readMember(reader, index, 'postgresql.conf', signal);
  const auto = await readMember(reader, index, 'postgresql.auto.conf', signal);
  return `${own?.toString('utf8') ?? ''}\n${auto?.toString('utf8') ?? ''}`;
}

async function controlOf(
  reader: BackupReader,
  index: BaseIndex,
  signal: AbortSignal | undefined,
): Promise<ControlSettings | undefined> {
  for (const tar of ['base.tar', 'data.tar']) {
    const content = await readMember(reader, index, 'global/pg_control', signal, tar);
    if (content) return controlSettings(content);
  }
  return undefined;
}

/** PolarDB finds its second directory by these. */
function polarLines(directory: string): string[] {
  return [`polar_datadir = 'file-dio://${directory}'`, 'polar_vfs.localfs_mode = true'];
}

function warningsOf(
  options: RestoreOptions,
  { located, record }: Choice,
  { problems }: Sources,
  config: string,
): string[] {
  const warnings = [...located.notes, ...problems.map(({ message }) => message)];
  const archiving = settingsIn(config).get('archive_mode') ?? 'off';
  if (archiving !== 'off' && !options.keepArchiving) {
    warnings.push(
      `archive_mode is off in the restored server (it was ${archiving}): turn it on with "walkeep restore --finish" when this one takes over`,
    );
  }
  if (archiving !== 'off' && options.keepArchiving) {
    warnings.push('the restored server archives where the lost one did, from its promotion on');
  }
  for (const { path, object, kind } of record.outside) {
    const isFile = kind === 'settings' || kind === 'authentication';
    if (isFile && object === undefined)
      warnings.push(`the backup does not have the content of "${path}"`);
  }
  for (const setting of missingPaths(config, existsSync)) {
    warnings.push(`this machine does not have what the configuration names: ${setting}`);
  }
  return warnings;
}
