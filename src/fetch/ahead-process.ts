import { readAhead } from './ahead.js';

// Started by `orderAhead`, with the spool as its argument. Nobody sees what it would say.
await readAhead(process.argv[2] as string).catch(() => {});
