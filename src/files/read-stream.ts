import { createReadStream, type ReadStream } from 'node:fs';
import { type FileSystem, OPEN_READ } from './file-system.js';

/** A file from `start` on as a stream that can be piped, read through the seam. */
export function readStream(
  path: string,
  { start = 0, highWaterMark = 64 * 1024 }: { start?: number; highWaterMark?: number },
  fs: FileSystem,
): ReadStream {
  return createReadStream(path, {
    start,
    highWaterMark,
    // Numbers are taken as open(2) means them; the types know names only.
    flags: OPEN_READ as unknown as string,
    fs: callbacks(fs) as never,
  });
}

type Done = (error: Error | null, result?: number, buffer?: Buffer) => void;

/** What a ReadStream calls, as node:fs has it. */
function callbacks(fs: FileSystem) {
  return {
    open: (path: string, flags: number, mode: number, done: Done) =>
      void fs.open(path, flags, mode).then(
        (fd) => done(null, fd),
        (e) => done(e),
      ),
    read: (
      fd: number,
      buffer: Buffer,
      offset: number,
      length: number,
      position: number,
      done: Done,
    ) =>
      void fs.read(fd, buffer.subarray(offset), length, position).then(
        (bytes) => done(null, bytes, buffer),
        (e) => done(e),
      ),
    close: (fd: number, done: Done) =>
      void fs.close(fd).then(
        () => done(null),
        (e) => done(e),
      ),
  };
}
