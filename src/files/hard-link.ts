import fsp from 'node:fs/promises';

/** What link(2) fails with on vfat, exFAT and many FUSE and CIFS mounts, whatever is asked. */
const NO_LINKS: readonly (string | undefined)[] = [
  'EPERM',
  'ENOSYS',
  'ENOTSUP',
  'EOPNOTSUPP',
  'EMLINK',
  'EXDEV',
];

/**
 * Gives a file a second name in its directory, unless something has that: the only way to put a
 * finished file in place that never replaces another one. Throws Node's errors for the rest.
 */
export async function linkAnew(from: string, to: string): Promise<'done' | 'taken' | 'no links'> {
  try {
    await fsp.link(from, to);
    return 'done';
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code === 'EEXIST') return 'taken';
    if (NO_LINKS.includes(code)) return 'no links';
    throw e;
  }
}
