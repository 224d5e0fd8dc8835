import fs, { constants } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Where root makes files in the directory of another user, that user has to be able to read, replace
 * and remove them: they are given to whom the directory belongs to. On file systems that give nothing
 * away they stay root's.
 */
export function giveFile(fd: number, path: string): void {
  const owner = ownerAround(path);
  if (!owner) return;
  try {
    fs.fchownSync(fd, owner.uid, owner.gid);
  } catch {
    // As said above.
  }
}

/** The same of a directory that was just made, which another may have put something in place of. */
export function giveDirectory(path: string): void {
  const owner = ownerAround(path);
  if (!owner) return;
  try {
    const fd = fs.openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    try {
      if (fs.fstatSync(fd).uid === 0) fs.fchownSync(fd, owner.uid, owner.gid);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // As said above.
  }
}

/** Undefined where nothing is to be given away. */
function ownerAround(path: string): { uid: number; gid: number } | undefined {
  if (process.geteuid?.() !== 0) return undefined;
  try {
    const { uid, gid } = fs.statSync(dirname(path));
    return uid === 0 ? undefined : { uid, gid };
  } catch {
    return undefined;
  }
}
