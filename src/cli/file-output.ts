import fs from 'node:fs';
import { Writable } from 'node:stream';
import { isBeside, tellParent } from '../beside.js';
import type { OutputStreams } from './output.js';

const STDOUT = 1;
const STDERR = 2;

/**
 * A process's own streams, each made when it is asked for. Files are written to here: Node.js takes
 * for written what a full disk took only a part of, and behind a failed write it drops all others.
 */
export function processStreams(process: NodeJS.Process): OutputStreams {
  let stdout: Writable | undefined;
  let stderr: Writable | undefined;
  return {
    get stdout() {
      stdout ??= isFile(STDOUT) ? fileOutput(STDOUT) : process.stdout;
      return stdout;
    },
    get stderr() {
      stderr ??= isFile(STDERR) ? fileOutput(STDERR, { lossy: true }) : process.stderr;
      return stderr;
    },
    env: process.env,
    ...(isBeside() ? { reported: (error) => tellParent({ kind: 'error', ...error }) } : {}),
  };
}

function isFile(fd: number): boolean {
  try {
    return fs.fstatSync(fd).isFile();
  } catch {
    return false;
  }
}

/**
 * Writes to a file, each chunk in full or with an error. `lossy`: a log, of which what a full disk
 * did not take is lost; it goes on when there is space again.
 */
export function fileOutput(fd: number, { lossy = false } = {}): Writable {
  return new Writable({
    write(chunk: Uint8Array, _encoding, done) {
      try {
        for (let at = 0; at < chunk.length; ) at += fs.writeSync(fd, chunk, at);
        done();
      } catch (error) {
        done(lossy ? null : (error as Error));
      }
    },
  });
}
