import {
  ArchiveAccessError,
  CorruptObjectError,
  StoreUnsupportedError,
  SystemIdentifierError,
  UsageError,
  WalkeepError,
} from '../../errors.js';
import type { DirectoryEntry } from '../../files/file-system.js';
import { readWhole } from '../../store/read-whole.js';
import type { Entry, ObjectStore } from '../../store/store.js';
import { historyFileName, parseStoredName } from '../../wal/file-name.js';
import { judgeHistory, type StoredHistory } from '../../wal/history-file.js';
import { isGone } from '../access.js';
import type { Archive, ArchiveCluster, RemovedFiles, StoreFacts } from '../archive.js';
import type { StoredSegment } from '../segment-source.js';
import { systemKey, systemsOf } from '../shipping/systems.js';
import {
  ARCHIVE_KEY,
  backupHistoryKey,
  historyKey,
  partialPrefix,
  segmentKey,
  systemPrefix,
} from '../store-keys.js';
import { gone, pathOf, type SegmentObject, StoreSegment } from './store-segment.js';

/** Version of what archive.json and the rest of the layout is. */
const FORMAT = 1;

/** Objects that are removed at once: as many as one request of S3 may name. */
const REMOVED_AT_ONCE = 1000;

/**
 * The archive in a store, with the keys of store-keys.ts. Of one cluster: the one that is told, else
 * the only one that the store has. Nothing is called absent before `archive.json` is proven to be
 * there: an empty prefix is a mistyped one, or a bucket that is not the right one.
 */
export class StoreArchive implements Archive {
  readonly place: string;
  readonly isDirectory = false;
  readonly #store: ObjectStore;
  readonly #wanted: bigint | undefined;
  #system: Promise<bigint | undefined> | undefined;
  #proof: Promise<void> | undefined;
  #cluster: Promise<ArchiveCluster | undefined> | undefined;
  /** Of what the last listing saw: of so many objects each one need not be asked. */
  #listed = new Map<string, { key: string; size: number }>();

  /** The complete segment that was stored last, of those that were listed. */
  #newest: StoreFacts['newest'];

  readonly #identities: SegmentObject['identities'];

  /** @param systemId the cluster that is asked for */
  constructor(
    store: ObjectStore,
    systemId: bigint | undefined,
    identities: SegmentObject['identities'] = async () => undefined,
  ) {
    this.place = store.place;
    this.#store = store;
    this.#wanted = systemId;
    this.#identities = identities;
  }

  /** What is asked for first proves it, at no cost. */
  async reach(): Promise<void> {}

  cluster(): Promise<ArchiveCluster | undefined> {
    this.#cluster ??= this.#readCluster();
    return this.#cluster;
  }

  async #readCluster(): Promise<ArchiveCluster | undefined> {
    const systemId = await this.#systemId();
    if (systemId === undefined) return undefined;
    const key = systemKey(systemId);
    const found = await this.#marker(key);
    if (found) {
      const { segmentSize } = found;
      return { systemId, segmentSize: typeof segmentSize === 'number' ? segmentSize : undefined };
    }
    await this.#prove();
    const there = await systemsOf(this.#store);
    if (there.length > 0 && !there.includes(String(systemId))) {
      throw new SystemIdentifierError(`"${this.place}" holds WAL of another cluster`, {
        path: this.place,
        expected: String(systemId),
        actual: there.join(', '),
        detail: `System identifier ${there.join(', ')}; this server's is ${systemId}.`,
        hint: 'Give the archive of the cluster that is to be recovered.',
      });
    }
    return { systemId, segmentSize: undefined };
  }

  async list(): Promise<DirectoryEntry[]> {
    const system = await this.#systemId();
    if (system === undefined) return [];
    const prefix = systemPrefix(system);
    const found = new Map<string, { key: string; size: number }>();
    const other: string[] = [];
    for await (const entry of this.#store.list(prefix)) {
      const name = nameOf(entry.key.slice(prefix.length));
      this.#noteAge(name, entry);
      // Of several keys of one partial the last one, which has the most.
      if (name !== undefined) found.set(name, { key: entry.key, size: entry.size });
      else if (isStray(entry.key.slice(prefix.length))) other.push(entry.key.slice(prefix.length));
    }
    if (found.size === 0) await this.#prove();
    // What was shipped of a segment before it was whole says nothing more.
    for (const name of found.keys()) {
      if (name.endsWith('.partial') && found.has(name.slice(0, 24))) found.delete(name);
    }
    this.#listed = found;
    return [...found.keys(), ...other].map((name) => ({ name, kind: 'file' }));
  }

  #noteAge(name: string | undefined, { modified }: Entry): void {
    if (name === undefined || !/^[0-9A-F]{24}$/.test(name)) return;
    if (!this.#newest || modified >= this.#newest.modified) this.#newest = { name, modified };
  }

  async storeFacts(): Promise<StoreFacts> {
    if (!this.#newest) await this.list();
    const newest = this.#newest;
    try {
      const capabilities = await this.#store.probe();
      const now = Date.now() + (capabilities.clockOffset ?? 0);
      return { capabilities, refusal: undefined, newest, now };
    } catch (e) {
      // Who may only read cannot try; what is wrong with the place itself was said before.
      if (!(e instanceof WalkeepError)) throw e;
      return { capabilities: undefined, refusal: e.message, newest, now: Date.now() };
    }
  }

  async listAround(base: string): Promise<DirectoryEntry[]> {
    const system = await this.#systemId();
    if (system === undefined) return [];
    const prefix = systemPrefix(system);
    const found = new Map<string, { key: string; size: number }>();
    const note = ({ key, size }: Entry): void => {
      const name = nameOf(key.slice(prefix.length));
      if (name !== undefined) found.set(name, { key, size });
    };
    for await (const entry of this.#store.list(`${prefix}history/`)) note(entry);
    for (const kind of ['wal', 'partial']) {
      const own = `${prefix}${kind}/${base.slice(0, 8)}/`;
      for (let after: string | undefined; ; ) {
        const first = await this.#first(`${prefix}${kind}/`, after);
        if (!first) break;
        note(first);
        // "0" is what comes behind "/": the next timeline.
        after = `${prefix}${kind}/${first.key.slice(prefix.length + kind.length + 1).slice(0, 8)}0`;
      }
      const behind = await this.#first(own, `${own}${base.slice(0, 24)}0`);
      if (behind) note(behind);
    }
    if (found.size === 0) await this.#prove();
    return [...found.keys()].map((name) => ({ name, kind: 'file' }));
  }

  async #first(prefix: string, after: string | undefined): Promise<Entry | undefined> {
    for await (const entry of this.#store.list(prefix, { after })) return entry;
    return undefined;
  }

  async has(name: string): Promise<boolean> {
    const stored = parseStoredName(name);
    if (stored?.kind === 'history' || stored?.kind === 'backup')
      return (await this.text(name)) !== undefined;
    if (stored?.kind !== 'segment' || stored.compression !== 'none') return false;
    return (await this.stored(stored.base, stored.partial)).length > 0;
  }

  async ledger(): Promise<undefined> {}

  async history(timeline: number): Promise<StoredHistory> {
    const content = await this.text(historyFileName(timeline));
    if (!content) return { state: 'absent' };
    return judgeHistory(this.#pathOf(historyFileName(timeline)), timeline, content);
  }

  async text(name: string): Promise<Buffer | undefined> {
    const named = parseStoredName(name);
    const system = await this.#systemId();
    if (named && named.kind !== 'segment' && system !== undefined) {
      const isHistory = named.kind === 'history';
      const key = isHistory ? historyKey(system, named.timeline) : backupHistoryKey(system, name);
      const found = await readWhole(this.#store, key, (bytes) => this.#decoded(bytes, key));
      if (found) return found;
    }
    await this.#prove();
    return undefined;
  }

  /** It may be compressed and encrypted as segments are. @throws CorruptObjectError, EncryptedError */
  async #decoded(content: Buffer, key: string): Promise<Buffer> {
    const { decodeBytes } = await import('../../codec/stages.js');
    const identities = await this.#identities();
    const options = { name: pathOf(this.#store, key), ...(identities && { identities }) };
    return Buffer.from((await decodeBytes(content, options)).content);
  }

  async stored(
    base: string,
    partial: boolean,
    { toRead = false }: { toRead?: boolean } = {},
  ): Promise<StoredSegment[]> {
    const system = await this.#systemId();
    if (system === undefined) return [];
    const store = this.#store;
    const identities = this.#identities;
    if (partial) {
      const name = `${base}.partial`;
      let last: Entry | undefined;
      for await (const entry of store.list(partialPrefix(system, base))) last = entry;
      if (last) return [new StoreSegment({ ...last, store, name, partial, identities })];
    } else {
      const key = segmentKey(system, base);
      const got = toRead ? await store.get(key) : undefined;
      if (got) return [new StoreSegment({ store, key, name: base, partial, identities, got })];
      const head = toRead ? undefined : await store.head(key);
      if (head) return [new StoreSegment({ ...head, store, name: base, partial, identities })];
    }
    await this.#prove();
    return [];
  }

  async segment<T>(name: string, read: (file: StoredSegment) => T | Promise<T>): Promise<T> {
    const base = name.slice(0, 24);
    const listed = this.#listed.get(name);
    if (listed) {
      const store = this.#store;
      const identities = this.#identities;
      const partial = name.endsWith('.partial');
      const file = new StoreSegment({ ...listed, store, name, partial, identities });
      try {
        return await read(file);
      } catch (e) {
        // What was shipped of a segment may be removed once that is whole.
        if (!partial || !isGone(e, file.path)) throw e;
      }
    }
    const found = (await this.stored(base, false))[0] ?? (await this.stored(base, true))[0];
    if (!found) throw gone(this.#pathOf(base));
    return read(found);
  }

  async completeName(name: string): Promise<string | undefined> {
    return (await this.stored(name.slice(0, 24), false))[0]?.name;
  }

  async refuseIrregular(): Promise<void> {}

  async refuseUnreadableForm(): Promise<void> {}

  async remove(names: readonly string[]): Promise<RemovedFiles> {
    const system = await this.#systemId();
    if (system === undefined) return { removed: [...names], retained: [] };
    const partials = names.some((name) => parseStoredName(name)?.kind === 'segment')
      ? await this.#partialsOf(system)
      : new Map<string, string[]>();
    const pairs = names.flatMap((name) =>
      keysOf(system, name, partials).map((key): [string, string] => [key, name]),
    );
    const retained = new Set<string>();
    for (let at = 0; at < pairs.length; at += REMOVED_AT_ONCE) {
      const batch = new Map(pairs.slice(at, at + REMOVED_AT_ONCE));
      const answer = await this.#store.remove([...batch.keys()]);
      for (const key of answer.retained) retained.add(batch.get(key)!);
    }
    return {
      removed: names.filter((name) => !retained.has(name)),
      retained: names.filter((name) => retained.has(name)),
    };
  }

  /** The keys of what was shipped of segments before they were whole, by the segments' names. */
  async #partialsOf(system: bigint): Promise<Map<string, string[]>> {
    const prefix = systemPrefix(system);
    const found = new Map<string, string[]>();
    for await (const { key } of this.#store.list(`${prefix}partial/`)) {
      const base = nameOf(key.slice(prefix.length))?.slice(0, 24);
      if (base !== undefined) found.set(base, [...(found.get(base) ?? []), key]);
    }
    return found;
  }

  async receiver(): Promise<undefined> {}

  close(): Promise<void> {
    return this.#store.close();
  }

  /** @throws ArchiveAccessError unless there is an archive: only then is anything proven absent */
  #prove(): Promise<void> {
    this.#proof ??= this.#readMarker().catch((e) => {
      this.#proof = undefined;
      throw e;
    });
    return this.#proof;
  }

  async #readMarker(): Promise<void> {
    if (await this.#marker(ARCHIVE_KEY)) return;
    throw new ArchiveAccessError(`"${this.place}" is not the archive of anything`, {
      path: this.place,
      detail: `It has no ${ARCHIVE_KEY}.`,
      hint: 'See that the bucket and the prefix are the right ones: "walkeep ship" begins an archive.',
    });
  }

  /** What it says; undefined if there is none. @throws as `#parse` */
  #marker(key: string): Promise<Record<string, unknown> | undefined> {
    return readWhole(this.#store, key, (bytes) => this.#parse(key, bytes));
  }

  /** @throws CorruptObjectError, StoreUnsupportedError */
  #parse(key: string, content: Buffer): Record<string, unknown> {
    let value: Record<string, unknown> | undefined;
    try {
      value = JSON.parse(content.toString());
    } catch {
      value = undefined;
    }
    const path = pathOf(this.#store, key);
    if (typeof value?.format !== 'number') {
      throw new CorruptObjectError(`"${path}" is not what it should be`, { key });
    }
    if (value.format === FORMAT) return value;
    throw new StoreUnsupportedError(`"${path}" has format ${value.format}`, {
      key,
      expected: `${FORMAT}`,
      actual: `${value.format}`,
      hint: 'A newer walkeep wrote it; use that version.',
    });
  }

  /** What a file is called in messages. */
  #pathOf(name: string): string {
    return `${pathOf(this.#store, '')}${name}`;
  }

  /** Undefined: the archive was begun, and nothing stored yet. */
  #systemId(): Promise<bigint | undefined> {
    this.#system ??= this.#findSystem().catch((e) => {
      this.#system = undefined;
      throw e;
    });
    return this.#system;
  }

  async #findSystem(): Promise<bigint | undefined> {
    if (this.#wanted !== undefined) return this.#wanted;
    const systems = await systemsOf(this.#store);
    if (systems.length === 1) return BigInt(systems[0]!);
    await this.#prove();
    if (systems.length === 0) return undefined;
    throw new UsageError(`"${this.place}" holds WAL of ${systems.length} clusters`, {
      actual: systems.join(', '),
      hint: 'Say which: --system-id ID.',
    });
  }
}

/** What goes when a file of that name is removed; the segment itself last. */
function keysOf(
  system: bigint,
  name: string,
  partials: ReadonlyMap<string, readonly string[]>,
): string[] {
  const stored = parseStoredName(name);
  switch (stored?.kind) {
    case 'history':
      return [historyKey(system, stored.timeline)];
    case 'backup':
      return [backupHistoryKey(system, name)];
    case 'segment': {
      const open = partials.get(stored.base) ?? [];
      return stored.partial ? [...open] : [...open, segmentKey(system, stored.base)];
    }
    default:
      return [];
  }
}

/** The name, as in a directory, of what is under a key of one cluster; undefined for all else. */
export function nameOf(key: string): string | undefined {
  const wal = /^(wal|partial)\/([0-9A-F]{8})\/(\2[0-9A-F]{16})(\/[0-9A-F]{16})?$/.exec(key);
  if (wal) {
    const [, kind, , base, end] = wal;
    if ((kind === 'partial') !== (end !== undefined)) return undefined;
    return kind === 'partial' ? `${base}.partial` : base;
  }
  return /^history\/([0-9A-F]{8}\.history|[0-9A-F]{24}\.[0-9A-F]{8}\.backup)$/.exec(key)?.[1];
}

/** What was not stored under its own name, since something else stands there. */
function isStray(key: string): boolean {
  return key.startsWith('conflict/');
}
