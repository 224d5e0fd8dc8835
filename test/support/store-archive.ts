import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { systemKey } from '../../src/archive/shipping/systems.js';
import { ARCHIVE_KEY, historyKey, partialKey, segmentKey } from '../../src/archive/store-keys.js';
import { contentOf } from '../../src/store/content.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import type { ObjectStore } from '../../src/store/store.js';
import { scratchDir } from './scratch.js';
import { SEGMENT, SYSTEM_ID } from './wal-archive.js';

/** How a segment's object is made of its bytes. */
export type Encode = (plain: Buffer) => Uint8Array | Promise<Uint8Array>;

/** Stores one object, whatever an archive would say to it. */
export async function put(store: ObjectStore, key: string, bytes: Uint8Array): Promise<void> {
  const { created } = await store.create(key, contentOf(bytes));
  if (!created) throw new Error(`${key} is there`);
}

/** Begins an archive of one cluster in a store. */
export async function beginArchive(store: ObjectStore, systemId = SYSTEM_ID): Promise<void> {
  const json = (value: object) => Buffer.from(`${JSON.stringify(value)}\n`);
  const system = String(systemId);
  await store.create(ARCHIVE_KEY, contentOf(json({ format: 1, id: 'test', system })));
  await put(store, systemKey(systemId), json({ format: 1, system, segmentSize: SEGMENT }));
}

/** Stores what a flat directory has of segments and histories, as shipping does. */
export async function storeFiles(
  store: ObjectStore,
  directory: string,
  encode: Encode = gzipSync,
  systemId = SYSTEM_ID,
): Promise<void> {
  for (const name of readdirSync(directory)) {
    const content = readFileSync(join(directory, name));
    const [base] = name.split('.') as [string];
    if (name.endsWith('.history')) {
      await put(store, historyKey(systemId, Number.parseInt(base, 16)), content);
    } else if (name.endsWith('.partial')) {
      const start = BigInt(`0x${base.slice(8, 16)}${'0'.repeat(8)}`);
      const end = start + BigInt(`0x${base.slice(16)}`) * BigInt(SEGMENT) + 1n;
      await put(store, partialKey(systemId, base, end), await encode(content));
    } else await put(store, segmentKey(systemId, base), await encode(content));
  }
}

/** A directory that is a store, with an archive of what a flat directory has. */
export async function storeArchiveOf(
  directory: string,
  encode?: Encode,
): Promise<{ place: string; store: ObjectStore }> {
  const place = join(scratchDir('store'), 'archive');
  const store = await openFileStore(place, { init: true });
  await beginArchive(store);
  await storeFiles(store, directory, encode);
  return { place, store };
}
