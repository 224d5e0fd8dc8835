import { createRequire } from 'node:module';

/**
 * Where the built package's modules are. This file has to stay at the top: `dist/fetch.cjs`,
 * in which many modules are one, lies there too, and so finds what they do.
 */
export const MODULES = import.meta.url;

const { version } = createRequire(MODULES)('../package.json') as { version: string };

/** Version of this package. */
export const VERSION: string = version;
