import fsp from 'node:fs/promises';
import { dirname } from 'node:path';
import { TargetError } from '../errors.js';
import { formatBytes } from '../units.js';
import type { Layout } from './layout.js';

/** Bytes that a restore takes of one file system. */
export interface Space {
  /** One of the directories on it. */
  path: string;
  needed: number;
  free: number;
}

/** What a file system gives a file at least, and a directory. */
const BLOCK = 4096;

/**
 * What is needed of each file system that one of the roots is on.
 * @param wal bytes that recovery puts into pg_wal
 */
export async function spaceOf(
  layout: Layout,
  wal: number,
  combined: readonly { path: string; size: number }[] = [],
): Promise<Space[]> {
  const byDevice = new Map<number, Space>();
  const known = new Map<string, Space>();
  for (const root of layout.roots) {
    const { path, dev } = await nearest(root);
    const { bavail, bsize } = await fsp.statfs(path);
    const space = byDevice.get(dev) ?? { path: root, needed: 0, free: bavail * bsize };
    byDevice.set(dev, space);
    known.set(root, space);
  }
  // An inner root before the one that it is in.
  const roots = layout.roots.toSorted((a, b) => b.length - a.length);
  const spaceFor = (path: string) => {
    const root = roots.find((one) => path === one || path.startsWith(`${one}/`));
    return known.get(root ?? (layout.roots[0] as string)) as Space;
  };
  for (const { path, size } of [...layout.files.flat(), ...combined]) {
    spaceFor(path).needed += Math.ceil(size / BLOCK) * BLOCK;
  }
  for (const { path } of layout.directories) spaceFor(path).needed += BLOCK;
  const walRoot = layout.links.find(({ path }) => path.endsWith('/pg_wal'))?.to;
  spaceFor(walRoot ?? (layout.roots[0] as string)).needed += wal;
  return [...byDevice.values()];
}

async function nearest(path: string): Promise<{ path: string; dev: number }> {
  for (let at = path; ; at = dirname(at)) {
    const found = await fsp.stat(at).catch(() => undefined);
    if (found) return { path: at, dev: found.dev };
  }
}

/** @throws TargetError */
export function requireSpace(spaces: readonly Space[]): void {
  for (const { path, needed, free } of spaces) {
    if (needed <= free) continue;
    throw new TargetError(`there is not enough space for "${path}"`, {
      path,
      expected: formatBytes(needed),
      actual: formatBytes(free),
      detail: `It takes ${formatBytes(needed)}, and ${formatBytes(free)} are free.`,
      hint: 'Free space, or put tablespaces elsewhere with -T OLD=NEW.',
    });
  }
}
