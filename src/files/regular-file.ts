import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from 'node:fs';
import { open } from 'node:fs/promises';

/**
 * Reads small files whose names others may have taken for something else: a fifo would never end,
 * a device might not either, and a link may lead anywhere.
 */

/** Never waits for the other end of a fifo. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

/** The content of a regular file. @throws the errno error; EFTYPE if it is no regular file */
export async function readRegular(path: string, options: { follow: boolean }): Promise<Buffer> {
  const handle = await open(path, options.follow ? FLAGS : FLAGS | constants.O_NOFOLLOW);
  try {
    requireRegular(await handle.stat(), path);
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

/** The same, synchronously; follows links. */
export function readRegularSync(path: string): Buffer {
  const fd = openSync(path, FLAGS);
  try {
    requireRegular(fstatSync(fd), path);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

function requireRegular(stats: Stats, path: string): void {
  if (stats.isFile()) return;
  const error: NodeJS.ErrnoException = new Error('Not a regular file');
  throw Object.assign(error, { code: 'EFTYPE', syscall: 'open', path });
}
