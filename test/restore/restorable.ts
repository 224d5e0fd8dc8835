import { BackupReader } from '../../src/archive/backups/reader.js';
import type { BaseIndex } from '../../src/base/base-index.js';
import { tablespaceMap } from '../../src/base/label.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import { Random } from '../simulation/random.js';
import { type Made, type StoreBackup, storeBackup, tarOf } from '../support/stored-backup.js';

const random = new Random(11);

export function bytes(size: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: size }, () => random.below(256)));
}

const directories = (...names: string[]): Made[] =>
  names.map((name) => ({ name, type: 'directory' }));

/** What a server sends: every shape that a member can have. */
export const BASE: Made[] = [
  { name: 'backup_label', content: 'START WAL LOCATION: 0/2000028\n' },
  {
    name: 'tablespace_map',
    content: tablespaceMap([{ oid: 16388, path: '/old/space' }]).toString('latin1'),
  },
  ...directories('global', 'base', 'base/5', 'pg_tblspc', 'pg_replslot', 'pg_wal'),
  ...directories('pg_wal/archive_status', 'pg_replslot/left'),
  { name: 'PG_VERSION', content: '18\n' },
  { name: 'base/5/empty', content: '' },
  { name: 'base/5/small', content: 'x' },
  { name: 'base/5/block', content: bytes(512) },
  { name: 'base/5/large', content: bytes(30_000) },
  { name: 'base/5/empty_too', content: '' },
  { name: 'postgresql.conf', content: "port = 5433\ndata_directory = '/old'\n" },
  { name: 'pg_hba.conf', content: 'local all all trust\n', mode: 0o640 },
  {
    name: 'postgresql.auto.conf',
    content: "# kept\nrecovery_target_time = '2020-01-01'\nwork_mem = '8MB'\n",
  },
  { name: 'postmaster.pid', content: '1\n' },
  { name: 'standby.signal', content: '' },
  { name: 'pg_replslot/left/state', content: 'x' },
  { name: 'global/pg_control', content: bytes(8192) },
];

export const SPACE: Made[] = [
  ...directories('PG_18_202506291', 'PG_18_202506291/5'),
  { name: 'PG_18_202506291/5/16390', content: bytes(9000) },
];

export const IN_PLACE: Made[] = [
  ...directories('PG_18_202506291'),
  { name: 'PG_18_202506291/7', content: bytes(700) },
];

export async function stored(options: Partial<StoreBackup> = {}) {
  const objects = new MemoryObjects();
  const store = new MemoryStore({ objects });
  const record = await storeBackup({
    ...{ store, frame: 5000, volume: 16_000 },
    tars: [
      { name: '16388.tar', oid: 16388, bytes: tarOf(SPACE) },
      { name: '16389.tar', oid: 16389, bytes: tarOf(IN_PLACE) },
      { name: 'base.tar', bytes: tarOf(BASE) },
    ],
    ...options,
    record: {
      tablespaces: [
        { oid: 16388, location: '/old/space', inPlace: false },
        { oid: 16389, location: 'pg_tblspc/16389', inPlace: true },
      ],
      ...options.record,
    },
  });
  const area = { place: 'memory:', store, prefix: '', close: async () => {} };
  const reader = new BackupReader(area, record);
  const index: BaseIndex = await reader.index();
  return { objects, store, record, area, reader, index };
}
