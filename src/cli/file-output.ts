import { fstatSync, writeSync } from 'node:fs';
import { Writable } from 'node:stream';
import type { OutputStreams } from './output.js';

const STDOUT = 1;

/**
 * A process's own streams, each made when it is asked for. A file at stdout is written to here:
 * Node.js takes it for written where a full disk took only a part.
 */
export function processStreams(process: NodeJS.Process): OutputStreams {
  let file: Writable | undefined;
  return {
    get stdout() {
      file ??= isFile(STDOUT) ? fileOutput(STDOUT) : undefined;
      return file ?? process.stdout;
    },
    get stderr() {
      return process.stderr;
    },
    env: process.env,
  };
}

function isFile(fd: number): boolean {
  try {
    return fstatSync(fd).isFile();
  } catch {
    return false;
  }
}

function fileOutput(fd: number): Writable {
  return new Writable({
    write(chunk: Uint8Array, _encoding, done) {
      try {
        for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
        done();
      } catch (error) {
        done(error as Error);
      }
    },
  });
}
