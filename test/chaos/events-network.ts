import { delay, waitFor } from '../support/wait.js';
import type { ChaosEvent } from './events.js';
import type { World } from './world.js';

/** A read of so many bytes towards walkeep holds WAL in its middle, not a message's head. */
const BIG_READ = 8000;

export const NETWORK_EVENTS = {
  'line slow': {
    weight: 'light',
    async run(world) {
      const { proxy } = world.cluster;
      proxy.slow(world.span(150));
      await delay(world.span(2000));
      proxy.slow(0);
    },
  },
  'line cut': {
    weight: 'light',
    async run(world) {
      const { proxy } = world.cluster;
      if (world.random.chance(0.3)) return proxy.cut();
      // Anywhere in a message, once so much has passed.
      const { accepted } = proxy;
      proxy.after(world.random.size(200_000), 'cut');
      await world.writeWal(300_000);
      await waitFor(() => proxy.accepted > accepted || !world.primary.running, {
        what: 'a new connection behind the cut',
        timeoutMs: 60_000,
      });
    },
  },
  'line half closed': {
    weight: 'light',
    async run(world) {
      world.cluster.proxy.halfClose(world.random.pick(['client', 'server']));
    },
  },
  'line silent': {
    weight: 'light',
    async run(world) {
      const { proxy } = world.cluster;
      proxy.stall();
      // The longest are given up by both sides: 4 and 5 seconds.
      await delay(world.span(6500));
      proxy.resume();
    },
  },
  'bytes corrupted': {
    weight: 'alone',
    async run(world) {
      await corrupt(world);
    },
  },
  'bytes corrupted, line cut': {
    weight: 'alone',
    async run(world) {
      const { proxy } = world.cluster;
      const { accepted } = proxy;
      // Within one record: it is not seen to be bad before its end comes.
      proxy.flipBit(BIG_READ);
      proxy.after(100_000 + world.random.below(200_000), 'cut');
      await world.writeWal(600_000, 'one');
      await waitFor(() => proxy.flipped && proxy.accepted > accepted, {
        what: 'a damaged record without its end',
      });
      world.note('damaged record without its end');
    },
  },
  'bytes corrupted, receiver killed': {
    weight: 'alone',
    async run(world) {
      await corrupt(world);
      await world.supervisor.end('SIGKILL');
    },
  },
  'bytes corrupted, failover': {
    weight: 'alone',
    async run(world) {
      const { cluster } = world;
      const { proxy } = cluster;
      // The record's end comes from another server, on another timeline.
      proxy.flipBit(BIG_READ);
      proxy.after(100_000 + world.random.below(300_000), 'stall');
      await world.writeWal(600_000, 'one');
      await waitFor(() => proxy.flipped && proxy.stalled, {
        what: 'a damaged record without its end',
      });
      try {
        await cluster.failover();
      } finally {
        proxy.resume();
      }
      world.note('damaged record without its end');
    },
  },
  'bytes corrupted as it connects': {
    weight: 'alone',
    async run(world) {
      const { cluster, random } = world;
      const failover = random.chance(0.5);
      // Any message: what the server says of itself, a history file, the head of one with WAL.
      for (const proxy of cluster.proxies) proxy.flipBit(1, random.below(16), 1 << random.below(8));
      if (failover) await cluster.failover();
      else cluster.proxy.cut();
      await waitFor(() => cluster.proxy.flipped, { what: 'a read to damage' });
      for (const proxy of cluster.proxies) proxy.flipBit(Number.POSITIVE_INFINITY);
      world.note(`any message damaged${failover ? ' after a failover' : ''}`);
    },
  },
} as const satisfies Record<string, ChaosEvent>;

/** Flips a bit of WAL on its way; walkeep must refuse what it got. */
async function corrupt(world: World): Promise<void> {
  const { proxy } = world.cluster;
  const said = world.supervisor.said.length;
  proxy.flipBit(BIG_READ);
  const records = world.random.pick(['small', 'one'] as const);
  await world.writeWal(100_000 + world.random.below(300_000), records);
  await waitFor(() => proxy.flipped, { what: 'a read to damage' });
  await world.supervisor.hears(/error: /, said);
  world.note('damage refused');
}
