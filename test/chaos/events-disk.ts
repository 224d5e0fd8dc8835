import { delay } from '../support/wait.js';
import type { ChaosEvent } from './events.js';

export const DISK_EVENTS = {
  'disk full': {
    weight: 'alone',
    async run(world) {
      const { disk, supervisor, random } = world;
      if (!disk.canFill) return world.note('disk full skipped');
      const said = supervisor.said.length;
      try {
        disk.fill(random.size(2_000_000));
        await world.writeWal(6_000_000);
        await supervisor.hears(/No space left on device/, said);
        // Started anew on a full disk.
        if (random.chance(0.5)) await supervisor.end('SIGKILL');
        await delay(world.span(3000));
      } finally {
        disk.free();
      }
    },
  },
} as const satisfies Record<string, ChaosEvent>;
