import { type Geometry, incrementalPath } from '../../src/base/incremental.js';
import { setPageChecksum } from '../../src/base/page.js';
import { incrementalFile } from './incremental-file.js';

/** One file fork, and what WAL summaries have of it since the last backup. */
class Fork {
  pages: Buffer[] = [];
  modified = new Set<number>();
  limit: number | undefined = 0;

  truncate(to: number): void {
    this.pages.length = Math.min(this.pages.length, to);
    this.limit = Math.min(this.limit ?? to, to);
    for (const block of [...this.modified]) if (block >= to) this.modified.delete(block);
  }
}

const VISIBLE = 0x0004;
const ROW_AT = 900;

/**
 * A table as a server keeps it, with its visibility map and data checksums. Bits of the map that are
 * taken back are not summarized, as those of a server are not.
 */
export class ModelTable {
  readonly heap = new Fork();
  readonly map = new Fork();
  readonly #geometry: Geometry;
  #written = 0;
  /** Files of the last backup: what it did not have is backed up as a whole. */
  #known = new Set<string>();

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
  }

  get length(): number {
    return this.heap.pages.length;
  }

  grow(by: number, logged = true): void {
    for (let n = 0; n < by; n++) {
      const block = this.length;
      this.heap.pages.push(Buffer.alloc(this.#geometry.blockSize));
      if (logged) this.change(block);
    }
  }

  /** Rows are written: nobody else sees them yet. */
  change(block: number): void {
    const page = this.#page(block, 0);
    page.writeUInt32LE(++this.#written, 40);
    this.#store(block, page);
    this.#setBits(block, 0);
  }

  /** A vacuum that finds all rows frozen. */
  vacuum(block: number): void {
    this.#store(block, this.#page(block, VISIBLE));
    this.#setBits(block, 3);
    this.map.modified.add(this.#mapPageOf(block));
  }

  /** A row is locked: the page is no longer all frozen. */
  lock(block: number): void {
    const page = this.heap.pages[block] as Buffer;
    if ((page.readUInt16LE(10) & VISIBLE) === 0) return;
    const changed = Buffer.from(page);
    changed.writeUInt32LE(++this.#written + 10, ROW_AT + 4);
    this.#store(block, changed);
    this.#setBits(block, 1);
  }

  truncate(to: number): void {
    const before = this.length;
    this.heap.truncate(to);
    for (let block = to; block < before; block++) this.#setBits(block, 0);
    this.map.truncate(Math.ceil(to / this.#perPage));
  }

  /** As `GetFileBackupMethod` decides, for each file of both forks. */
  backUp(path: string, full = false): { backup: Map<string, Buffer>; real: Map<string, Buffer> } {
    const backup = new Map<string, Buffer>();
    const real = new Map<string, Buffer>();
    for (const [fork, name] of [
      [this.heap, path],
      [this.map, `${path}_vm`],
    ] as const) {
      const { segmentBlocks } = this.#geometry;
      for (let segment = 0; segment * segmentBlocks < fork.pages.length; segment++) {
        const file = segment === 0 ? name : `${name}.${segment}`;
        const first = segment * segmentBlocks;
        const pages = fork.pages.slice(first, first + segmentBlocks);
        real.set(file, Buffer.concat(pages));
        const changed = [...fork.modified].filter((b) => b >= first && b < first + pages.length);
        const isFull =
          full ||
          !this.#known.has(file) ||
          (fork.limit !== undefined && fork.limit <= first) ||
          changed.length > pages.length * 0.9;
        if (isFull) backup.set(file, Buffer.concat(pages));
        else {
          const blocks = new Map(changed.map((b) => [b - first, pages[b - first] as Buffer]));
          const limit = Math.min(segmentBlocks, (fork.limit ?? 0) - first);
          const truncation = Math.max(pages.length, limit);
          backup.set(incrementalPath(file), incrementalFile(blocks, truncation, this.#geometry));
        }
      }
      fork.modified = new Set();
      fork.limit = undefined;
    }
    this.#known = new Set(real.keys());
    return { backup, real };
  }

  get #perPage(): number {
    return (this.#geometry.blockSize - 24) * 4;
  }

  #mapPageOf(block: number): number {
    return Math.floor(block / this.#perPage);
  }

  /** With one row of a transaction that is long over. */
  #page(block: number, flags: number): Buffer {
    const page = Buffer.from(this.heap.pages[block] as Buffer);
    page.writeUInt16LE(flags, 10);
    page.writeUInt16LE(28, 12);
    page.writeUInt16LE(ROW_AT, 14);
    page.writeUInt32LE(((32 << 17) | (1 << 15) | ROW_AT) >>> 0, 24);
    page.writeUInt32LE(700, ROW_AT);
    page.writeUInt32LE(0, ROW_AT + 4);
    page.writeUInt16LE(0x0b00, ROW_AT + 20);
    return page;
  }

  #store(block: number, page: Buffer): void {
    setPageChecksum(page, block);
    this.heap.pages[block] = page;
    this.heap.modified.add(block);
  }

  #setBits(block: number, bits: number): void {
    const n = this.#mapPageOf(block);
    while (this.map.pages.length <= n) {
      if (bits === 0) return;
      this.map.modified.add(this.map.pages.length);
      this.map.pages.push(Buffer.alloc(this.#geometry.blockSize));
    }
    const page = Buffer.from(this.map.pages[n] as Buffer);
    const at = block % this.#perPage;
    const shift = 2 * (at % 4);
    const byte = 24 + (at >> 2);
    const was = page.readUInt8(byte);
    if (bits === 0 && ((was >> shift) & 3) === 0) return;
    page.writeUInt8((was & ~(3 << shift)) | (bits << shift), byte);
    page.writeUInt16LE(24, 12);
    page.writeUInt16LE(page.length, 14);
    setPageChecksum(page, n);
    this.map.pages[n] = page;
  }
}
