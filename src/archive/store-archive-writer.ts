import { createHash, randomUUID } from 'node:crypto';
import {
  CorruptObjectError,
  StoreConflictError,
  StoreUncertainError,
  StoreUnsupportedError,
  SystemIdentifierError,
  WalkeepError,
} from '../errors.js';
import { formatLsn } from '../lsn.js';
import { readWhole } from '../store/read-whole.js';
import type { Content, Head, Metadata, ObjectStore } from '../store/store.js';
import { parseStoredName } from '../wal/file-name.js';
import { WalComparison } from '../wal/same-wal.js';
import { indexKey } from './backups/keys.js';
import { IndexCollector } from './index/collect.js';
import type { CheckedWal } from './shipping/checked-segment.js';
import { systemKey, systemsOf } from './shipping/systems.js';
import {
  ARCHIVE_KEY,
  asideKey,
  backupHistoryKey,
  FIRST_SYSTEM_KEY,
  historyKey,
  partialKey,
  partialPrefix,
  segmentKey,
  systemPrefix,
} from './store-keys.js';

/** What `wk-stages` says of bytes that are stored as they are. */
const PLAIN = 'none';
/** Creates of an object that vanishes before it is looked at. */
const MOST_TRIES = 5;

/** An object's bytes, valid until they are released. */
export interface EncodedObject {
  bytes: Uint8Array;
  stages: string;
  release(): void;
}

/** What makes an object of plain bytes, and the other way round. */
export interface ObjectCodec {
  /** `stages`: what was done to them, as in `wk-stages`. */
  encode(plain: Uint8Array): Promise<EncodedObject>;
  /** Undefined: it cannot be read here, an identity is missing for example. */
  decode(bytes: Uint8Array): Promise<Uint8Array | undefined>;
}

export interface WriterOptions {
  /** The cluster whose WAL is to be stored. */
  systemId: bigint;
  /** Bytes. */
  segmentSize: number;
  codec: ObjectCodec;
  /** Who stores, for `wk-writer`. */
  writer: string;
  /** Take a cluster that is not in the archive yet beside those that are. */
  newSystem?: boolean | undefined;
  /** Whole segments come one after the other: the WAL index is made as well. */
  index?: boolean | undefined;
  /** Called to send what is ready, so that who stores several at a time sends fewer. */
  send?: Send | undefined;
  /** The store need not be able to create only what is absent. */
  unfenced?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

export type Send = <T>(create: () => Promise<T>, signal: AbortSignal | undefined) => Promise<T>;

/** `present`: the same was there. */
export type StoreOutcome = 'stored' | 'present';

/** What was stored, and how many bytes of it went out. */
export interface StoreResult {
  outcome: StoreOutcome;
  key: string;
  size: number;
}

/** Versions of what `archive.json` and `system.json` have. */
const FORMAT = 1;

/**
 * Stores WAL of one cluster in an archive in a store. Nothing is overwritten: what is there already
 * is compared, and what differs from it is kept aside, under `conflict/`, and is an alarm.
 */
export class StoreArchiveWriter {
  /** Of archive.json: another one means that it is another archive. */
  readonly archiveId: string;
  readonly #store: ObjectStore;
  readonly #o: WriterOptions;
  readonly #index: IndexCollector | undefined;
  /** The last objects were there already: it is asked first, which costs less than sending them. */
  #askFirst = false;

  private constructor(store: ObjectStore, archiveId: string, options: WriterOptions) {
    this.#store = store;
    this.archiveId = archiveId;
    this.#o = options;
    this.#index = options.index ? new IndexCollector(options) : undefined;
  }

  /**
   * Opens the archive, or begins one. Two GETs, and one PUT that tries whether the store keeps what
   * is there; more for a cluster that is new.
   * @throws SystemIdentifierError if it is another cluster's; nothing was stored then
   * @throws StoreUnsupportedError if the store overwrites what is there
   * @throws StoreUncertainError, StoreAccessError
   */
  static async open(store: ObjectStore, options: WriterOptions): Promise<StoreArchiveWriter> {
    const { signal } = options;
    for (;;) {
      const archive = await readMarker(store, ARCHIVE_KEY, signal);
      const standing = await requireOwnSystem(store, archive, options);
      if (!archive) await requireNoFlatDirectory(store, signal);
      const content = contentOf(Buffer.from(archive?.text ?? newMarker(options)));
      const { created } = await store.create(ARCHIVE_KEY, content, { signal });
      // Whoever began the archive, what stands there decides.
      if (!archive) continue;
      if (created && options.unfenced !== true) throw overwrites(store);
      if (standing === 'open') {
        await createMarker(store, FIRST_SYSTEM_KEY, {}, options);
        // Likewise.
        continue;
      }
      if (standing !== 'known') {
        const { segmentSize } = options;
        await createMarker(store, systemKey(options.systemId), { segmentSize }, options);
      }
      return new StoreArchiveWriter(store, String(archive.id), options);
    }
  }

  /** @throws StoreConflictError if other WAL is there; StoreUncertainError, StoreAccessError */
  async putSegment(wal: CheckedWal, signal?: AbortSignal): Promise<StoreResult> {
    const result = await this.#putWal(segmentKey(this.#o.systemId, wal.name), wal, signal);
    if (this.#index) await this.#putIndex(this.#index, wal, signal);
    return result;
  }

  /** Nothing needs the index: what goes wrong with it is nothing that WAL would wait for. */
  async #putIndex(index: IndexCollector, wal: CheckedWal, signal?: AbortSignal): Promise<void> {
    try {
      for (const { name, bytes } of index.add(wal, wal.seen)) {
        const key = indexKey(systemPrefix(this.#o.systemId), name);
        const object = { plain: bytes, digest: sha256(bytes), defined: true, meta: {} };
        await this.#create(key, object, signal);
      }
    } catch (e) {
      if (!(e instanceof WalkeepError)) throw e;
    }
  }

  /** Stores what there is of a segment, under a key of its own. @throws as `putSegment` */
  putPartial(wal: CheckedWal, signal?: AbortSignal): Promise<StoreResult> {
    return this.#putWal(partialKey(this.#o.systemId, wal.name, wal.end), wal, signal);
  }

  /** True if a segment is there, whole or as far as its timeline goes. @throws as `open` */
  async hasSegment(name: string, signal?: AbortSignal): Promise<boolean> {
    const { systemId } = this.#o;
    if (await this.#store.head(segmentKey(systemId, name), { signal })) return true;
    for await (const _ of this.#store.list(partialPrefix(systemId, name), { signal })) return true;
    return false;
  }

  /** @throws as `putSegment` */
  putHistory(timeline: number, content: Uint8Array, signal?: AbortSignal): Promise<StoreResult> {
    return this.#putText(historyKey(this.#o.systemId, timeline), content, signal);
  }

  /** Stores a backup history file. @throws as `putSegment` */
  putBackupHistory(name: string, content: Uint8Array, signal?: AbortSignal): Promise<StoreResult> {
    return this.#putText(backupHistoryKey(this.#o.systemId, name), content, signal);
  }

  #putText(key: string, content: Uint8Array, signal?: AbortSignal): Promise<StoreResult> {
    const digest = sha256(content);
    const same = async (stored: Uint8Array) => Buffer.compare(stored, content) === 0;
    return this.#put(key, { plain: content, digest, defined: true, meta: {}, same }, signal);
  }

  #putWal(key: string, wal: CheckedWal, signal: AbortSignal | undefined): Promise<StoreResult> {
    const { bytes, digest, defined, start, end } = wal;
    const { segmentSize } = this.#o;
    const meta = { 'wk-start': formatLsn(start), 'wk-end': formatLsn(end) };
    const same = async (stored: Uint8Array): Promise<boolean> => {
      if (stored.length !== bytes.length) return false;
      return new WalComparison({ startLsn: start, segmentSize }).feed(bytes, stored) === undefined;
    };
    return this.#put(key, { plain: bytes, digest, defined, meta, same }, signal);
  }

  async #put(key: string, object: StoredObject, signal?: AbortSignal): Promise<StoreResult> {
    const found = this.#askFirst ? await this.#store.head(key, { signal }) : undefined;
    const present = found && (await this.#compare(key, object, found, signal));
    if (present) return present;
    this.#askFirst = false;
    for (let tries = 1; tries <= MOST_TRIES; tries++) {
      const { created, size } = await this.#create(key, object, signal);
      if (created.created) return { outcome: 'stored', key, size };
      const there = await this.#compare(key, object, created.found, signal);
      if (there) return there;
    }
    throw new StoreUncertainError(`"${key}" in "${this.#store.place}" comes and goes`, { key });
  }

  async #create(key: string, object: Omit<StoredObject, 'same'>, signal: AbortSignal | undefined) {
    const { plain, digest, defined } = object;
    const { bytes, stages, release } = await this.#o.codec.encode(plain);
    try {
      const meta: Metadata = {
        'wk-stages': stages,
        'wk-size': `${plain.length}`,
        'wk-sha256': digest,
        'wk-writer': this.#o.writer,
        ...object.meta,
      };
      const known = defined && bytes === plain ? digest : undefined;
      const content = contentOf(bytes, known);
      const create = () => this.#store.create(key, content, { meta, signal });
      const created = await (this.#o.send ? this.#o.send(create, signal) : create());
      return { created, size: bytes.length };
    } finally {
      release();
    }
  }

  /** Undefined: it is gone again. @throws StoreConflictError unless what was found is the same */
  async #compare(
    key: string,
    object: StoredObject,
    found: Head,
    signal: AbortSignal | undefined,
  ): Promise<StoreResult | undefined> {
    const theirs = found.meta['wk-sha256'];
    const same = claimsToBe(object, found) || (await this.#isSame(key, object, signal));
    if (same === undefined) return undefined;
    if (same) {
      this.#askFirst = true;
      return { outcome: 'present', key, size: 0 };
    }
    const aside = await this.#keepAside(key, object, signal);
    throw new StoreConflictError(`"${key}" in "${this.#store.place}" holds something else`, {
      key,
      ...(theirs === undefined ? {} : { expected: theirs }),
      actual: object.digest,
      detail: `What was to be stored is kept as "${aside}".`,
      hint: 'Two servers of one system identifier write there, a clone for example, or one of the copies is damaged: check both with "walkeep verify".',
    });
  }

  /**
   * Reads what is there: digests may differ in bytes that mean nothing, or be absent. Undefined: there
   * is nothing any more.
   */
  async #isSame(
    key: string,
    { same }: Pick<StoredObject, 'same'>,
    signal: AbortSignal | undefined,
  ): Promise<boolean | undefined> {
    try {
      const use = async (bytes: Buffer): Promise<boolean> => {
        const stored = await this.#o.codec.decode(bytes);
        if (stored === undefined || (await same(stored))) return stored !== undefined;
        throw new CorruptObjectError(`"${key}" in "${this.#store.place}" is something else`, {
          key,
        });
      };
      return await readWhole(this.#store, key, use, { signal });
    } catch (e) {
      // Damaged or something else there, rather than on its way, it is no copy of ours.
      if (e instanceof CorruptObjectError) return false;
      throw e;
    }
  }

  /** The same content once, however often it is tried. Gives the key. */
  async #keepAside(
    key: string,
    object: StoredObject,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const aside = asideKey(this.#o.systemId, key, object.digest);
    await this.#create(aside, object, signal);
    return aside;
  }
}

interface StoredObject {
  plain: Uint8Array;
  /** Canonical, in hex. */
  digest: string;
  /** It is also that of the plain bytes as they are. */
  defined: boolean;
  meta: Metadata;
  /** True if that is the same content. */
  same(stored: Uint8Array): Promise<boolean>;
}

/** What an object says of itself, and as far as that can be seen without reading it, is. */
function claimsToBe({ plain, digest }: StoredObject, { size, meta }: Head): boolean {
  if (meta['wk-sha256'] !== digest || meta['wk-size'] !== `${plain.length}`) return false;
  return meta['wk-stages'] !== PLAIN || size === plain.length;
}

function newMarker({ systemId }: WriterOptions): string {
  return `${JSON.stringify({ format: FORMAT, id: randomUUID(), system: String(systemId) })}\n`;
}

/** What it says, and its text; undefined if there is none. @throws as `parseMarker` and readWhole */
function readMarker(store: ObjectStore, key: string, signal: AbortSignal | undefined) {
  const parse = (bytes: Buffer) => {
    const text = String(bytes);
    return { ...parseMarker(store, key, text), text };
  };
  return readWhole<Record<string, unknown> & { text: string }>(store, key, parse, { signal });
}

/** @throws StoreUnsupportedError, CorruptObjectError */
function parseMarker(store: ObjectStore, key: string, text: string): Record<string, unknown> {
  let value: Record<string, unknown> | undefined;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (typeof value?.format !== 'number') {
    throw new CorruptObjectError(`"${key}" in "${store.place}" is not what it should be`, { key });
  }
  if (value.format !== FORMAT) {
    throw new StoreUnsupportedError(`"${store.place}" has format ${value.format}`, {
      key,
      expected: `${FORMAT}`,
      actual: `${value.format}`,
      hint: 'A newer walkeep wrote it; use that version.',
    });
  }
  return value;
}

/**
 * An archive that is begun in a receiver's own directory would hide the WAL that is in it.
 * @throws StoreUnsupportedError
 */
async function requireNoFlatDirectory(
  store: ObjectStore,
  signal: AbortSignal | undefined,
): Promise<void> {
  // A bucket is nobody's directory, and rights to it may be narrow.
  if (store.place.startsWith('s3:')) return;
  for await (const { key } of store.list('', { signal })) {
    // What a receiver keeps for itself stands before all WAL.
    if (key.startsWith('.')) continue;
    if (parseStoredName(key) === undefined) return;
    throw new StoreUnsupportedError(`"${store.place}" is a directory that WAL is received into`, {
      key,
      hint: 'Store into another directory, an empty one for example: "walkeep store --init DIR".',
    });
  }
}

/** What is there was tried to be created once more, with the same bytes. */
function overwrites({ place }: ObjectStore): StoreUnsupportedError {
  return new StoreUnsupportedError(`"${place}" replaces objects that are there`, {
    key: ARCHIVE_KEY,
    hint: 'Two writers could destroy what the other one stored. Use a store with conditional writes, or --unfenced if nobody else ever writes there.',
  });
}

/**
 * `known`: the archive has something of the cluster; `taken`: it may come in; `open`: no cluster is in
 * it yet, and nothing says which one is to be. Two in one archive are wanted after pg_upgrade, and
 * otherwise a mistake.
 */
async function requireOwnSystem(
  store: ObjectStore,
  archive: Record<string, unknown> | undefined,
  { systemId, segmentSize, newSystem, signal }: WriterOptions,
): Promise<'known' | 'taken' | 'open'> {
  const key = systemKey(systemId);
  const own = await readMarker(store, key, signal);
  if (own) {
    const size = own.segmentSize;
    if (size === segmentSize) return 'known';
    throw new SystemIdentifierError(`"${store.place}" has segments of ${size} bytes`, {
      key,
      expected: `${size}`,
      actual: `${segmentSize}`,
    });
  }
  if (newSystem) return 'taken';
  const first = archive && (archive.system ?? (await firstSystem(store, signal)));
  const others = first === undefined ? await systemsOf(store, signal) : [String(first)];
  if (others.length === 0 || others.includes(String(systemId))) {
    return first === undefined ? 'open' : 'taken';
  }
  throw new SystemIdentifierError(`"${store.place}" is the archive of another cluster`, {
    expected: others.join(', '),
    actual: String(systemId),
    detail: `System identifier ${others.join(', ')}; the WAL to be stored is of ${systemId}.`,
    hint: 'Give each cluster a prefix of its own. After pg_upgrade --new-system takes the new one in beside the old.',
  });
}

/** Whom an archive was begun for that names nobody itself. */
async function firstSystem(
  store: ObjectStore,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const key = FIRST_SYSTEM_KEY;
  const marker = await readMarker(store, key, signal);
  if (!marker) return undefined;
  const { system } = marker;
  if (typeof system === 'string') return system;
  throw new CorruptObjectError(`"${key}" in "${store.place}" names no cluster`, { key });
}

/** Names the cluster, if that is not there yet. */
async function createMarker(
  store: ObjectStore,
  key: string,
  more: { segmentSize?: number },
  { systemId, signal }: WriterOptions,
): Promise<void> {
  const marker = { format: FORMAT, system: String(systemId), ...more };
  const content = contentOf(Buffer.from(`${JSON.stringify(marker)}\n`));
  await store.create(key, content, { signal });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** @param digest of the bytes, where it was taken already */
function contentOf(bytes: Uint8Array, digest = sha256(bytes)): Content {
  return { size: bytes.length, sha256: digest, proven: true, open: () => [bytes] };
}
