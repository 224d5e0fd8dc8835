import { writeFileSync } from 'node:fs';
import fsp from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, vi } from 'vitest';
import { scratchDir } from './scratch.js';

/** The errno of link(2) where a file system has none: vfat and most of FUSE, CIFS, some FUSE. */
export const NO_LINK_ERRNOS = ['EPERM', 'EOPNOTSUPP', 'ENOSYS'] as const;

/** In the tests of this `describe` the file system has no hard links. */
export function withoutHardLinks(errno: (typeof NO_LINK_ERRNOS)[number] = 'EPERM'): void {
  beforeEach(() => {
    vi.spyOn(fsp, 'link').mockImplementation(async () => {
      throw Object.assign(new Error(`${errno}: link`), { code: errno });
    });
  });
  afterEach(() => {
    vi.restoreAllMocks();
  });
}

/** Text of a program that takes link(2) from its process. */
export const UNLINKED = `require('node:fs').promises.link = async () => {
  throw Object.assign(new Error('EPERM: link'), { code: 'EPERM' });
};`;

/** Arguments for node that do the same for an executable. */
export function nodeWithoutHardLinks(): string[] {
  const path = join(scratchDir('preload'), 'no-links.cjs');
  writeFileSync(path, UNLINKED);
  return ['--require', path];
}
