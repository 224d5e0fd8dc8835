import { accessSync, constants, readdirSync, realpathSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const DEBIAN = '/usr/lib/postgresql';
/** What Debian's names in /usr/bin lead to: it looks for the program, which need not be there. */
const WRAPPER = /\/pg_wrapper$/;

function debianDirs(): string[] {
  try {
    const majors = readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a));
    return majors.map((major) => join(DEBIAN, major, 'bin'));
  } catch {
    return [];
  }
}

/**
 * Path of an optional comparison tool (pg_waldump, pg_receivewal, lz4…), newest PostgreSQL first;
 * undefined where it is missing: `test.skipIf(!tool)` with the tool in the test's name.
 */
export function findTool(name: string, major?: number): string | undefined {
  const debian = debianDirs().filter((dir) => !major || dir === join(DEBIAN, `${major}`, 'bin'));
  const dirs = major ? debian : [...debian, ...(process.env.PATH ?? '').split(delimiter)];
  return dirs
    .map((dir) => join(dir, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return !WRAPPER.test(realpathSync(file));
      } catch {
        return false;
      }
    });
}
