import { createHash } from 'node:crypto';
import zlib from 'node:zlib';
import { backupKey, RECORD } from '../../src/archive/backups/keys.js';
import {
  type BackupObject,
  type BackupRecord,
  backupRecordBytes,
} from '../../src/base/backup-record.js';
import { baseIndexLines, type Frame, type TarIndex } from '../../src/base/base-index.js';
import { TAR_BLOCK, type TarMember, TarReader, tarHeader } from '../../src/base/tar.js';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { compressorOf } from '../../src/codec/codecs.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { formatLsn, type Lsn } from '../../src/lsn.js';
import { bytesOf, contentOf } from '../../src/store/content.js';
import type { ObjectStore } from '../../src/store/store.js';
import { segmentFileName } from '../../src/wal/file-name.js';

/** A member of a tar that is to be made. */
export type Made = Partial<Omit<TarMember, 'offset' | 'size'>> & {
  name: string;
  content?: Buffer | string;
};

/** As PostgreSQL makes it. */
export function tarOf(members: readonly Made[]): Buffer {
  const blocks = members.map(
    ({ name, content = '', type = 'file', mode, mtime = 1, link = '' }) => {
      const bytes = Buffer.from(content as string);
      const bits = mode ?? (type === 'file' ? 0o600 : 0o700);
      const header = tarHeader({ name, type, size: bytes.length, mode: bits, mtime, link });
      const padding = (TAR_BLOCK - (bytes.length % TAR_BLOCK)) % TAR_BLOCK;
      return Buffer.concat([header, bytes, Buffer.alloc(padding)]);
    },
  );
  return Buffer.concat([...blocks, Buffer.alloc(2 * TAR_BLOCK)]);
}

/** As a server makes it. */
export function labelOf({
  start,
  incrementalFrom: from,
}: Pick<BackupRecord, 'start' | 'incrementalFrom'>): Buffer {
  const segment = segmentFileName(start.timeline, start.lsn >> 24n, 1 << 24);
  return Buffer.from(
    `START WAL LOCATION: ${formatLsn(start.lsn)} (file ${segment})
CHECKPOINT LOCATION: ${formatLsn(start.lsn)}
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-28 01:00:00 GMT
LABEL: test
START TIMELINE: ${start.timeline}
${from ? `INCREMENTAL FROM LSN: ${formatLsn(from.lsn)}\nINCREMENTAL FROM TLI: ${from.timeline}\n` : ''}`,
  );
}

export interface StoreBackup {
  store: ObjectStore;
  prefix?: string;
  id?: string;
  tars: { name: string; oid?: number; bytes: Buffer }[];
  codec?: BackupRecord['codec'];
  /** Bytes of tar a frame, and of stored bytes a volume. */
  frame?: number;
  volume?: number;
  recipients?: string[];
  /** Verbatim. */
  others?: Record<string, Buffer>;
  record?: Partial<BackupRecord>;
}

/** Stores a base backup as `walkeep backup` does, from tars. */
export async function storeBackup(options: StoreBackup): Promise<BackupRecord> {
  const { store, prefix = '', id = '20261127T201500F-3fa91c', codec = 'gzip' } = options;
  const { frame = 8 << 20, volume = 32 << 20, others = {} } = options;
  const recipients = options.recipients && (await parseRecipients(options.recipients));
  const objects: BackupObject[] = [];
  const put = async (name: string, plain: Buffer): Promise<void> => {
    const bytes = recipients ? await encodeBytes(plain, { recipients }) : plain;
    const content = contentOf(bytes);
    await store.create(backupKey(prefix, id, name), content);
    objects.push({ name, size: content.size, sha256: content.sha256 });
  };
  const suffix = { none: '', gzip: '.gz', lz4: '.lz4', zstd: '.zst' }[codec];
  const index: TarIndex[] = [];
  const tars: BackupRecord['tars'] = [];
  for (const { name, oid, bytes } of options.tars) {
    const tar: TarIndex = { name, frames: [], members: membersOf(bytes) };
    const volumes: Buffer[][] = [];
    for (let offset = 0; offset < bytes.length; offset += frame) {
      const plain = bytes.subarray(offset, offset + frame);
      const stored = await compressed(codec, plain);
      let last = volumes.at(-1);
      if (!last || last.reduce((n, b) => n + b.length, 0) + stored.length > volume) {
        last = [];
        volumes.push(last);
      }
      const at = last.reduce((n, b) => n + b.length, 0);
      last.push(stored);
      const found: Frame = {
        ...{ offset, length: plain.length, volume: volumes.length - 1, at },
        ...{ stored: stored.length, sha256: createHash('sha256').update(stored).digest('hex') },
      };
      const end = offset + plain.length;
      const isContent = tar.members.some(
        (m) => m.offset + TAR_BLOCK <= offset && end <= m.offset + TAR_BLOCK + m.size,
      );
      const content = createHash('sha256').update(plain).digest('hex');
      tar.frames.push(isContent && codec !== 'none' ? { ...found, content } : found);
    }
    const names = volumes.map((_, n) => `${name}${suffix}.${String(n).padStart(4, '0')}`);
    for (const [n, parts] of volumes.entries()) await put(names[n] as string, Buffer.concat(parts));
    index.push(tar);
    tars.push({ name, size: bytes.length, volumes: names, ...(oid === undefined ? {} : { oid }) });
  }
  await put('base.index', zlib.gzipSync([...baseIndexLines({ tars: index })].join('')));
  for (const [name, bytes] of Object.entries(others)) await put(name, bytes);
  const point = { lsn: 0x2000028n as Lsn, timeline: 1, time: '2026-11-27T20:15:00.000Z' };
  const record: BackupRecord = {
    ...{ id, systemId: 7_000_000_000_000_000_001n, serverVersion: 180004 },
    ...{ segmentSize: 1 << 20, blockSize: 8192, from: 'primary', label: 'test' },
    start: point,
    end: { ...point, lsn: 0x2000100n as Lsn },
    walRanges: [{ timeline: 1, start: 0x2000028n as Lsn, end: 0x2000100n as Lsn }],
    ...{ wal: 'archive', codec, encrypted: recipients !== undefined },
    pageChecksums: { enabled: false, checked: false },
    ...{ tablespaces: [], tars, objects, outside: [], warnings: [] },
    size: tars.reduce((sum, tar) => sum + tar.size, 0),
    walkeep: '0.0.0',
    ...options.record,
  };
  await store.create(backupKey(prefix, id, RECORD), contentOf(backupRecordBytes(record)));
  return record;
}

function membersOf(tar: Buffer): TarMember[] {
  const members: TarMember[] = [];
  const reader = new TarReader({
    member: (member) => members.push(member),
    content: () => {},
    done: () => {},
  });
  reader.feed(tar);
  reader.end();
  return members;
}

async function compressed(codec: BackupRecord['codec'], plain: Buffer): Promise<Buffer> {
  if (codec === 'none') return plain;
  if (codec === 'gzip') return zlib.gzipSync(plain, { level: 1 });
  const { compressStream } = await compressorOf(codec);
  const once = async function* () {
    yield plain;
  };
  return bytesOf(compressStream(once(), {}));
}
