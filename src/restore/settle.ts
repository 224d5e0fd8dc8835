import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { BackupReader } from '../archive/backups/reader.js';
import { fullBackupLabel, parseTablespaceMap, tablespaceMap } from '../base/label.js';
import { storageError, writeFileDurably } from '../files/durable.js';
import {
  adoptFile,
  adoptOptions,
  MINIMAL_CONFIG,
  MINIMAL_HBA,
  OWN_FILES,
  oldDataDirOf,
} from './config/adopt.js';
import { adoptedDirectories } from './config/adopted.js';
import { withBlock, without } from './config-file.js';
import { makeDirectory, type Owner, type RestoreFileSystem } from './file-system.js';
import type { RestorePlan } from './options.js';
import { RECOVERY_SETTINGS } from './settings.js';

/** WAL that a backup brings along, as an object: the name of the file, and how it is compressed. */
const INCLUDED = /^wal\/([0-9A-F]{24}|[0-9A-F]{8}\.history)(\.\w+)?$/;

const MANIFEST = 'backup_manifest';

export interface SettleOptions {
  plan: RestorePlan;
  reader: BackupReader;
  /** Of directories; files have no more than its bits for reading and writing. */
  mode: number;
  fs: RestoreFileSystem;
  signal?: AbortSignal | undefined;
}

/**
 * Writes what makes of the files of a backup a server that recovers: each file in one step and
 * durably, so that it can be done again.
 */
export async function settle(options: SettleOptions): Promise<void> {
  const { plan, reader, fs, signal } = options;
  const { dataDir } = plan;
  await settleTablespaces(options);
  await settleLabel(options);
  await settleConfig(options);
  const auto = join(dataDir, 'postgresql.auto.conf');
  const before = (await readText(auto, fs)) ?? '';
  const stripped = without(before, (name) => RECOVERY_SETTINGS.has(name));
  // The bytes of a text stay as they are, and what is new in it is UTF-8.
  const lines = plan.settings.map((line) => Buffer.from(line).toString('latin1'));
  await put(auto, withBlock(stripped, lines), options);
  for (const { name } of plan.backup.objects) {
    const [, file] = INCLUDED.exec(name) ?? [];
    if (file === undefined) continue;
    const wal = plan.walDir ?? join(dataDir, 'pg_wal');
    await put(join(wal, file), await reader.content(name, signal), options);
    // It was archived, or needs not to be.
    await put(join(wal, 'archive_status', `${file}.done`), '', options);
  }
  await put(join(dataDir, plan.signalFile), '', options);
  await putManifest(options);
}

/** Where pg_verifybackup looks for it, as pg_basebackup leaves it; last, as that does. */
async function putManifest(options: SettleOptions): Promise<void> {
  const { plan, reader, signal } = options;
  const { objects, parent } = plan.backup;
  // That of an incremental backup is of other files than those that are made of it.
  if (parent !== undefined || !objects.some(({ name }) => name === MANIFEST)) return;
  await put(join(plan.dataDir, MANIFEST), await reader.content(MANIFEST, signal), options);
}

/** The server makes its links anew of this file when it starts: it must lead to the new places. */
async function settleTablespaces(options: SettleOptions): Promise<void> {
  const path = join(options.plan.dataDir, 'tablespace_map');
  const content = await readBytes(path, options.fs);
  if (!content) return;
  const known = new Map(options.plan.tablespaces.map(({ oid, to }) => [oid, to]));
  const links = parseTablespaceMap(content, path).map(({ oid, path: old }) => {
    const to = known.get(oid);
    return { oid, path: to === undefined ? old : Buffer.from(to, 'utf8').toString('latin1') };
  });
  await put(path, tablespaceMap(links), options);
}

/** A server does not start on an incremental backup: what was combined is a full one. */
async function settleLabel(options: SettleOptions): Promise<void> {
  if (options.plan.backup.parent === undefined) return;
  const path = join(options.plan.dataDir, 'backup_label');
  const content = await readBytes(path, options.fs);
  if (content) await put(path, fullBackupLabel(content), options);
}

async function settleConfig(options: SettleOptions): Promise<void> {
  const { plan, reader, fs, signal } = options;
  const { dataDir, configDir, adopted } = plan;
  for (const { object, to } of adopted) {
    if (object === undefined) continue;
    const content = await reader.object(object, signal);
    await put(to, content, options);
  }
  const directories = adoptedDirectories(plan.backup.outside, configDir);
  for (const { to } of directories) {
    await makeDirectory(to, { mode: options.mode, owner: plan.owner, fs });
  }
  const main = join(configDir, 'postgresql.conf');
  const kinds = new Map(plan.backup.outside.map(({ path, kind }) => [path, kind]));
  const own = OWN_FILES.flatMap(([name, kind]) => {
    const path = join(dataDir, name);
    const isUnused = name === 'postgresql.conf' && configDir !== dataDir;
    return isUnused ? [] : [{ from: path, to: path, kind }];
  });
  const outer = adopted.map((file) => ({ ...file, kind: kinds.get(file.from) ?? 'settings' }));
  const taken = new Set(outer.map(({ to }) => to));
  const oldDataDir = oldDataDirOf((await readText(main, fs)) ?? '');
  const common = adoptOptions(plan, adopted, directories, { oldDataDir, exists: existsSync });
  for (const { kind, ...file } of [...outer, ...own.filter(({ to }) => !taken.has(to))]) {
    const text = await readText(file.to, fs);
    if (text === undefined) continue;
    const adapted = adoptFile(text, kind, { ...common, file });
    if (adapted !== text) await put(file.to, adapted, options);
  }
  if ((await readBytes(main, fs)) === undefined) await put(main, MINIMAL_CONFIG, options);
  const hba = join(configDir, 'pg_hba.conf');
  if ((await readBytes(hba, fs)) === undefined) await put(hba, MINIMAL_HBA, options);
}

async function put(
  path: string,
  data: Uint8Array | string,
  { plan, mode, fs }: SettleOptions,
): Promise<void> {
  const owner: Owner | undefined = plan.owner;
  await makeDirectory(dirname(path), { mode, owner, fs });
  const temporary = `${path}.walkeep-restore`;
  const bits = mode & 0o666;
  const bytes = typeof data === 'string' ? Buffer.from(data, 'latin1') : data;
  await writeFileDurably(path, bytes, { mode: bits, temporary, fs });
  if (!owner) return;
  await fs.lchown(path, owner).catch((e) => {
    throw storageError('change the owner of file', path, e);
  });
}

async function readText(path: string, fs: RestoreFileSystem): Promise<string | undefined> {
  return (await readBytes(path, fs))?.toString('latin1');
}

async function readBytes(path: string, fs: RestoreFileSystem): Promise<Buffer | undefined> {
  try {
    return await fs.readFile(path);
  } catch (e) {
    if (['ENOENT', 'ENOTDIR'].includes((e as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw storageError('read file', path, e);
  }
}
