import { describe, expect, it } from 'vitest';
import { openFileStore } from '../../src/store/file/file-store.js';
import { parsePlace, type SshPlace } from '../../src/store/place.js';
import { openSshStore } from '../../src/store/ssh/ssh-store.js';
import { scratchDir } from './scratch.js';
import { isRunning, Sshd, sshMissing } from './sshd.js';
import { waitFor } from './wait.js';

describe.skipIf(sshMissing)(`the sshd of tests${sshMissing ? ` (${sshMissing})` : ''}`, () => {
  it('is there again after each end, whatever it did at that moment', async () => {
    await using sshd = await Sshd.start();
    const key = sshd.addKey();
    const dir = scratchDir();
    await openFileStore(dir, { init: true });
    const place = parsePlace(sshd.place(dir)) as SshPlace;
    for (let round = 0; round < 5; round++) {
      const store = openSshStore(place, { env: sshd.env(key), attempts: 1 });
      expect(await store.head('a')).toBeUndefined();
      const [server] = sshd.servers();
      expect(server).toBeDefined();
      // One begins while it ends.
      const late = openSshStore(place, { env: sshd.env(key), attempts: 1 });
      const head = late.head('a').catch(() => undefined);
      sshd.kill();
      await sshd.restart();
      await Promise.all([head, late.close(), store.close()]);
      expect(isRunning(server as number)).toBe(false);
    }
    await waitFor(() => sshd.servers().length === 0);
  });
});
