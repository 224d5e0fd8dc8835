import { createHash } from 'node:crypto';
import type { Archive } from '../../src/archive/archive.js';
import type { TakeBackupOptions, TakenBackup } from '../../src/backup/options.js';
import type { BackupParent } from '../../src/backup/parent.js';
import { BackupRun } from '../../src/backup/run.js';
import { type BackupSource, Warnings } from '../../src/backup/source.js';
import { TAR_BLOCK, tarHeader } from '../../src/base/tar.js';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import type { BaseBackupHandler, BaseBackupStream } from '../../src/connection/base-backup.js';
import type { Lsn } from '../../src/lsn.js';
import type { BaseBackupOptions } from '../../src/protocol/base-backup.js';
import type { ObjectStore } from '../../src/store/store.js';
import { rootHistory } from '../../src/wal/timeline.js';
import { checksumOf } from '../support/checksum.js';

export const SYSTEM = 7_300_000_000_000_000_001n;
const START = 0x2000028n as Lsn;
const END = 0x2000100n as Lsn;

export const LABEL = `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-28 01:00:00 GMT
LABEL: a label
START TIMELINE: 1
`;

export interface FakeFile {
  name: string;
  content: Buffer;
}

/** What a server sends; each can be made other than it should be. */
export interface FakeBackup {
  tars: { name: string; oid?: number; files: FakeFile[] }[];
  /** PostgreSQL 14 ends no tar. */
  terminated?: boolean;
  /** Said by the manifest. */
  manifest?: FakeFile[];
  /** Whatever was asked for. */
  algorithm?: 'CRC32C' | 'SHA256';
  /** Bytes a chunk. */
  chunk?: number;
  /** Told what is uploaded, and then whether an incremental backup is asked for. */
  uploaded?: (manifest: Buffer) => void | Promise<void>;
  asked?: (options: BaseBackupOptions) => void;
}

/** Bytes that compress to about three quarters, always the same. */
export function pseudo(length: number, seed: number): Buffer {
  let state = Math.imul(seed, 0x9e3779b1);
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = (state >>> 24) & 0x3f;
  }
  return bytes;
}

export const FILES: FakeFile[] = [
  { name: 'backup_label', content: Buffer.from(LABEL) },
  { name: 'tablespace_map', content: Buffer.from('16388 /there\n') },
  { name: 'PG_VERSION', content: Buffer.from('15\n') },
  { name: 'empty', content: Buffer.alloc(0) },
  { name: 'base/1/1259', content: pseudo(70_000, 1) },
  { name: 'base/1/1260', content: pseudo(512, 2) },
  { name: 'global/pg_control', content: pseudo(8192, 3) },
];
export const SPACE: FakeFile[] = [{ name: 'PG_15_202209061/1/2', content: pseudo(30_000, 4) }];

export function tarOf(files: readonly FakeFile[], terminated = true): Buffer {
  const parts = files.flatMap(({ name, content }) => [
    tarHeader({ name, type: 'file', size: content.length, mode: 0o600, mtime: 1, link: '' }),
    content,
    Buffer.alloc((TAR_BLOCK - (content.length % TAR_BLOCK)) % TAR_BLOCK),
  ]);
  return Buffer.concat([...parts, ...(terminated ? [Buffer.alloc(2 * TAR_BLOCK)] : [])]);
}

export function manifestOf(
  files: readonly FakeFile[],
  algorithm: 'CRC32C' | 'SHA256' = 'CRC32C',
): Buffer {
  const entries = files.map(({ name, content }) => {
    const sum = checksumOf(algorithm, content);
    return `{ "Path": "${name}", "Size": ${content.length}, "Last-Modified": "2026-11-28 01:00:00 GMT", "Checksum-Algorithm": "${algorithm}", "Checksum": "${sum}" }`;
  });
  const text = `{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": ${SYSTEM},
"Files": [
${entries.join(',\n')}
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
`;
  const sum = createHash('sha256').update(text).digest('hex');
  return Buffer.from(`${text}"Manifest-Checksum": "${sum}"}\n`);
}

export const WHOLE: FakeBackup = {
  tars: [
    { name: '16388.tar', oid: 16388, files: SPACE },
    { name: 'base.tar', files: FILES },
  ],
};

export function manifestFiles({ tars }: FakeBackup): FakeFile[] {
  return tars.flatMap(({ oid, files }) =>
    files.map(({ name, content }) => ({
      name: oid === undefined ? name : `pg_tblspc/${oid}/${name}`,
      content,
    })),
  );
}

/** A connection that has nothing but a base backup. */
export function fakeServer(backup: FakeBackup): BackupSource['physical'] {
  return {
    serverVersion: 150_000,
    uploadManifest: async (manifest) => backup.uploaded?.(manifest),
    baseBackup(
      options: BaseBackupOptions,
      handler: BaseBackupHandler,
      signal?: AbortSignal,
    ): BaseBackupStream {
      backup.asked?.(options);
      let resume: (() => void) | undefined;
      let paused: Promise<void> | undefined;
      return {
        pause() {
          paused = new Promise((resolve) => {
            resume = resolve;
          });
        },
        resume: () => resume?.(),
        done: send(backup, handler, () => paused, signal),
      };
    },
  };
}

async function send(
  { tars, terminated, manifest, algorithm, chunk = 1000 }: FakeBackup,
  handler: BaseBackupHandler,
  paused: () => Promise<void> | undefined,
  signal: AbortSignal | undefined,
) {
  const buffer = Buffer.alloc(chunk);
  const stopped = new Promise<void>((resolve) => {
    signal?.addEventListener('abort', () => resolve(), { once: true });
  });
  const pieces = async (bytes: Buffer, take: (piece: Buffer) => void): Promise<void> => {
    for (let at = 0; at < bytes.length; at += chunk) {
      await Promise.race([paused() ?? Promise.resolve(), stopped]);
      signal?.throwIfAborted();
      // The memory is used again, as that of a socket is.
      take(buffer.subarray(0, bytes.copy(buffer, 0, at, at + chunk)));
    }
  };
  await Promise.resolve();
  const spaces = tars.map(({ oid }) => ({
    ...{ oid, location: oid === undefined ? undefined : '/there', size: 1024 },
  }));
  handler.onStart({ lsn: START, timeline: 1 }, spaces);
  for (const { name, oid, files } of tars) {
    handler.onArchive({ name, oid, location: oid === undefined ? undefined : '/there' });
    await pieces(tarOf(files, terminated), (piece) => handler.onData(piece));
  }
  const said = manifestOf(manifest ?? manifestFiles({ tars }), algorithm);
  await pieces(said, (p) => handler.onManifest(p));
  return { end: { lsn: END, timeline: 1 } };
}

/** An archive that has everything. */
export const FULL = {
  place: 'memory:',
  isDirectory: false,
  stored: async () => [{ inStore: true }],
  history: async () => ({ state: 'good' }),
} as unknown as Archive;

export async function backUp(
  store: ObjectStore,
  backup: FakeBackup = WHOLE,
  options: Partial<TakeBackupOptions> & {
    archive?: Archive;
    facts?: Partial<BackupSource['facts']>;
    parent?: BackupParent;
  } = {},
): Promise<TakenBackup> {
  const { archive = FULL, facts, parent, ...rest } = options;
  const { recipients } = rest;
  const state: BackupSource['state'] = {
    systemId: SYSTEM,
    timeline: 1,
    flushLsn: START,
    segmentSize: 16 * 1024 * 1024,
    fileMode: 0o600,
    history: rootHistory(1),
    historyFile: undefined,
  };
  const connect = async () => ({}) as never;
  const given: TakeBackupOptions = { place: 'memory:', connect, ...rest };
  const source: BackupSource = {
    ...{ physical: fakeServer(backup), state, archive, clock: () => new Date() },
    facts: {
      ...{
        walBlockSize: 8192,
        dataChecksums: true,
        summarizeWal: undefined,
        inPlaceTablespaces: [],
      },
      configuration: { files: [], complete: true },
      ...facts,
    },
    area: { place: 'memory:', store, prefix: '', close: async () => {} },
    recipients: recipients && (await parseRecipients(recipients)),
    warnings: new Warnings(given.onWarning),
  };
  return new BackupRun(given, source, parent).run();
}
