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
         require('fs').appendFileSync(${JSON.stringify(out)}, require('url').fileURLToPath(url));
         super(url, ...rest);
       }
     };
     require('module').syncBuiltinESMExports();`,
  );
  return `--require ${preload}`;
}
