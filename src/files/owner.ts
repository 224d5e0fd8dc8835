import fs, { type BigIntStats, constants } from 'node:fs';
import { basename, dirname } from 'node:path';

/**
 * Where root makes files in the directory of another user, that user has to be able to read, replace
 * and remove them: they are given to whom the directory belongs to. That user may put links in the
 * way at any time. So a file is only given if it lies in the very directory whose owner gets it, and
 * under no other name: else something of root's could be given away. On file systems that give
 * nothing away, and where /proc is missing, files stay root's.
 */
export function giveFile(fd: number, path: string): void {
  inParent(path, (entry, parent) => {
    const made = fs.fstatSync(fd, { bigint: true });
    const there = fs.lstatSync(entry, { bigint: true });
    if (made.dev !== there.dev || made.ino !== there.ino || there.nlink !== 1n) return;
    fs.fchownSync(fd, Number(parent.uid), Number(parent.gid));
  });
}

/**
 * The same of a directory that was just made, which another may have put something in place of: only
 * one of root's that is empty is given.
 */
export function giveDirectory(path: string): void {
  inParent(path, (entry, { uid, gid }) => {
    const fd = fs.openSync(entry, OPEN_DIRECTORY | constants.O_NOFOLLOW);
    try {
      if (fs.fstatSync(fd).uid !== 0 || fs.readdirSync(ofOpen(fd)).length > 0) return;
      fs.fchownSync(fd, Number(uid), Number(gid));
    } finally {
      fs.closeSync(fd);
    }
  });
}

const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY;

/** What an open file is, whatever stands under its path by now. */
const ofOpen = (fd: number) => `/proc/self/fd/${fd}`;

/**
 * Calls `give` where there may be something to be given away, with the name in the directory that
 * was looked at: of the path itself each look could lead elsewhere.
 */
function inParent(path: string, give: (entry: string, parent: BigIntStats) => void): void {
  if (process.geteuid?.() !== 0) return;
  try {
    // Mostly it is root's, which one call tells.
    if (fs.statSync(dirname(path)).uid === 0) return;
    const fd = fs.openSync(dirname(path), OPEN_DIRECTORY);
    try {
      const parent = fs.fstatSync(fd, { bigint: true });
      if (parent.uid !== 0n) give(`${ofOpen(fd)}/${basename(path)}`, parent);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // As said above.
  }
}
