import { PAGE_HEADER } from './page.js';

/**
 * The visibility map of a table (visibilitymap.c): two bits a block, all rows visible, all frozen;
 * four blocks a byte from the least significant bits on, behind the header of each page.
 */
const VISIBLE = 1;
const FROZEN = 2;
const PER_BYTE = 4;

/** Blocks of the table that a page of its map tells of. */
export function blocksPerMapPage(blockSize: number): number {
  return (blockSize - PAGE_HEADER) * PER_BYTE;
}

/** @param n of the block, from the first one of the page */
export function mapBits(page: Uint8Array, n: number): { visible: boolean; frozen: boolean } {
  const bits = (page[PAGE_HEADER + (n >>> 2)] as number) >>> (2 * (n % PER_BYTE));
  return { visible: (bits & VISIBLE) !== 0, frozen: (bits & FROZEN) !== 0 };
}

/**
 * Takes back what is said of a block, all of it or that it is frozen. A bit that is not set is never
 * wrong: it costs a look at the table, and a vacuum sets it again.
 * @returns whether anything was said
 */
export function clearMapBits(page: Uint8Array, n: number, what: 'all' | 'frozen'): boolean {
  const at = PAGE_HEADER + (n >>> 2);
  const bits = (what === 'all' ? VISIBLE | FROZEN : FROZEN) << (2 * (n % PER_BYTE));
  const was = page[at] as number;
  page[at] = was & ~bits;
  return (was & bits) !== 0;
}

/** A file of the visibility map, by its path: of which relation, and the how manieth. */
export function mapFileOf(path: string): { relation: string; segment: number } | undefined {
  const [, relation, segment = '0'] = /^(.*\/\d+)_vm(?:\.(\d+))?$/.exec(path) ?? [];
  return relation === undefined ? undefined : { relation, segment: Number(segment) };
}

/** The same of a file of the relation itself. */
export function mainFileOf(path: string): { relation: string; segment: number } | undefined {
  const [, relation, segment = '0'] = /^(.*\/\d+)(?:\.(\d+))?$/.exec(path) ?? [];
  return relation === undefined ? undefined : { relation, segment: Number(segment) };
}
