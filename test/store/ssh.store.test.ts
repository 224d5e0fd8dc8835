import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openFileStore } from '../../src/store/file/file-store.js';
import { parsePlace, type SshPlace } from '../../src/store/place.js';
import { openSshStore, type SshStoreOptions } from '../../src/store/ssh/ssh-store.js';
import { removeScratch, scratchDir } from '../support/scratch.js';
import { Sshd, sshMissing } from '../support/sshd.js';
import { storeContract } from './contract.js';

describe.skipIf(sshMissing)(`over ssh${sshMissing ? ` (${sshMissing})` : ''}`, () => {
  let sshd: Sshd;
  let key: string;

  beforeAll(async () => {
    sshd = await Sshd.start();
    key = sshd.addKey();
  });
  afterAll(async () => {
    await sshd?.[Symbol.asyncDispose]();
  });

  const open = (dir: string, options: SshStoreOptions = {}) =>
    openSshStore(parsePlace(sshd.place(dir)) as SshPlace, { env: sshd.env(key), ...options });

  storeContract(
    'a directory over ssh',
    async () => {
      const dir = scratchDir('store');
      await openFileStore(dir, { init: true });
      const store = open(dir);
      return {
        store,
        again: async () => open(dir),
        [Symbol.asyncDispose]: async () => {
          await store.close();
          removeScratch(dir);
        },
      };
    },
    { many: 120, rounds: 3 },
  );

  it('x', () => {
    expect(1).toBe(1);
  });
});
