import { Worker } from 'node:worker_threads';
import { packageFile } from '../package.js';
import type { Compression } from '../wal/file-name.js';

const workerFile = () => packageFile('codec/worker.js');

/** File descriptors belong to the process, not to one of its threads. */
export interface FileJob {
  kind: 'file';
  from: number;
  to: number;
  length: number;
}

/** Memory that all threads see: nothing is copied. */
export interface MemoryJob {
  kind: 'memory';
  codec: Compression;
  /** Absent for the codec's default. */
  level?: number;
  plain: Uint8Array;
  into: Uint8Array;
}

/** What the thread is asked. */
export type CompressionJob = (FileJob | MemoryJob) & { id: number };

/** What it answers: how long the output is, or what an Error loses on its way between threads. */
export interface CompressionAnswer {
  id: number;
  length: number;
  error?: { message: string; code: string | undefined };
}

interface Waiting {
  resolve: (length: number) => void;
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
    return this.worker !== undefined || workerFile() !== undefined;
  }

  /** Gives the length of what was asked for in memory. @throws what compressing throws */
  run(job: FileJob | MemoryJob): Promise<number> {
    this.worker ??= this.start();
    this.lastId += 1;
    const id = this.lastId;
    const done = new Promise<number>((resolve, reject) =>
      this.waiting.set(id, { resolve, reject }),
    );
    this.worker.ref();
    this.worker.postMessage({ id, ...job });
    return done;
  }

  private start(): Worker {
    const { waiting } = this;
    // Options of the main program, such as --input-type, are not the thread's.
    const started = new Worker(workerFile() as string, { execArgv: [] });
    started.on('message', ({ id, length, error }: CompressionAnswer) => {
      const job = waiting.get(id);
      waiting.delete(id);
      if (waiting.size === 0) started.unref();
      if (error) job?.reject(Object.assign(new Error(error.message), error));
      else job?.resolve(length);
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

export const COMPRESSING_THREAD = new CompressingThread();
