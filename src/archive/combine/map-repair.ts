import { NO_VERSION, planBlocks } from '../../base/incremental.js';
import { heapPageState, isNewPage, PAGE_HEADER, setPageChecksum } from '../../base/page.js';
import { blocksPerMapPage, clearMapBits } from '../../base/visibility-map.js';
import { FileCursor } from './cursor.js';
import type { CombineContext, FileSource, MapFile } from './source.js';
import { versionsOf } from './version.js';

/** What is known of the blocks of one file of a table. */
interface Blocks {
  /** Of each, the backup of the chain that it comes from. */
  from: Int16Array;
  /** `UNSEEN` or `UNFROZEN`, both or neither, of those that do not come from the full backup. */
  state: Uint8Array;
}

const UNSEEN = 1;
const UNFROZEN = 2;

/**
 * Makes a visibility map true. That a bit is taken back is not in the WAL summaries that incremental
 * backups are made of (visibilitymap_clear logs nothing of the map), only the change of the table's
 * block that it goes with: the map that comes from an older backup still calls that block visible to
 * all, and an index-only scan returns deleted rows. So for each block of the table that is newer than
 * the page of the map, the block itself is asked. The same goes for blocks that were cut off.
 */
export class MapRepair {
  readonly #file: MapFile;
  readonly #context: CombineContext;
  /** The last two files of the table that were looked at: a page of the map may be about two. */
  readonly #known = new Map<number, Promise<Blocks | undefined>>();
  #length: Promise<number> | undefined;

  constructor(file: MapFile, context: CombineContext) {
    this.#file = file;
    this.#context = context;
  }

  /**
   * @param page is changed in place
   * @param n of the page within its file
   * @param backup of the chain that the page comes from; undefined: it is one of zeros
   */
  async page(page: Uint8Array, n: number, backup: number | undefined): Promise<void> {
    const { geometry, checksums, frames } = this.#context;
    if (backup === undefined || backup === frames.readers.length - 1 || isNewPage(page)) return;
    const { blockSize, segmentBlocks } = geometry;
    const perPage = blocksPerMapPage(blockSize);
    const number = this.#file.segment * segmentBlocks + n;
    this.#length ??= this.#lengthOfMain();
    const length = await this.#length;
    let changed = false;
    for (let i = 0; i < perPage; i++) {
      if (page[PAGE_HEADER + (i >>> 2)] === 0) {
        i |= 3;
        continue;
      }
      const block = number * perPage + i;
      const what = block < length ? await this.#wrong(block, backup) : 'all';
      if (what !== undefined && clearMapBits(page, i, what)) changed = true;
    }
    if (changed && checksums) setPageChecksum(page, number);
  }

  /** What a map of a backup may say of a block, and must not. */
  async #wrong(block: number, map: number): Promise<'all' | 'frozen' | undefined> {
    const { segmentBlocks } = this.#context.geometry;
    const segment = Math.floor(block / segmentBlocks);
    const found = await this.#blocks(segment);
    const at = block - segment * segmentBlocks;
    if (!found || at >= found.from.length) return 'all';
    if ((found.from[at] as number) <= map) return undefined;
    const state = found.state[at] as number;
    return (state & UNSEEN) !== 0 ? 'all' : (state & UNFROZEN) !== 0 ? 'frozen' : undefined;
  }

  #blocks(segment: number): Promise<Blocks | undefined> {
    const known = this.#known.get(segment);
    if (known) return known;
    const sources = this.#file.main[segment];
    const found = sources ? this.#look(sources) : Promise.resolve(undefined);
    for (const other of this.#known.keys()) if (other < segment - 1) this.#known.delete(other);
    this.#known.set(segment, found);
    return found;
  }

  /** Who combines the file itself compares it with the manifests. */
  async #look(sources: readonly FileSource[]): Promise<Blocks> {
    const { frames, geometry } = this.#context;
    const { blockSize } = geometry;
    const cursors = sources.map(
      (source) => new FileCursor({ ...source, checksum: undefined }, frames),
    );
    const versions = await versionsOf(cursors, geometry);
    const plan = planBlocks(versions.map(({ version }) => version));
    // Empty blocks are of the last one.
    const last = frames.readers.length - 1;
    const from = plan.map((n) => (n === NO_VERSION ? last : (sources[n] as FileSource).backup));
    const state = new Uint8Array(plan.length);
    const page = new Uint8Array(blockSize);
    for (let block = 0; block < plan.length; block++) {
      const version = versions[plan[block] as number];
      if (version?.cursor.source.backup === 0) continue;
      if (version) {
        const at = version.offsetOf(block);
        if (version.cursor.copy(at, blockSize, page, 0) < blockSize) {
          await version.cursor.read(at, blockSize, page, 0);
        }
      } else page.fill(0);
      const { visible, frozen } = heapPageState(page);
      state[block] = (visible ? 0 : UNSEEN) | (frozen ? 0 : UNFROZEN);
    }
    return { from, state };
  }

  /** Blocks of the table. */
  async #lengthOfMain(): Promise<number> {
    const { frames, geometry } = this.#context;
    const { main } = this.#file;
    const segment = main.length - 1;
    const sources = main[segment];
    if (!sources) return 0;
    const cursors = sources.slice(0, 1).map((source) => new FileCursor(source, frames));
    const [newest] = await versionsOf(cursors, geometry);
    const length = newest ? planBlocks([newest.version]).length : 0;
    return segment * geometry.segmentBlocks + length;
  }
}
