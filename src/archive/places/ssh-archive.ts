import type { ObjectStore } from '../../store/store.js';
import type { Archive, RemovedFiles } from '../archive.js';
import type { StoredSegment } from '../segment-source.js';
import { ARCHIVE_KEY } from '../store-keys.js';

/**
 * A directory on another host: an archive that was shipped there, which `archive.json` tells, or
 * else a receiver's own. It is asked which once, when something of it is asked for first, and again
 * if there was no answer.
 */
export class SshArchive implements Archive {
  readonly place: string;
  readonly isDirectory = false;
  readonly #store: ObjectStore;
  readonly #asStore: () => Archive;
  #found: Promise<Archive> | undefined;

  constructor(store: ObjectStore, asStore: () => Archive) {
    this.place = store.place;
    this.#store = store;
    this.#asStore = asStore;
  }

  #it(): Promise<Archive> {
    this.#found ??= this.#look().catch((e) => {
      this.#found = undefined;
      throw e;
    });
    return this.#found;
  }

  async #look(): Promise<Archive> {
    if (await this.#store.head(ARCHIVE_KEY)) return this.#asStore();
    const { FlatStoreArchive } = await import('./flat-store-archive.js');
    return new FlatStoreArchive(this.#store);
  }

  async reach(): Promise<void> {}

  async cluster() {
    return (await this.#it()).cluster();
  }

  async list() {
    return (await this.#it()).list();
  }

  async listAround(base: string) {
    return (await this.#it()).listAround(base);
  }

  async has(name: string) {
    return (await this.#it()).has(name);
  }

  async ledger() {
    return (await this.#it()).ledger();
  }

  async history(timeline: number) {
    return (await this.#it()).history(timeline);
  }

  async text(name: string) {
    return (await this.#it()).text(name);
  }

  async stored(base: string, partial: boolean, options?: { toRead?: boolean }) {
    return (await this.#it()).stored(base, partial, options);
  }

  async segment<T>(name: string, read: (file: StoredSegment) => T | Promise<T>): Promise<T> {
    return (await this.#it()).segment(name, read);
  }

  async completeName(name: string) {
    return (await this.#it()).completeName(name);
  }

  async refuseIrregular(base: string, partial: boolean) {
    return (await this.#it()).refuseIrregular(base, partial);
  }

  async refuseUnreadableForm(base: string) {
    return (await this.#it()).refuseUnreadableForm(base);
  }

  async remove(names: readonly string[]): Promise<RemovedFiles> {
    return (await this.#it()).remove(names);
  }

  async receiver() {
    return (await this.#it()).receiver();
  }

  close(): Promise<void> {
    return this.#store.close();
  }
}
