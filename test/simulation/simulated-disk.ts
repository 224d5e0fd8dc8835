import { SEGMENT, takeBuffer } from './arena.js';
import type { Random } from './random.js';

export const SECTOR = 512;
/** Larger files are taken for segments. */
const SMALL = 64 * 1024;

interface Range {
  sequence: number;
  offset: number;
  end: number;
}

/** One file: what the page cache holds of it, and what is on the disk. */
export class Inode {
  cache: Buffer = Buffer.alloc(0);
  size = 0;
  durable: Buffer = Buffer.alloc(0);
  durableSize = 0;
  /** Written and not synced; not merged, each may be lost on its own. */
  private dirty: Range[] = [];
  /** Sequence of the last unsynced change of the size. */
  private sizeChanged = 0;
  /** Made by the zero fill, and so promised to have its full size after any crash. */
  preallocated = false;
  /** Grows with every change of the content. */
  version = 0;
  /** A sync failed since power was last cut: cache and disk differ though nothing is dirty. */
  private dropped = false;

  /** The content as a reader sees it. */
  get content(): Buffer {
    return this.cache.subarray(0, this.size);
  }

  get isDirty(): boolean {
    return this.dirty.length > 0 || this.sizeChanged > 0;
  }

  write(bytes: Uint8Array, offset: number, sequence: number): void {
    const end = offset + bytes.length;
    this.version += 1;
    this.cache = grown(this.cache, end);
    this.cache.set(bytes, offset);
    if (end > this.size) {
      this.size = end;
      this.sizeChanged = sequence;
    }
    this.dirty.push({ sequence, offset, end });
  }

  truncate(size: number, sequence: number): void {
    if (size === this.size) return;
    this.version += 1;
    if (size < this.size) {
      this.cache.fill(0, size, this.size);
      this.dirty.push({ sequence, offset: size, end: this.size });
    }
    this.cache = grown(this.cache, size);
    this.size = size;
    this.sizeChanged = sequence;
  }

  /** Makes durable what was changed up to `sequence`; what came later may or may not be. */
  sync(sequence: number): void {
    let reach = this.durableSize;
    this.dirty = this.dirty.filter((range) => {
      if (range.sequence > sequence) return true;
      this.persist(range.offset, range.end);
      reach = Math.max(reach, Math.min(range.end, this.size));
      return false;
    });
    if (this.sizeChanged > 0 && this.sizeChanged <= sequence) {
      this.sizeChanged = 0;
      reach = this.size;
    }
    this.resize(reach);
  }

  /** A write from `offset` to `end` that was durable at once. */
  syncRange(offset: number, end: number): void {
    this.persist(offset, end);
    this.dirty = this.dirty.filter((range) => range.offset < offset || range.end > end);
    if (end > this.durableSize && this.sizeChanged > 0) this.resize(Math.min(end, this.size));
  }

  /** The sync failed: the pages count as clean from now on, though they are not on the disk. */
  dropDirty(random: Random): void {
    for (const range of this.dirty) if (random.chance(0.3)) this.tear(range, random);
    this.dirty = [];
    this.sizeChanged = 0;
    this.dropped = true;
  }

  /** Power is cut: of what was not synced anything may be there. */
  lose(random: Random): void {
    if (!this.isDirty && !this.dropped) return;
    this.dropped = false;
    this.version += 1;
    const fate = random.pick(['all', 'none', 'each'] as const);
    let reach = this.durableSize;
    for (const range of this.dirty) {
      const kept = fate === 'all' ? 'kept' : fate === 'none' ? 'lost' : random.pick(FATES);
      if (kept === 'kept') this.persist(range.offset, range.end);
      else if (kept === 'torn') this.tear(range, random);
      if (kept !== 'lost') reach = Math.max(reach, Math.min(range.end, this.size));
    }
    // The size travels by itself: data without it is cut off, it without data reads as zeros.
    const sized = fate === 'all' || (fate === 'each' && random.chance(0.5));
    if (this.sizeChanged > 0) this.resize(sized ? this.size : this.durableSize);
    else this.resize(reach);
    this.dirty = [];
    this.sizeChanged = 0;
    this.size = this.durableSize;
    this.cache = grown(this.cache, this.size);
    this.cache.fill(0, this.size);
    this.durable.copy(this.cache, 0, 0, this.size);
  }

  private tear(range: Range, random: Random): void {
    const first = range.offset - (range.offset % SECTOR);
    // A run of sectors, or some here and there.
    if (random.chance(0.5)) {
      const cut = first + SECTOR * random.below(Math.ceil((range.end - first) / SECTOR) + 1);
      if (random.chance(0.5)) this.persist(range.offset, Math.min(cut, range.end));
      else if (cut < range.end) this.persist(Math.max(cut, range.offset), range.end);
      return;
    }
    for (let at = first; at < range.end; at += SECTOR) {
      if (random.chance(0.5)) this.persist(at, at + SECTOR);
    }
  }

  /** Whole sectors travel to the disk. */
  private persist(from: number, to: number): void {
    const start = from - (from % SECTOR);
    const end = Math.min(to + ((SECTOR - (to % SECTOR)) % SECTOR), this.cache.length);
    if (start >= end) return;
    this.durable = grown(this.durable, end);
    this.durable.set(this.cache.subarray(start, end), start);
  }

  private resize(size: number): void {
    this.durable = grown(this.durable, size);
    if (size < this.durable.length) this.durable.fill(0, size);
    this.durableSize = size;
  }
}

const FATES = ['kept', 'lost', 'torn'] as const;

function grown(buffer: Buffer, size: number): Buffer {
  if (size <= buffer.length) return buffer;
  const larger = size > SMALL && size <= SEGMENT ? takeBuffer() : Buffer.alloc(2 * size);
  larger.set(buffer);
  return larger;
}

type Delta = readonly [name: string, inode: Inode | undefined][];

/** One directory with its files. Names are changed in the cache and become durable by fsync. */
export class SimulatedDisk {
  names = new Map<string, Inode>();
  private durableNames = new Map<string, Inode>();
  private pending: { sequence: number; delta: Delta }[] = [];
  private sequence = 0;

  /** Number of the next change. */
  tick(): number {
    this.sequence += 1;
    return this.sequence;
  }

  get now(): number {
    return this.sequence;
  }

  create(name: string): Inode {
    const inode = new Inode();
    this.change([[name, inode]]);
    return inode;
  }

  rename(from: string, to: string): void {
    this.change([
      [from, undefined],
      [to, this.names.get(from)],
    ]);
  }

  unlink(name: string): void {
    this.change([[name, undefined]]);
  }

  syncNames(sequence: number): void {
    this.pending = this.pending.filter((op) => {
      if (op.sequence > sequence) return true;
      apply(this.durableNames, op.delta);
      return false;
    });
  }

  /**
   * A journal keeps name changes in order, other file systems keep any of them. A rename is atomic
   * in both, and goes its way without the data of the file.
   */
  cutPower(random: Random): void {
    const journal = random.chance(0.5);
    const kept = random.below(this.pending.length + 1);
    this.pending.forEach(({ delta }, i) => {
      if (journal ? i < kept : random.chance(0.5)) apply(this.durableNames, delta);
    });
    this.pending = [];
    this.names = new Map(this.durableNames);
    for (const inode of new Set(this.names.values())) inode.lose(random);
  }

  private change(delta: Delta): void {
    apply(this.names, delta);
    this.pending.push({ sequence: this.tick(), delta });
  }
}

function apply(names: Map<string, Inode>, delta: Delta): void {
  for (const [name, inode] of delta) {
    if (inode) names.set(name, inode);
    else names.delete(name);
  }
}
