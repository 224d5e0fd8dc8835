import { existsSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { type FileSystem, nodeFileSystem } from '../../files/file-system.js';
import { MODULES } from '../../package.js';
import { inPieces } from '../pieces.js';
import { compressLz4 } from './compress.js';
import { LZ4_BLOCK_SIZE, Lz4FrameEncoder } from './frame.js';
import type { Lz4Answer, Lz4Job } from './worker.js';

const WORKER = new URL('codec/lz4/worker.js', MODULES);

interface Waiting {
  resolve: () => void;
  reject: (error: Error) => void;
}

/**
 * The compressing thread of the process: one, since its code is optimized once and not anew for each
 * segment. It is started with the first job and keeps the process running only while it works.
 */
class CompressingThread {
  private worker: Worker | undefined;
  private lastId = 0;
  private readonly waiting = new Map<number, Waiting>();

  /** False where the worker's file is missing: in a bundle of somebody else's, or run from the sources. */
  get isPossible(): boolean {
    return this.worker !== undefined || existsSync(fileURLToPath(WORKER));
  }

  run(job: Omit<Lz4Job, 'id'>): Promise<void> {
    this.worker ??= this.start();
    this.lastId += 1;
    const id = this.lastId;
    const done = new Promise<void>((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.worker.ref();
    this.worker.postMessage({ id, ...job });
    return done;
  }

  private start(): Worker {
    const { waiting } = this;
    // Options of the main program, such as --input-type, are not the thread's.
    const started = new Worker(WORKER, { execArgv: [] });
    started.on('message', ({ id, error }: Lz4Answer) => {
      const job = waiting.get(id);
      waiting.delete(id);
      if (waiting.size === 0) started.unref();
      if (error) job?.reject(Object.assign(new Error(error.message), error));
      else job?.resolve();
    });
    let cause = new Error('the compressing thread ended early');
    started.on('error', (e) => {
      cause = e as Error;
    });
    started.on('exit', () => {
      this.worker = undefined;
      for (const { reject } of waiting.values()) reject(cause);
      waiting.clear();
    });
    return started;
  }
}

const THREAD = new CompressingThread();

/** Between other work in this thread: what is shipped comes piece by piece. */
export async function* compressStream(
  plain: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const encoder = new Lz4FrameEncoder();
  yield encoder.header();
  for await (const { piece } of inPieces(plain, LZ4_BLOCK_SIZE)) yield encoder.block(piece).slice();
  yield encoder.end();
}

/** Every block ends a turn of the event loop. */
export async function compressWhole(plain: Uint8Array): Promise<Uint8Array> {
  const encoder = new Lz4FrameEncoder();
  const parts: Uint8Array[] = [encoder.header(plain.length)];
  for (let at = 0; at < plain.length; at += LZ4_BLOCK_SIZE) {
    parts.push(encoder.block(plain.subarray(at, at + LZ4_BLOCK_SIZE)).slice());
    await setImmediate();
  }
  parts.push(encoder.end());
  return Buffer.concat(parts);
}

/**
 * `compressLz4` in a worker thread. Where there is none this thread does it.
 * @throws as `compressLz4`
 */
export async function compress(
  from: number,
  to: number,
  length: number,
  { fs }: { fs: FileSystem },
): Promise<void> {
  // The thread knows descriptors of the system only.
  if (fs !== nodeFileSystem || !THREAD.isPossible) return compressLz4(from, to, length, fs);
  return THREAD.run({ from, to, length });
}
