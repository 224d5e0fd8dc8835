import { createRequire } from 'node:module';

/**
 * Where the built package's modules are. This file has to stay at the top: `dist/fetch.cjs`
 * and its like, in which many modules are one, lie there too, and so find what they do.
 */
export const MODULES = import.meta.url;

const { version } = createRequire(MODULES)('../package.json') as { version: string };

/** Version of this package. */
export const VERSION: string = version;
