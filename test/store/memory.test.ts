import { MemoryStore } from '../../src/store/memory.js';
import { storeContract } from './contract.js';

storeContract('memory', async () => {
  const store = new MemoryStore();
  return {
    store,
    again: async () => new MemoryStore({ objects: store.objects }),
    [Symbol.asyncDispose]: () => store.close(),
  };
});
