import { PassThrough } from 'node:stream';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import { StdioStore } from '../../src/store/stdio/client.js';
import { type ServerRole, serveStore } from '../../src/store/stdio/server.js';
import { StdioSession } from '../../src/store/stdio/session.js';
import type { ObjectStore } from '../../src/store/store.js';
import { storeContract } from './contract.js';

/** A client of a store that is served in this process. */
function served(open: () => Promise<ObjectStore>, role: ServerRole = {}): StdioStore {
  return new StdioStore({
    place: 'stdio:',
    backOff: 1,
    connect: async () => {
      const [up, down] = [new PassThrough(), new PassThrough()];
      void serveStore(open, { input: up, output: down, ...role });
      return new StdioSession({ input: down, output: up, place: 'stdio:', silence: 30_000 });
    },
  });
}

storeContract('a memory over pipes', async () => {
  const objects = new MemoryObjects();
  const store = served(async () => new MemoryStore({ objects }));
  return {
    store,
    again: async () => served(async () => new MemoryStore({ objects })),
    [Symbol.asyncDispose]: () => store.close(),
  };
});
