import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Archive } from '../../archive/archive.js';
import type { CatalogSegment } from '../../archive/catalog.js';
import { type CommitScan, type ScannedCommits, scanCommits } from '../../list/commit-times.js';
import { COMPRESSIONS } from '../../wal/file-name.js';

/** Milliseconds for which what was read of a file that grows is good enough. */
const GROWING = 10_000;
/** Sizes asked for in one look, and at a time: the pool of threads is everybody's. */
const MOST_SIZES = 4000;
const AT_A_TIME = 4;
/** Segments of one piece of the table of sizes. */
const PIECE = 1024;

interface Scanned {
  size: number;
  modified: number;
  readAt: number;
  found: ScannedCommits;
}

/**
 * What is known of the files of one directory from looks before. It holds, for 100,000 segments, the
 * commits of those at the ends of ranges and less than a megabyte of sizes.
 */
export class KnownFiles {
  readonly #directory: string;
  #scanned = new Map<string, Scanned>();
  #used = new Map<string, Scanned>();
  /** By timeline and thousand segments: size and kind of compression as one number; 0: not known. */
  readonly #sizes = new Map<string, Float64Array>();
  #left = 0;
  /** Sizes are not all known. */
  incomplete = false;
  /** Of the names when they were looked at last. */
  shape: string | undefined;
  /** Bytes. */
  segmentSize: number | undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Begins a look. */
  begin(): void {
    this.#left = MOST_SIZES;
    this.incomplete = false;
    this.#used = new Map();
  }

  /** Ends it: what it did not ask for is forgotten. */
  end(): void {
    this.#scanned = this.#used;
  }

  readonly scan: CommitScan = async (catalog, timeline, file, stopAtFirst) => {
    const key = `${file.name} ${stopAtFirst}`;
    const before = this.#scanned.get(key) ?? this.#used.get(key);
    const now = await stat(join(this.#directory, file.name)).catch(() => undefined);
    const isSame = before && before.size === now?.size && before.modified === now.mtimeMs;
    const isGrowing = file.partial && before && performance.now() - before.readAt < GROWING;
    if (before && now && (isSame || isGrowing)) {
      this.#used.set(key, before);
      return before.found;
    }
    const found = await scanCommits(catalog, timeline, file, stopAtFirst);
    if (now) {
      const { size, mtimeMs: modified } = now;
      this.#used.set(key, { size, modified, readAt: performance.now(), found });
    }
    return found;
  };

  /** Plain segments have their size by their name; of compressed ones a part is asked for in each look. */
  async sizeOf(
    archive: Archive,
    segments: readonly CatalogSegment[],
    segmentSize: number,
  ): Promise<number> {
    let total = 0;
    let known = 0;
    let compressed = 0;
    const asked: { file: CatalogSegment['files'][number]; keep: boolean }[] = [];
    for (const { files } of segments) {
      for (const file of files) {
        if (file.compression === 'none') {
          total += segmentSize;
          continue;
        }
        const size = this.#size(file);
        if (size !== undefined) {
          known += 1;
          compressed += size;
        } else asked.push({ file, keep: !file.partial && files.length === 1 });
      }
    }
    const now = asked.splice(0, Math.max(0, this.#left));
    this.#left -= now.length;
    while (now.length > 0) {
      const batch = now.splice(0, AT_A_TIME);
      const sizes = await Promise.all(
        batch.map(({ file }) =>
          archive.segment(file.name, (stored) => stored.size()).catch(() => 0),
        ),
      );
      for (const [i, { file, keep }] of batch.entries()) {
        const size = sizes[i] as number;
        known += 1;
        compressed += size;
        if (keep && size > 0) this.#remember(file, size);
      }
    }
    if (asked.length > 0) this.incomplete = true;
    const mean = known === 0 ? 0 : compressed / known;
    return total + compressed + Math.round(mean * asked.length);
  }

  #size({ timeline, segment, compression }: CatalogSegment['files'][number]): number | undefined {
    const [piece, at] = placeOf(timeline, segment);
    const found = this.#sizes.get(piece)?.[at] ?? 0;
    const kinds = COMPRESSIONS.length;
    return found > 0 && found % kinds === COMPRESSIONS.indexOf(compression)
      ? Math.floor(found / kinds)
      : undefined;
  }

  #remember(
    { timeline, segment, compression }: CatalogSegment['files'][number],
    size: number,
  ): void {
    const [piece, at] = placeOf(timeline, segment);
    let sizes = this.#sizes.get(piece);
    if (!sizes) {
      sizes = new Float64Array(PIECE);
      this.#sizes.set(piece, sizes);
    }
    sizes[at] = size * COMPRESSIONS.length + COMPRESSIONS.indexOf(compression);
  }
}

function placeOf(timeline: number, segment: bigint): [piece: string, at: number] {
  const number = Number(segment);
  return [`${timeline} ${Math.floor(number / PIECE)}`, number % PIECE];
}
