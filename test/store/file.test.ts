import { openFileStore } from '../../src/store/file/file-store.js';
import { removeScratch, scratchDir } from '../support/scratch.js';
import { storeContract } from './contract.js';

// A listing of a directory has no pages.
const settings = { many: 120, rounds: 5 };

storeContract('a directory', openDirectory, settings);

async function openDirectory() {
  const dir = scratchDir('store');
  const store = await openFileStore(dir, { init: true });
  return {
    store,
    again: () => openFileStore(dir),
    [Symbol.asyncDispose]: async () => {
      await store.close();
      removeScratch(dir);
    },
  };
}
