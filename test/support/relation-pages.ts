import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';

const SIZE = 8192;

/** Files of relations, and what leads to them; by their paths, with links followed. */
export function relationFiles(dataDir: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (dir: string): void => {
    for (const name of readdirSync(dir)) {
      const path = join(dir, name);
      if (statSync(path).isDirectory()) walk(path);
      else if (/^(\d+(_(fsm|vm|init))?(\.\d+)?|PG_VERSION|pg_filenode\.map)$/.test(name)) {
        found.set(relative(dataDir, path), path);
      }
    }
  };
  for (const dir of ['base', 'global', 'pg_tblspc']) walk(join(dataDir, dir));
  return found;
}

/**
 * A page without what a server changes and does not log: hint bits, and with them its LSN and checksum.
 * @param isHeap of a table; of an index items are marked as dead
 */
function masked(page: Buffer, isHeap: boolean): Buffer {
  const upper = page.readUInt16LE(14);
  if (upper === 0) return page;
  const copy = Buffer.from(page);
  copy.fill(0, 0, 10);
  copy.writeUInt16LE(page.readUInt16LE(10) & ~3, 10);
  copy.fill(0, 20, 24);
  const lower = page.readUInt16LE(12);
  for (let at = 24; at + 4 <= Math.min(lower, upper); at += 4) {
    const pointer = page.readUInt32LE(at);
    const flags = (pointer >>> 15) & 3;
    if (!isHeap && flags === 3) copy.writeUInt32LE((pointer & ~(2 << 15)) >>> 0, at);
    const row = pointer & 0x7fff;
    if (!isHeap || flags !== 1 || row + 23 > SIZE) continue;
    copy.writeUInt16LE(page.readUInt16LE(row + 20) & ~0x0f00, row + 20);
  }
  return copy;
}

/** In which files two data directories differ, and from which page on. */
export function relationDifferences(
  one: string,
  other: string,
): { differences: string[]; pages: number } {
  const [files, others] = [relationFiles(one), relationFiles(other)];
  const differences: string[] = [];
  let pages = 0;
  for (const path of new Set([...files.keys(), ...others.keys()])) {
    const [a, b] = [files.get(path), others.get(path)];
    if (!a || !b) {
      differences.push(`${path} is only in ${a ? 'one' : 'the other'}`);
      continue;
    }
    const [left, right] = [readFileSync(a), readFileSync(b)];
    const isPages = /\/\d+(_vm)?(\.\d+)?$/.test(path);
    if (!isPages) {
      if (!left.equals(right) && !/_fsm/.test(path)) differences.push(path);
      continue;
    }
    if (left.length !== right.length) {
      differences.push(`${path}: ${left.length} and ${right.length} bytes`);
      continue;
    }
    for (let at = 0; at < left.length; at += SIZE) {
      pages++;
      const [l, r] = [left.subarray(at, at + SIZE), right.subarray(at, at + SIZE)];
      const isSame = [true, false].some((isHeap) => masked(l, isHeap).equals(masked(r, isHeap)));
      if (isSame) continue;
      differences.push(`${path}: page ${at / SIZE}`);
      break;
    }
  }
  return { differences, pages };
}
