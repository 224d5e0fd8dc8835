import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { scratchDir } from './scratch.js';

/** NODE_OPTIONS with which a process writes down which worker threads it starts. */
export function tellOfThreads(out: string): string {
  const preload = join(scratchDir('preload'), 'tell.cjs');
  writeFileSync(
    preload,
    `const threads = require('worker_threads'); const { Worker } = threads;
     threads.Worker = class extends Worker {
       constructor(url, ...rest) {
         const path = typeof url === 'string' ? url : require('url').fileURLToPath(url);
         require('fs').appendFileSync(${JSON.stringify(out)}, path);
         super(url, ...rest);
       }
     };
     require('module').syncBuiltinESMExports();`,
  );
  return `--require ${preload}`;
}
