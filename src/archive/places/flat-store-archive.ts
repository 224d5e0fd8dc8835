import type { DirectoryEntry } from '../../files/file-system.js';
import { readWhole } from '../../store/read-whole.js';
import type { ObjectStore } from '../../store/store.js';
import {
  historyFileName,
  MIN_SEGMENT_SIZE,
  parseSegmentFileName,
  storedForms,
  storedNames,
} from '../../wal/file-name.js';
import { judgeHistory, type StoredHistory } from '../../wal/history-file.js';
import { isGone } from '../access.js';
import type { Archive, ArchiveCluster, RemovedFiles } from '../archive.js';
import type { LedgerState } from '../ledger-entry.js';
import { overAndOver, type StoredSegment } from '../segment-source.js';
import { isUnreadable, unreadableForm } from './directory-archive.js';
import { FlatSegment } from './flat-segment.js';
import { pathOf } from './store-segment.js';

/** Names that one file may go through, as in a directory here. */
const MOST_NAMES = 20;

/**
 * The directory of a receiver on another host, flat as pg_receivewal's, which a store serves as it
 * is: a key is the name of a file. A receiver may be at work there, so files get other names while
 * they are looked at. The store itself proves that the directory is one of WAL, and follows no link.
 */
export class FlatStoreArchive implements Archive {
  readonly place: string;
  readonly isDirectory = false;
  readonly #store: ObjectStore;

  constructor(store: ObjectStore) {
    this.place = store.place;
    this.#store = store;
  }

  async reach(): Promise<void> {}

  async cluster(): Promise<ArchiveCluster | undefined> {
    const { systemId, segmentSize } = (await this.ledger()) ?? {};
    return systemId === undefined ? undefined : { systemId, segmentSize };
  }

  async list(): Promise<DirectoryEntry[]> {
    const found = new Map<string, DirectoryEntry>();
    for await (const { key } of this.#store.list('')) {
      const [name = key, ...below] = key.split('/');
      found.set(name, { name, kind: below.length > 0 ? 'directory' : 'file' });
    }
    return [...found.values()];
  }

  listAround(): Promise<DirectoryEntry[]> {
    return this.list();
  }

  async has(name: string): Promise<boolean> {
    return (await this.#store.head(name)) !== undefined;
  }

  async ledger(): Promise<LedgerState | undefined> {
    const { LEDGER_FILE, parseLedger } = await import('../ledger.js');
    const content = await this.#content(LEDGER_FILE);
    return content && parseLedger(this.#pathOf(LEDGER_FILE), content.toString()).state;
  }

  async history(timeline: number): Promise<StoredHistory> {
    const name = historyFileName(timeline);
    const content = await this.text(name);
    return content ? judgeHistory(this.#pathOf(name), timeline, content) : { state: 'absent' };
  }

  text(name: string): Promise<Buffer | undefined> {
    return this.#content(name);
  }

  async stored(base: string, partial: boolean): Promise<StoredSegment[]> {
    const store = this.#store;
    const looks = storedForms(base, partial).map(async ({ name, compression }) => {
      const head = await store.head(name);
      return head ? [new FlatSegment({ store, name, compression, partial, size: head.size })] : [];
    });
    return (await Promise.all(looks)).flat();
  }

  async segment<T>(name: string, read: (file: StoredSegment) => T | Promise<T>): Promise<T> {
    const store = this.#store;
    let current = name;
    for (let names = 1; ; names++) {
      const { compression, partial } = parseSegmentFileName(current, MIN_SEGMENT_SIZE)!;
      const file = new FlatSegment({ store, name: current, compression, partial });
      try {
        return await read(file);
      } catch (e) {
        const next = isGone(e, file.path) ? await this.#currentName(current) : undefined;
        if (next === undefined) throw e;
        if (names === MOST_NAMES) throw overAndOver(file.path);
        current = next;
      }
    }
  }

  async #currentName(name: string): Promise<string | undefined> {
    const base = name.slice(0, 24);
    // One that gets its final name between the first two looks is found by the third.
    for (const partial of [false, true, false]) {
      const [found] = await this.stored(base, partial);
      if (found) return found.name;
    }
    return undefined;
  }

  async completeName(name: string): Promise<string | undefined> {
    return (await this.stored(name.slice(0, 24), false))[0]?.name;
  }

  /** What is a link or no file is no object, and was refused when it was asked for. */
  async refuseIrregular(base: string, partial: boolean): Promise<void> {
    for (const name of storedNames(base, partial)) await this.#store.head(name);
  }

  async refuseUnreadableForm(base: string): Promise<void> {
    for await (const { key } of this.#store.list(base)) {
      if (isUnreadable(key, base)) throw unreadableForm(this.#pathOf(key), base);
    }
  }

  async remove(names: readonly string[]): Promise<RemovedFiles> {
    return this.#store.remove(names);
  }

  /** Whom the lock there names: a process on that host cannot be looked at from here. */
  async receiver(): ReturnType<Archive['receiver']> {
    const [{ LOCK_FILE }, { parseIdentity }] = await Promise.all([
      import('../../files/lock.js'),
      import('../../files/lock-file.js'),
    ]);
    const content = await this.#content(LOCK_FILE);
    const holder = content && parseIdentity(content.toString());
    return holder && { pid: holder.pid, host: holder.host, state: 'elsewhere' };
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #pathOf(name: string): string {
    return pathOf(this.#store, name);
  }

  /** A small file, read again where a connection broke or it was replaced; undefined if absent. */
  #content(name: string): Promise<Buffer | undefined> {
    return readWhole(this.#store, name, (bytes) => bytes);
  }
}
