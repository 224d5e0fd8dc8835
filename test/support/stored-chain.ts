import { createHash } from 'node:crypto';
import { openChain } from '../../src/archive/combine/chain.js';
import { openCombined } from '../../src/archive/combine/file.js';
import { FrameCache } from '../../src/archive/combine/frames.js';
import { planChain } from '../../src/archive/combine/plan.js';
import type { ArchiveKeys } from '../../src/archive/places/open-archive.js';
import type { BackupRecord } from '../../src/base/backup-record.js';
import type { Geometry } from '../../src/base/incremental.js';
import { formatLsn, type Lsn } from '../../src/lsn.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import type { ObjectStore } from '../../src/store/store.js';
import { type StoreBackup, storeBackup, tarOf } from './stored-backup.js';

/** Files of one backup by their paths; below `pg_tblspc/OID/` those of a tablespace. */
export type BackupFiles = ReadonlyMap<string, Buffer>;

export interface StoredChain {
  objects: MemoryObjects;
  store: ObjectStore;
  area: { place: string; store: ObjectStore; prefix: string; close(): Promise<void> };
  records: BackupRecord[];
  /** All that is in the tars of each. */
  files: BackupFiles[];
}

/** A pg_control as far as it is read. */
export function controlFile({ blockSize, segmentBlocks }: Geometry, checksums = true): Buffer {
  const bytes = Buffer.alloc(8192);
  bytes.writeUInt32LE(1800, 8);
  bytes.writeUInt32LE(blockSize, 216);
  bytes.writeUInt32LE(segmentBlocks, 220);
  bytes.writeUInt32LE(checksums ? 1 : 0, 252);
  return bytes;
}

export function manifestOf(files: BackupFiles): Buffer {
  const lines = [...files].map(([path, content]) => {
    const sha = createHash('sha256').update(content).digest('hex');
    return `{ "Path": ${JSON.stringify(Buffer.from(path, 'latin1').toString())}, "Size": ${content.length}, "Last-Modified": "2026-11-28 01:00:00 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "${sha}" }`;
  });
  const text = `{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": 7000000000000000001,\n"Files": [\n${lines.join(',\n')}\n],\n"WAL-Ranges": [\n{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }\n],\n`;
  const sum = createHash('sha256').update(text).digest('hex');
  return Buffer.from(`${text}"Manifest-Checksum": "${sum}"}\n`);
}

export interface ChainOptions extends Partial<StoreBackup> {
  geometry: Geometry;
  checksums?: boolean;
  /** Other manifests, by the number of the backup. */
  manifests?: Record<number, Buffer>;
  /** What a backup says of itself otherwise than it is. */
  labels?: Record<number, (label: string) => string>;
  /** How a backup is stored otherwise than the others. */
  own?: Record<number, Partial<StoreBackup>>;
}

/** Stores a full backup and incremental ones, each based on the one before. */
export async function storeChain(
  backups: readonly BackupFiles[],
  { geometry, checksums, manifests = {}, labels = {}, own = {}, ...options }: ChainOptions,
): Promise<StoredChain> {
  const objects = new MemoryObjects();
  const store = options.store ?? new MemoryStore({ objects });
  const records: BackupRecord[] = [];
  const all: BackupFiles[] = [];
  for (const [n, given] of backups.entries()) {
    const before = records.at(-1);
    const lsn = BigInt(0x2000028 + n * 0x1000000) as Lsn;
    const label = [
      `START WAL LOCATION: ${formatLsn(lsn)} (file 000000010000000000000002)`,
      `CHECKPOINT LOCATION: ${formatLsn(lsn)}`,
      ...['BACKUP METHOD: streamed', 'BACKUP FROM: primary'],
      ...['START TIME: 2026-11-28 01:00:00 GMT', 'LABEL: test', 'START TIMELINE: 1'],
      ...(before
        ? [`INCREMENTAL FROM LSN: ${formatLsn(before.start.lsn)}`, 'INCREMENTAL FROM TLI: 1']
        : []),
    ];
    const said = labels[n] ?? ((text: string) => text);
    const labelFile = Buffer.from(said(`${label.join('\n')}\n`));
    const control = controlFile(geometry, checksums);
    const files = new Map([['backup_label', labelFile], ...given, ['global/pg_control', control]]);
    all.push(files);
    const time = new Date(Date.UTC(2026, 10, 28, 1, n)).toISOString();
    const id = `20261128T01${String(n).padStart(2, '0')}00${before ? 'I' : 'F'}-3fa91c`;
    const point = { lsn, timeline: 1, time };
    records.push(
      await storeBackup({
        ...{ store, id, frame: 5000, volume: 16_000, codec: 'none' },
        ...options,
        ...own[n],
        tars: tarsOf(files),
        others: {
          ...own[n]?.others,
          backup_label: labelFile,
          pg_control: control,
          backup_manifest: manifests[n] ?? manifestOf(files),
        },
        record: {
          ...(before
            ? { parent: before.id, incrementalFrom: { lsn: before.start.lsn, timeline: 1 } }
            : {}),
          start: point,
          end: { ...point, lsn: (lsn + 0x100n) as Lsn },
          walRanges: [{ timeline: 1, start: lsn, end: (lsn + 0x100n) as Lsn }],
          tablespaces: [...tablespacesOf(files).keys()].map((oid) => ({
            ...{ oid, location: `/old/${oid}`, inPlace: false },
          })),
          ...options.record,
          ...own[n]?.record,
        },
      }),
    );
  }
  const area = { place: 'memory:', store, prefix: '', close: async () => {} };
  return { objects, store, area, records, files: all };
}

function tarsOf(files: BackupFiles): StoreBackup['tars'] {
  const spaces = tablespacesOf(files);
  const own = [...files].filter(([path]) => !path.startsWith('pg_tblspc/'));
  return [
    ...[...spaces].map(([oid, inner]) => ({
      ...{ name: `${oid}.tar`, oid, bytes: tarOf(withDirectories(inner)) },
    })),
    { name: 'base.tar', bytes: tarOf(withDirectories(own)) },
  ];
}

function tablespacesOf(files: BackupFiles): Map<number, [string, Buffer][]> {
  const spaces = new Map<number, [string, Buffer][]>();
  for (const [path, content] of files) {
    const [, oid, name] = /^pg_tblspc\/(\d+)\/(.*)$/.exec(path) ?? [];
    if (oid === undefined || name === undefined) continue;
    spaces.set(Number(oid), [...(spaces.get(Number(oid)) ?? []), [name, content]]);
  }
  return spaces;
}

function withDirectories(files: readonly [string, Buffer][]) {
  const made = new Set<string>();
  return files.flatMap(([name, content]) => {
    const parents = name.split('/').slice(0, -1);
    const paths = parents.map((_, i) => parents.slice(0, i + 1).join('/'));
    const missing = paths.filter((path) => !made.has(path));
    for (const path of missing) made.add(path);
    const directories = missing.map((path) => ({ name: path, type: 'directory' as const }));
    return [...directories, { name, content }];
  });
}

/** All files that a chain is combined to, by `combine` itself. */
export async function combinedFiles(
  { area, records }: Pick<StoredChain, 'area' | 'records'>,
  most?: number,
  keys?: ArchiveKeys,
): Promise<{ files: Map<string, Buffer>; frames: FrameCache }> {
  const chain = await openChain(
    records.map((record) => ({ record, area })),
    keys,
  );
  const frames = new FrameCache(chain.readers, undefined, most);
  const files = new Map<string, Buffer>();
  for (const file of await planChain(chain)) {
    const opened = await openCombined(file, { ...chain, frames });
    const pieces: Buffer[] = [];
    await opened.write((bytes) => void pieces.push(Buffer.from(bytes)));
    const content = Buffer.concat(pieces);
    if (content.length !== opened.size) throw new Error(`${file.path} has another size`);
    files.set(file.path, content);
  }
  return { files, frames };
}
